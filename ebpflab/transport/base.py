"""The seam between a lab and the machine it traces.

A *target* knows how to reach an agent; a *transport* is an agent that has been reached: two
byte streams that speak the wire of `ebpflab.protocol.framing`. Nothing above this file knows
whether the agent is a child process, sits in a guest, or is a recording.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

OnStep = Callable[[str], None]
"""Called with a short text whenever a start-up of more than two seconds takes a step."""


class Transport(ABC):
    """A running agent. ``reader`` and ``writer`` are file descriptors (one socket may be both)."""

    reader: int
    writer: int
    set_clock: bool = False
    """True when the agent should set its machine's clock from ours (a resumed guest)."""
    recorded: bool = False
    """True when events come with answers alone, so that waiting for them is in vain."""

    def asking(self, ident: int) -> None:  # noqa: B027 - most need not know
        """Called before request ``ident`` is sent, in the thread that asks."""

    @abstractmethod
    def close(self) -> None:
        """End the agent, and whatever was started for it. May be called twice."""

    @abstractmethod
    def post_mortem(self) -> str:
        """One or two sentences on why the streams ended, for the reader of an error."""


class Target(ABC):
    """A way to reach an agent."""

    name: str

    @abstractmethod
    def unavailable(self) -> str | None:
        """Why this target cannot be used here and what would change that; None when it can.

        Quick (well under a second) and without side effects.
        """

    @abstractmethod
    def connect(self, progress: OnStep) -> Transport:
        """Start an agent. Raises a TargetError; leaves nothing behind when it does."""
