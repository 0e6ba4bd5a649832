"""What programs say with ``bpf_trace_printk``: trace_pipe, open while it is wanted.

The machine has one trace_pipe. Readers of older kernels steal each other's lines; newer ones (6.6:
commit c2489bb7e6be) refuse a second reader. So it is open exactly as long as a program that prints
is loaded, and whoever holds it meanwhile is named.
"""

import errno
import os
import time
from pathlib import Path
from typing import Iterator, List, Optional, Set

from ebpflab.agent.faults import Fault
from ebpflab.agent.kernel import names
from ebpflab.agent.streams.drain import Drain
from ebpflab.agent.streams.stream import CATCH_UP_SECONDS, Send, Stream


class LinesStream(Stream):
    """Lines of a file that never ends: tracefs ``trace_pipe``."""

    def __init__(self, ident: int, path: str) -> None:
        super().__init__(ident, lost=lambda: 0)
        self.fds = [os.open(path, os.O_RDONLY | os.O_NONBLOCK)]

    def drain(self, send: Send) -> None:
        left = self.size_bytes  # others may print as fast as we read: they must not keep us here
        try:
            while left > 0 and (data := os.read(self.fds[0], min(64 << 10, left))):
                send(self.ident, 0, data)
                left -= len(data)
        except BlockingIOError:
            pass  # that was all
        self.crowded = left <= 0

    def behind(self, mark: List[int]) -> bool:
        """Whether more may be there. Nothing tells how much trace_pipe holds."""
        return self.crowded

    def reset(self) -> None:
        deadline = time.monotonic() + CATCH_UP_SECONDS
        super().reset()
        while self.crowded and time.monotonic() < deadline:
            super().reset()

    def close(self) -> None:
        os.close(self.fds[0])


def prints(source: str) -> bool:
    """Whether a program says something."""
    return "bpf_trace_printk" in source or "bpf_printk" in source


class Messages:
    """One stream of lines for all programs that print; ``stream`` is its number."""

    def __init__(self, drain: Drain, idents: Iterator[int]) -> None:
        self._drain, self._idents = drain, idents
        self._lines: Optional[LinesStream] = None
        self._programs: Set[int] = set()

    @property
    def stream(self) -> Optional[int]:
        return self._lines.ident if self._lines else None

    def listen(self, program: int) -> None:
        """Read from now on, for this program; lines that are older than this are left out."""
        if self._lines is None:
            self._lines = self._open(str(names.tracefs() / "trace_pipe"))
            self._lines.reset()
            self._drain.add(self._lines)
        self._programs.add(program)

    def forget(self, program: int) -> None:
        """This program is closed; after the last one trace_pipe is free for others."""
        self._programs.discard(program)
        if self._lines is not None and not self._programs:
            self._drain.remove(self._lines.ident)
            self._lines.close()
            self._lines = None

    def _open(self, path: str) -> LinesStream:
        try:
            return LinesStream(next(self._idents), path)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            raise Fault(
                "ProgramError",
                f"Cannot read what the program says with bpf_trace_printk: {path} has one reader"
                f" at a time, and {_reader(path)}. End it, or send rows through a ring buffer.",
            ) from None


def _reader(path: str) -> str:
    """Who has the file open, in words."""
    for fd in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if fd.parts[2] != str(os.getpid()) and os.path.samefile(fd, path):
                name = Path("/proc", fd.parts[2], "comm").read_text().strip()
                return f"process {fd.parts[2]} ({name}) is reading it"
        except OSError:  # the process has ended, or the descriptor is no file
            continue
    return "another program is reading it"
