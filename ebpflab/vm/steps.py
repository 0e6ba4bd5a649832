"""Long work, told step by step: a line when a step begins, and one every few seconds after."""

from __future__ import annotations

import time

from ebpflab.transport.base import OnStep

NOTE_SECONDS = 5.0


class Steps:
    """Names the step that runs and how long the whole has taken.

    >>> steps = Steps("building the guest", print)
    >>> steps.begin("writing the disk")
    building the guest: writing the disk (0 s)
    """

    def __init__(self, what: str, progress: OnStep) -> None:
        self._what, self._progress = what, progress
        self._started = time.monotonic()
        self._noted = 0.0
        self._step = ""

    def begin(self, step: str) -> None:
        if step != self._step:
            self._step = step
            self._note()

    def tick(self) -> None:
        """To be called about once a second; says that the step still runs when it is due."""
        if time.monotonic() - self._noted >= NOTE_SECONDS:
            self._note()

    def done(self) -> None:
        self.begin("done")

    def _note(self) -> None:
        self._noted = time.monotonic()
        self._progress(f"{self._what}: {self._step} ({self._noted - self._started:.0f} s)")
