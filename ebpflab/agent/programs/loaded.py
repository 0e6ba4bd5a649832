"""A program: compiled C, its maps and streams, and what is attached.

BCC's own attach calls are used, and the file descriptors they leave in the BPF object are taken
over: an attachment here is a list of file descriptors, and detaching is closing them. So two
functions may sit on one address, which BCC's own book-keeping loses.
"""

import atexit
import os
import re
import time
from functools import partial
from typing import Callable, Dict, Iterator, List, Optional, Sequence, Tuple, cast

import bcc

from ebpflab.agent.faults import Fault
from ebpflab.agent.kernel import btf, descriptors, headers, maps, names
from ebpflab.agent.kernel.own_maps import HIDDEN, LAYOUT_SUFFIX, LOST_SUFFIX, RINGS_SUFFIX
from ebpflab.agent.probes import kinds, usdt
from ebpflab.agent.probes.attached import Asked, Attachment, close_probe, taken_fds
from ebpflab.agent.probes.kind import place
from ebpflab.agent.probes.tracepoint import explain_tracepoint
from ebpflab.agent.probes.uprobe import attach_at
from ebpflab.agent.programs import runstats
from ebpflab.agent.programs.compiling import bcc_call, compiled
from ebpflab.agent.programs.instrument import Instrumented, as_written, blames_us, instrument
from ebpflab.agent.streams import rings
from ebpflab.agent.streams.drain import Drain
from ebpflab.agent.streams.perf_buffer import PerfStream
from ebpflab.agent.streams.ring_buffer import Ring, RingStream
from ebpflab.agent.streams.stream import Stream
from ebpflab.protocol import map_types, messages
from ebpflab.protocol.messages import Where

# Source, clang's flags, what reads USDT arguments, headers that were named: what makes a program.
Key = Tuple[str, List[str], str, Optional[str]]


def _nothing_counted() -> int:
    return 0


