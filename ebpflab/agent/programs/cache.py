"""The programs of a session: those in use, and the idle ones.

A program that is closed is kept *idle*, detached and with its maps emptied, and handed out again
when the same source is loaded: re-running a cell does not compile again. What it reads USDT
arguments by, and the headers that it was compiled with, count as part of that source. So many are
kept, and so much memory of maps; then the oldest goes.
"""

from typing import Dict, Iterator, List, Optional, Sequence, Tuple

from ebpflab.agent.faults import Fault
from ebpflab.agent.kernel.headers import Headers
from ebpflab.agent.probes import usdt
from ebpflab.agent.programs.loaded import Key, Program
from ebpflab.agent.streams.drain import Drain
from ebpflab.protocol import messages

_MAX_IDLE = 8
_MAX_IDLE_BYTES = 64 << 20  # of all that are idle: a guest has 1 GiB


class Programs:
    """Every program of a session, and the idle ones."""

    def __init__(self, drain: Drain, idents: Iterator[int]) -> None:
        self._drain, self._idents = drain, idents
        self._loaded: Dict[int, Program] = {}
        self._idle: List[Program] = []
        self.headers = Headers()

    def load(
        self,
        ident: int,
        source: str,
        cflags: List[str],
        headers: Optional[str],
        usdt_contexts: Sequence[messages.UsdtContext] = (),
    ) -> Tuple[bool, messages.HeadersState]:
        """Compile a program, or take an idle one, under the number that the notebook chose.

        Returns whether it was compiled now, and the headers that BCC takes.
        """
        state = self.headers.prepare(headers)
        self.headers.check(source, headers)
        enabled = usdt.enable(usdt_contexts)
        try:
            key = (source, cflags, usdt.readers(enabled), headers)
            program = self._take_idle(key)
            compiled = program is None
            if program is None:
                program = Program(key, self._drain, self._idents)
            self._loaded[ident] = program
            program.attach_usdt(enabled)
        except BaseException:
            self.close(ident)
            raise
        return compiled, state

    def _take_idle(self, key: Key) -> Optional[Program]:
        for program in self._idle:
            if program.key == key:
                self._idle.remove(program)
                program.reuse()
                return program
        return None

    def __getitem__(self, ident: int) -> Program:
        try:
            return self._loaded[ident]
        except KeyError:
            raise Fault(
                "ProgramError",
                "This program is closed. Load it again with lab.load(); rows of its streams that"
                " had arrived can still be read.",
            ) from None

    def attach_again(
        self, ident: int, usdt_contexts: Sequence[messages.UsdtContext]
    ) -> messages.Described:
        """Attach, after `detach`, what was attached by being loaded: by its name, and USDT."""
        program = self[ident]
        enabled = usdt.enable(usdt_contexts)
        try:
            program.attach_by_name()
            program.attach_usdt(enabled)
        except BaseException:
            program.detach()
            raise
        return program.describe()

    def close(self, ident: int) -> Optional[messages.Stats]:
        """Make a program idle. Its last counts, or None where there is no such program."""
        program = self._loaded.pop(ident, None)
        if program is None:
            return None
        stats = program.stats()
        if program.size_bytes <= _MAX_IDLE_BYTES and program.make_idle():
            self._idle.append(program)
        else:
            program.close()
        while len(self._idle) > _MAX_IDLE or self._idle_bytes() > _MAX_IDLE_BYTES:
            self._idle.pop(0).close()
        return stats

    def _idle_bytes(self) -> int:
        return sum(program.size_bytes for program in self._idle)

    def end(self) -> None:
        for program in self._loaded.values():
            program.detach()
