"""Everything that can go wrong, as one tree.

    EbpflabError
    ├── TargetError            no machine to trace, or it went away
    │   ├── NeedsRoot          local tracing without root or a sudo rule
    │   ├── BccMissing         the system's python3 cannot import bcc
    │   ├── VMError            the guest could not be built, started or resumed
    │   │   └── MissingTool    qemu, mmdebstrap and the like are not installed
    │   ├── WireError          bytes that are not our protocol, or another version of it
    │   └── ConnectionLost     the agent or the guest ended; rows so far are kept
    ├── ProgramError           the C program was refused
    │   ├── CompileError       clang: the reader's own line, its column, the log
    │   ├── VerifierError      the kernel's verifier: the decisive line, the log
    │   └── HeadersError       no kernel headers, or headers of another kernel
    ├── AttachError            a probe could not be attached
    │   └── UnknownEvent       no such function, tracepoint, probe or file: closest matches
    ├── TableError             a map cannot be read or written in this way
    ├── UnknownName            no such map, column or function in the program
    ├── PlotError              a picture cannot be drawn from this frame
    ├── RecordingError         a recording could not be written or read
    ├── WorkloadError          a command of lab.run or lab.start could not be run
    ├── NotRecorded            a recording was asked for what it does not hold
    └── AgentFault             the agent failed in a way it has no name for

Each message says what was attempted, what went wrong, and the likely reason or the fix.
A fault crosses the wire as ``{"type": <class name>, "message": ..., "detail": {...}}``;
`from_fault` turns it back into the exception. ``detail`` stays on the exception.
"""

from __future__ import annotations

import linecache
import traceback
from collections.abc import Mapping


class EbpflabError(Exception):
    """Base of every error of ebpflab. ``detail`` holds facts for programs to read."""

    def __init__(self, message: str, **detail: object) -> None:
        super().__init__(message)
        self.detail = detail

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows: the reader's line and the message, not the way through our code.

        A hook of IPython (`InteractiveShell.showtraceback`).
        """
        lines = [
            f", at line {number} of the cell: {text}"
            for frame, number in traceback.walk_tb(self.__traceback__)
            if frame.f_globals.get("__name__") == "__main__"
            and (text := linecache.getline(frame.f_code.co_filename, number).strip())
            and not text.startswith("get_ipython()")  # a magic: its line is not what was written
        ]
        return [f"{type(self).__name__}{lines[-1] if lines else ''}", "", str(self)]


class TargetError(EbpflabError):
    """No machine to trace could be reached, or it went away."""


class NeedsRoot(TargetError):
    """Tracing this machine's own kernel needs root, and there was no way to get it."""


class BccMissing(TargetError):
    """The system's python3 cannot import bcc."""


class VMError(TargetError):
    """The guest could not be built, started or resumed."""


class MissingTool(VMError):
    """A program that the guest is built or run with is not installed."""


class WireError(TargetError):
    """The other side sent bytes that are not this version of our protocol."""


class ConnectionLost(TargetError):
    """The agent, or the guest it ran in, ended while the lab was open."""


class ProgramError(EbpflabError):
    """The C program was refused."""


class CompileError(ProgramError):
    """clang refused the program. ``line`` and ``column`` count from 1 in the reader's C."""

    line: int | None = None
    column: int | None = None
    log: str = ""


class VerifierError(ProgramError):
    """The kernel's verifier refused a function. ``log`` is the verifier's whole text."""

    log: str = ""


class HeadersError(ProgramError):
    """There are no kernel headers to compile with, or they are another kernel's."""


class AttachError(EbpflabError):
    """A probe could not be attached."""


class UnknownEvent(AttachError):
    """No such function, tracepoint, symbol, USDT probe or file; ``closest`` lists near misses."""

    closest: tuple[str, ...] = ()


class TableError(EbpflabError):
    """A map cannot be read or written in this way."""


class UnknownName(EbpflabError, KeyError):
    """No such map, column or function in the program."""

    __str__ = Exception.__str__  # KeyError would print the message's repr


class PlotError(EbpflabError):
    """A picture cannot be drawn from this frame."""


class RecordingError(EbpflabError):
    """A recording could not be written, or a file is none."""


class NotRecorded(EbpflabError):
    """A lab that plays a recording was asked for what was not asked when it was made."""


class WorkloadError(EbpflabError):
    """A command could not be started on the traced machine."""


class AgentFault(EbpflabError):
    """The agent failed in a way it has no name for; ``detail["traceback"]`` tells where."""


def from_fault(fault: Mapping[str, object], source: str = "") -> EbpflabError:
    """The exception for a fault that came over the wire.

    ``source`` is the reader's C program, for the faults that point at a line of it.
    """
    from ebpflab import diagnostics

    kind = _BY_NAME.get(str(fault.get("type")), AgentFault)
    message, detail = str(fault.get("message", "")), fault.get("detail")
    detail = detail if isinstance(detail, dict) else {}
    if kind is CompileError:
        return diagnostics.compile_error(message, detail, source)
    if kind is VerifierError:
        return diagnostics.verifier_error(message, detail, source)
    error = kind(message, **detail)
    if isinstance(error, UnknownEvent):
        error.closest = tuple(detail.get("closest", ()))
    return error


def _tree(root: type[EbpflabError]) -> dict[str, type[EbpflabError]]:
    found = {root.__name__: root}
    for child in root.__subclasses__():
        found.update(_tree(child))
    return found


_BY_NAME = _tree(EbpflabError)