class Program:
    """One compiled program."""

    def __init__(self, key: Key, drain: Drain, idents: Iterator[int]) -> None:
        self.key = key
        source, cflags, readers, _ = key
        self._drain, self._idents = drain, idents
        self.attachments: Dict[int, Attachment] = {}
        self._runs = runstats.RunStats()
        self.streams: Dict[str, Stream] = {}
        self.log = ""
        self._rings: List[int] = []  # descriptors of those that BCC has not made
        code = instrument(source)
        complaint = self._compile(code, cflags, readers)
        if complaint is not None and blames_us(self.log):
            code = instrument(source, typed=False)
            complaint = self._compile(code, cflags, readers)
        self.log = as_written(self.log)
        if complaint is not None:
            for function in usdt.complained_of(self.log):
                usdt.explain(source, function, readers)
            raise self._refused(complaint)
        self.maps = self._find_maps()
        self.types = btf.of_maps(table.fd for table in self.maps.values())
        self.typed = code.typed
        self.functions = self._find_functions()
        self._open_streams(code)
        self.attach_by_name()

    def _compile(self, code: Instrumented, cflags: List[str], readers: str) -> Optional[str]:
        """Let BCC compile; what it complains of, or None."""
        began = time.monotonic()  # of the last compilation, where the first had to be repeated
        self.bpf, complaint, self.log, self._choice = compiled(code, cflags, readers, self.key[3])
        self._compile_seconds = time.monotonic() - began
        return complaint

    def attach_by_name(self) -> None:
        """Attach what says by its name where: ``kprobe__vfs_read``, ``TRACEPOINT_PROBE``."""
        try:
            for kind, function, where in kinds.requests(self.functions, self.bpf):
                self.attach(kind, function, where)
        except BaseException:
            self.close()
            raise

    def _refused(self, complaint: str) -> Fault:
        not_made = maps.explain_not_made(self.log)
        if not_made is not None:
            return not_made
        missing = re.search(r"'([^']+)' file not found", self.log)
        if missing and missing.group(1) in self.key[0]:  # the reader's own #include
            similar = headers.similar(missing.group(1))
            return Fault("CompileError", complaint, log=self.log, closest=similar)
        without = headers.explain_missing(missing.group(1) if missing else None, self.log)
        if without is not None:
            return without
        for tracepoint in names.named_tracepoints(self.key[0]):
            if tracepoint not in names.tracepoints("*"):
                return explain_tracepoint(tracepoint, "")
        return Fault("CompileError", complaint, log=self.log)

    def _find_maps(self) -> Dict[str, maps.Map]:
        module, found = self.bpf.module, {}
        for index in range(bcc.lib.bpf_num_tables(module)):
            name = bcc.lib.bpf_table_name(module, index)
            found[name.decode()] = maps.Map(
                name.decode(),
                bcc.lib.bpf_table_fd(module, name),
                bcc.lib.bpf_table_type_id(module, index),
                bcc.lib.bpf_table_key_size(module, name),
                bcc.lib.bpf_table_leaf_size(module, name),
                bcc.lib.bpf_table_max_entries_id(module, index),
            )
        return found

    def _find_functions(self) -> List[str]:
        module = self.bpf.module
        count = bcc.lib.bpf_num_functions(module)
        return [bcc.lib.bpf_function_name(module, index).decode() for index in range(count)]

    def _open_streams(self, code: Instrumented) -> None:
        for name, table in self.maps.items():
            counter = self.maps.get(name + LOST_SUFFIX)
            if counter is None:
                continue
            lost = partial(maps.total, counter) if code.typed else _nothing_counted
            ident = next(self._idents)
            if table.type == map_types.RINGBUF:
                fds = [table.fd]
                if name in code.rings:
                    made = rings.make(table, self.maps[name + RINGS_SUFFIX])
                    self._rings += made
                    fds += made
                each = [Ring(fd, table.max_entries) for fd in fds]
                stream: Stream = RingStream(ident, lost, each)
            else:
                stream = PerfStream(ident, lost, self.bpf, name)
            self.streams[name] = stream
            self._drain.add(stream)

    def describe(self) -> messages.Described:
        """What the notebook needs to know of the program: its functions, maps and streams."""
        described: List[messages.MapDescription] = []
        for name, table in self.maps.items():
            if name.endswith(HIDDEN):
                continue
            stream = self.streams.get(name)
            typed_as: Optional[str] = name
            if stream:
                typed_as = name + LAYOUT_SUFFIX if self.typed else None
            described.append(
                {
                    "name": name,
                    "type": table.type,
                    "key_size": table.key_size,
                    "value_size": 0 if stream else table.value_size,
                    "max_entries": table.max_entries,
                    "cpus": table.cpus,
                    "typed_as": typed_as,
                    "stream": stream.ident if stream else None,
                    "rings": name + RINGS_SUFFIX in self.maps,
                    "counted": stream is not None and self.typed,
                }
            )
        return {
            "functions": self.functions,
            "maps": described,
            "attached": [attachment.describe() for attachment in self.attachments.values()],
            "log": self.log,
            "compilation": self._choice.describe(self._compile_seconds),
        }

    def put_program(self, name: str, key: bytes, function: str) -> None:
        """Let a tail call through a jump table lead to a function.

        The kernel wants all programs of a jump table to be of one kind, which nothing tells before
        one of them is loaded, with an attachment.
        """
        types = {btf.program_type(each.fd) for each in self.bpf.funcs.values()}
        if len(types) != 1:
            raise Fault(
                "TableError",
                f"Cannot put {function!r} into the jump table {name!r}: first attach the function"
                " that jumps, so that it is known for which kind of probe this one is to be loaded."
                if not types
                else f"Cannot put {function!r} into the jump table {name!r}: functions of several"
                " kinds of probes are attached, and a jump table holds one kind.",
            )
        self._load_function(function, types.pop())
        maps.put_program(self.maps[name], key, self.bpf.funcs[function.encode()].fd)

    def attach(self, kind: str, function: str, where: Where) -> Attachment:
        """Attach a function. Asking twice for the same probe gives the one that is there."""
        known = kinds.of(kind)
        given = {key: value for key, value in where.items() if value is not None}
        where = cast(Where, given)
        places = tuple((key, str(given[key])) for key in sorted(given))
        asked = Asked(kind, function, place(function, where), places)
        for attachment in self.attachments.values():
            if attachment.asked == asked:
                return attachment
        known.check(where)
        descriptors.leave_room(len(where.get("offsets", ".")))
        self._load_function(function, known.program_type)
        self._count_from_now(function)

        def explain(complaint: str, log: str) -> Fault:
            fault = known.explain(function, where, complaint, log)
            fault.detail.update(complaint=complaint, log=log)
            return fault

        attach = partial(known.attach, self.bpf, function.encode(), where)
        return self._attach(asked, attach, explain)

    def _attach(
        self, asked: Asked, attach: Callable[[], None], explain: Callable[[str, str], Fault]
    ) -> Attachment:
        """Attach, and keep what came of it; or leave nothing behind, and explain."""
        _, complaint, log = bcc_call(attach)
        if complaint is not None:
            for _, _, fd in taken_fds(self.bpf):
                os.close(fd)
            self._count_while_attached()
            raise explain(complaint, log)
        return self._keep(asked)

    def attach_usdt(self, enabled: Sequence[usdt.Enabled]) -> None:
        """Attach each probe at all its places."""
        for each in enabled:
            name, places = os.fsencode(each.path), each.offsets()
            descriptors.leave_room(len(places))
            self._load_function(each.function, bcc.BPF.KPROBE)
            self._count_from_now(each.function)
            function = each.function.encode()
            attach = partial(attach_at, self.bpf, function, name, each.pid or -1, places)
            self._attach(Asked("usdt", each.function, each.place), attach, each.explain)

    def _load_function(self, function: str, kind: int) -> None:
        """Hand a function to the kernel's verifier."""
        if function not in self.functions:
            raise Fault(
                "UnknownName",
                f"The program has no function {function!r}. It has: {', '.join(self.functions)}.",
            )
        loaded = self.bpf.funcs.get(function.encode())
        if loaded is not None and btf.program_type(loaded.fd) != kind:
            if any(function == each.asked.function for each in self.attachments.values()):
                raise kinds.explain_second_kind(function, btf.program_type(loaded.fd), kind)
            os.close(self.bpf.funcs.pop(function.encode()).fd)  # of a probe that is gone
        _, complaint, log = bcc_call(lambda: self.bpf.load_func(function.encode(), kind))
        if complaint is not None:
            log = as_written(log)
            usdt.explain(self.key[0], function, self.key[2])
            raise kinds.explain_load(function, kind, log) or Fault(
                "VerifierError",
                f"The kernel's verifier refused the function {function}",
                function=function,
                complaint=complaint,
                log=log,
            )

    def _keep(self, asked: Asked) -> Attachment:
        fds = taken_fds(self.bpf)
        assert fds, "BCC attached without leaving a file descriptor"
        attachment = Attachment(next(self._idents), asked, fds)
        self.attachments[attachment.ident] = attachment
        return attachment

    def _count_from_now(self, function: str) -> None:
        if all(attachment.asked.function != function for attachment in self.attachments.values()):
            self._runs.begin(function, self.bpf.funcs[function.encode()].fd)

    def _count_while_attached(self) -> None:
        if not self.attachments:
            self._runs.end()

    def stats(self) -> messages.Stats:
        """What the kernel counted for each function, and what emptying each buffer has cost."""
        counted = {
            name.decode(): self._runs.since(name.decode(), function.fd)
            for name, function in self.bpf.funcs.items()
        }
        return {
            "problem": self._runs.problem,
            "functions": {name: run.as_message() for name, run in counted.items() if run},
            "drain_ns": {name: stream.drain_ns for name, stream in self.streams.items()},
        }

    def detach(self, ident: Optional[int] = None) -> None:
        """Detach one attachment, or all."""
        for key in list(self.attachments) if ident is None else [ident]:
            attachment = self.attachments.pop(key, None)
            for kind, name, fd in attachment.fds if attachment else []:
                close_probe(kind, name, fd)
        self._count_while_attached()

    @property
    def size_bytes(self) -> int:
        """The memory of its maps, and of the rings and perf buffers beside them."""
        beside = sum(stream.size_bytes * len(stream.fds[1:]) for stream in self.streams.values())
        return beside + sum(table.size_bytes for table in self.maps.values())

    def make_idle(self) -> bool:
        """Detach and empty everything. False when a map cannot be emptied."""
        self.detach()
        if not all(maps.can_clear(table) for table in self.maps.values()):
            return False
        for stream in self.streams.values():
            self._drain.remove(stream.ident)
            stream.reset()
        for name, table in self.maps.items():
            if not name.endswith(RINGS_SUFFIX):
                maps.clear(table)
        return True

    def reuse(self) -> None:
        """Make an idle program ready again, with streams of new numbers."""
        for stream in self.streams.values():
            stream.ident = next(self._idents)
            stream.reset()
            self._drain.add(stream)
        self.attach_by_name()

    def close(self) -> None:
        """Give everything back to the kernel."""
        self.detach()
        for stream in self.streams.values():
            self._drain.remove(stream.ident)
            stream.close()
        for fd in self._rings:
            os.close(fd)
        self.bpf.cleanup()
        atexit.unregister(self.bpf.cleanup)
