"""Program: compiled C on the traced machine, what it is attached to, and its maps.

The names and arguments of the attach methods are BCC's, so that the book's programs and BCC's
reference guide carry over line by line.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack, get_args

import pandas as pd

from ebpflab import arguments, perf_events
from ebpflab.arrivals import EventSource
from ebpflab.attachments import Attachments
from ebpflab.binaries import golang, places
from ebpflab.decode import btf, frames, records
from ebpflab.display import rich
from ebpflab.display.progress import notice
from ebpflab.errors import ProgramError, TargetError, UnknownEvent, UnknownName, WireError
from ebpflab.protocol import map_types, messages
from ebpflab.protocol.closest import suggest
from ebpflab.protocol.messages import Where
from ebpflab.stacks import StackTable, named_stacks
from ebpflab.streams import Messages, Stream
from ebpflab.tables import Table
from ebpflab.transport.closing import Closing
from ebpflab.transport.connection import Answer, Connection

if TYPE_CHECKING:
    from ebpflab.lab import Lab


_EVENTS = 'prog["events"].collect(seconds=5), which returns a DataFrame'
_MESSAGES = "prog.messages.collect(seconds=5), which returns a DataFrame"
_OF_BCC = {
    "trace_print": _MESSAGES,
    "trace_fields": _MESSAGES,
    "trace_readline": _MESSAGES,
    "perf_buffer_poll": _EVENTS,
    "perf_buffer_consume": _EVENTS,
    "ring_buffer_poll": _EVENTS,
    "ring_buffer_consume": _EVENTS,
    "kprobe_poll": _EVENTS,
    "get_table": 'prog["counts"]',
    "get_syscall_fnname": 'lab.syscall_name("execve")',
    "get_syscall_prefix": 'lab.syscall_name("execve")',
    "ksym": "prog.stacks(), which has the names",
    "sym": "prog.stacks(), which has the names",
    "cleanup": "prog.close()",
    "load_func": "an attach_... method, which loads",
    "detach_kprobe": "prog.detach()",
    "detach_uprobe": "prog.detach()",
    "detach_tracepoint": "prog.detach()",
}
_Number = Literal[
    "event_off", "maxactive", "addr", "sym_off", "sample_period", "sample_freq", "cpu"
]
_NUMBERS: tuple[_Number, ...] = get_args(_Number)


class Program(Closing):
    """A BPF program that `Lab.load` has compiled. Also a context manager.

    ``prog["events"]`` is a `Stream` for a ring or perf buffer and a `Table` for any other map; it
    raises UnknownName, with the closest names, when there is no such map. Running a notebook cell
    again takes away the probes that its last run attached.

    The attach methods take ``fn_name``, the name of a C function of the program. All of them raise
    UnknownName when it has no such function, and VerifierError, with the decisive line, when the
    kernel's verifier rejects it.

    >>> prog.attach_kprobe(event=lab.syscall_name("execve"), fn_name="syscall__execve")
    >>> prog
    <Program syscall__execve: kprobe __x64_sys_execve -> syscall__execve; starts: 0 rows, 0 lost>
    """

    def __init__(
        self,
        lab: Lab,
        connection: Connection,
        ident: int,
        source: str,
        answer: Answer[messages.Loaded],
        usdt_contexts: Sequence[messages.UsdtContext] = (),
    ) -> None:
        self.lab, self.source = lab, source
        loaded = answer.ok
        self.functions: list[str] = loaded["functions"]
        self.warnings: str = loaded["log"]
        """What clang printed while it compiled the program."""
        self.compiled: bool = loaded["compiled"]
        """False when the same text was compiled earlier in this lab."""
        self._compilation = loaded.get("compilation", {})
        self._connection, self._ident = connection, ident
        self._usdt_contexts = list(usdt_contexts)
        self._attachments = Attachments(connection, ident, source)
        self._last_stats: messages.Stats | None = None
        self._attachments.note(loaded["attached"])
        attrs = dict(lab.attrs)
        if not loaded["headers"]["matching"]:
            attrs.update(loaded["headers"])
        try:
            types = btf.Types(answer.blob) if answer.blob else None
            made = [self._make_map(each, types, attrs) for each in loaded["maps"]]
        except (ValueError, TypeError) as error:
            raise WireError(
                f"The agent's description of this program's maps does not add up: {error}."
            ) from error
        self._maps = {map_.name: map_ for map_ in made}
        self._messages = None
        if loaded["messages"] is not None and "printk" in source:
            self._messages = Messages(connection, loaded["messages"], attrs)
        self._streams: list[EventSource] = [
            source
            for source in (*self._maps.values(), self._messages)
            if isinstance(source, EventSource)
        ]
        self._finalizer = weakref.finalize(self, _let_go, connection, self._ident, self._streams)

    def _make_map(
        self, described: messages.MapDescription, types: btf.Types | None, attrs: dict[str, object]
    ) -> Stream | Table:
        if described["stream"] is None:
            kind = StackTable if described["type"] == map_types.STACK_TRACE else Table
            return kind(self._ident, described, types, self._connection, attrs, weakref.ref(self))
        per_cpu = described["type"] == map_types.PERF_EVENT_ARRAY
        known = records.sent(types, described["typed_as"], per_cpu)
        if known.why_bytes:
            notice(
                f"The records of {described['name']!r} are shown as bytes, in a column `data`:"
                f" {known.why_bytes}"
            )
        if not described["counted"]:
            notice(f"What {described['name']!r} loses is not counted.")
        return Stream(
            described["name"],
            self._connection,
            described["stream"],
            attrs,
            known,
            types,
            per_cpu=per_cpu,
            rings=described.get("rings", False),
            program=weakref.ref(self),
        )

    def __getitem__(self, name: str) -> Any:
        try:
            return self._maps[name]
        except KeyError:
            have = ", ".join(self._maps) or "none"
            raise UnknownName(
                f"The program has no map {name!r}. It has: {have}.{suggest(name, self._maps)}"
            ) from None

    @property
    def messages(self) -> Messages:
        """The lines that the program prints with ``bpf_trace_printk``, as a `Messages` stream.

        Raises UnknownName when the program does not call it.

        >>> shell = lab.run(["/bin/sh", "-c", "/bin/ls / > /dev/null; /bin/date"])
        >>> prog.messages.collect(seconds=5, rows=3)[["tid", "message"]]
           tid                     message
        0  404  executing program: python3
        1  408       executing program: sh
        2  409       executing program: sh
        """
        if self._messages is None:
            raise UnknownName("The program does not call bpf_trace_printk, so it has no messages.")
        return self._messages

    def stacks(
        self, counts: str = "counts", stacks: str = "stacks", *, pid: int | None = None
    ) -> pd.DataFrame:
        """Return the stacks of a ``BPF_STACK_TRACE`` with the names of their functions.

        ``counts`` is the name of the map whose keys hold the stacks' numbers (``user_stack_id``,
        ``kernel_stack_id``) and ``pid``, and whose value is a number: samples, nanoseconds.
        ``stacks`` is the name of the ``BPF_STACK_TRACE``. ``pid`` names the process where the key
        does not.

        One row for each entry of ``counts``, the largest ``value`` first, with the key's other
        columns and ``stack``: a tuple of `Frame`, the outermost caller first, the kernel's after
        the program's. ``attrs``, in the unit of the values: total; lost, whose number another stack
        had (a frame ``[lost]``); no_user_stack; unknown, with a function ``[unknown]`` in it, and
        unknown_modules, the files to blame.

        Names are found while a process lives; later only for what `Lab.run` and `Lab.start` have
        started after the program was loaded. Raises ProgramError when ``stacks`` is not a
        ``BPF_STACK_TRACE``, when it is not clear which columns of ``counts`` hold stacks, or when
        the process is missing; UnknownName when there is no such map.

        >>> row = prog.stacks().loc[1]
        >>> row["comm"], int(row["value"]), [frame.name for frame in row["stack"]][-3:]
        ('hot', 328, ['main', 'serve', 'checksum'])
        """
        pid = None if pid is None else arguments.whole("pid", pid, 1)
        table = self[stacks]
        if not isinstance(table, StackTable):
            raise ProgramError(f"The map {stacks!r} is no BPF_STACK_TRACE.")
        return named_stacks(self._connection, self._ident, self[counts], table, pid)

    # -- attaching ---------------------------------------------------------------------------

    def attach_kprobe(self, event: str, fn_name: str, event_off: int = 0) -> None:
        """Run ``fn_name`` each time the kernel enters the function ``event``.

        ``event`` is a name that `Lab.kernel_functions` lists; ``event_off`` is a number of bytes
        into that function, the first byte of an instruction. Raises UnknownEvent (with the closest
        names) when the kernel has no such function, and AttachError, with the reason, when it
        refuses the probe. Source: Documentation/trace/kprobes.rst.

        >>> prog.attach_kprobe(event=lab.syscall_name("execve"), fn_name="syscall__execve")
        >>> prog.attached
        ['kprobe __x64_sys_execve -> syscall__execve']
        """
        self._attach("kprobe", fn_name, event=event, event_off=event_off or None)

    def attach_kretprobe(self, event: str, fn_name: str, maxactive: int = 0) -> None:
        """Run ``fn_name`` each time the kernel function ``event`` returns.

        ``maxactive`` is how many calls may be under way at once before returns are missed; 0 leaves
        it to the kernel. Raises what `attach_kprobe` raises. Source:
        Documentation/trace/kprobes.rst.

        >>> prog.attach_kretprobe(event="vfs_read", fn_name="read_ends")
        >>> prog.attached
        ['kretprobe vfs_read -> read_ends']
        """
        self._attach("kretprobe", fn_name, event=event, maxactive=maxactive or None)

    def attach_tracepoint(self, tp: str, fn_name: str) -> None:
        """Run ``fn_name`` at the tracepoint ``tp``, given as ``category:name``.

        The C function takes the tracepoint's record, ``struct tracepoint__category__name *args``.
        Raises UnknownEvent (with the closest names) when there is no such tracepoint; AttachError
        when the function reads beyond the record. Source: Documentation/trace/events.rst.

        >>> prog.attach_tracepoint(tp="sched:sched_process_exec", fn_name="on_exec")
        >>> prog.attached
        ['tracepoint sched:sched_process_exec -> on_exec']
        """
        self._attach("tracepoint", fn_name, tp=tp)

    def attach_raw_tracepoint(self, tp: str, fn_name: str) -> None:
        """Run ``fn_name`` at the raw tracepoint ``tp``, given by its name without a category.

        Raises UnknownEvent (with the closest names) when there is no such tracepoint; AttachError
        when the kernel refuses it.

        >>> prog.attach_raw_tracepoint(tp="sched_process_exec", fn_name="on_exec")  # doctest: +SKIP
        """
        self._attach("raw_tracepoint", fn_name, tp=tp)

    def attach_uprobe(
        self,
        name: str | Path,
        sym: str = "",
        fn_name: str = "",
        addr: int | None = None,
        pid: int = -1,
        sym_off: int = 0,
    ) -> None:
        """Run ``fn_name`` when a process enters the function ``sym`` of the file ``name``.

        ``name`` is a path, or a library's short name such as "c"; ``sym_off`` a number of bytes
        into the function. ``addr`` is an address instead of ``sym``, as linked (`Lab.symbols`);
        ``pid`` one process, -1 for all.

        Raises UnknownEvent when there is no such file or function (with the closest functions);
        AttachError when the file is not a program of this machine, when there is no such process,
        or for a place inside of an instruction. Source: Documentation/trace/uprobetracer.rst.

        >>> prog.attach_uprobe(name=path, sym="main.known", fn_name="on_call")
        >>> prog.attached
        ['uprobe /opt/ebpflab/labs/go-hello/work:main.known -> on_call']
        """
        name = arguments.path("name", name)
        places.check(self._connection, name, sym, addr, sym_off)
        try:
            self._attach(
                "uprobe",
                fn_name,
                name=name,
                sym=sym or None,
                addr=addr,
                pid=pid,
                sym_off=sym_off or None,
            )
        except UnknownEvent as error:
            raise golang.retold(self._connection, name, sym, error) from None

    def attach_uretprobe(
        self,
        name: str | Path,
        sym: str = "",
        fn_name: str = "",
        addr: int | None = None,
        pid: int = -1,
        *,
        force: bool = False,
    ) -> None:
        """Run ``fn_name`` when a process returns from the function ``sym`` of the file ``name``.

        ``name``, ``sym``, ``addr`` and ``pid`` are those of `attach_uprobe`. Raises what that
        raises, and AttachError for a Go program, which a uretprobe crashes, unless ``force`` is
        given: see `attach_go_return`. Source: Documentation/trace/uprobetracer.rst.

        >>> prog.attach_uretprobe(name=path, sym="tell", fn_name="ends")
        >>> prog.attached
        ['uretprobe /tmp/tmp.../naps:tell -> ends']
        """
        name = arguments.path("name", name)
        places.check(self._connection, name, sym, addr, 0)
        if not force:
            golang.refuse_uretprobe(self._connection, name, sym)
        self._attach("uretprobe", fn_name, name=name, sym=sym or None, addr=addr, pid=pid)

    def attach_go_return(self, name: str | Path, sym: str, fn_name: str, pid: int = -1) -> None:
        """Run ``fn_name`` when a Go function returns: a uprobe on each return instruction.

        ``name`` is the program's path, ``sym`` the function with its package, ``pid`` one process,
        -1 for all. A function that panics does not return, and is not seen. Pair entry and return
        by goroutine, never by thread: `Lab.go_runtime`. Raises UnknownEvent when there is no such
        file or function (with the closest functions); AttachError when the file is not a Go
        program, is built for another processor, is stripped, or the function has no return
        instruction.

        >>> prog.attach_go_return(name=path, sym="main.handle", fn_name="ends")
        >>> prog.attached
        ['go_return /opt/ebpflab/labs/go-hello/work:main.handle -> ends']
        """
        name = arguments.path("name", name)
        binary = golang.GoBinary(golang.open_binary(self._connection, name))
        offsets = binary.returns(sym, self.lab.arch)
        self._attach("go_return", fn_name, name=binary.path, sym=sym, offsets=offsets, pid=pid)

    def attach_kfunc(self, fn_name: str) -> None:
        """Attach ``KFUNC_PROBE(fn_name, ...)`` again: `Lab.load` attaches it at once (fentry).

        The kernel function is in the C function's name and is fixed when that is loaded, so there
        is no ``event``. Raises UnknownEvent (with the closest names); AttachError when the kernel
        has no BTF, or no place for a trampoline in the function. Source: BPF_PROG_TYPE_TRACING,
        Linux 5.5.

        >>> lab.load("KFUNC_PROBE(vfs_read) { return 0; }").attached
        ['kfunc vfs_read -> kfunc__vmlinux__vfs_read']
        """
        self._attach("kfunc", self._named("kfunc__", fn_name))

    def attach_kretfunc(self, fn_name: str) -> None:
        """Attach ``KRETFUNC_PROBE(fn_name, ...)`` again: at the function's return (fexit).

        Its C function may take the function's arguments and, last, its result. For the rest, see
        `attach_kfunc`.

        >>> lab.load("KRETFUNC_PROBE(vfs_read) { return 0; }").attached
        ['kretfunc vfs_read -> kretfunc__vmlinux__vfs_read']
        """
        self._attach("kretfunc", self._named("kretfunc__", fn_name))

    def attach_lsm(self, fn_name: str) -> None:
        """Attach ``LSM_PROBE(fn_name, ...)`` again: the kernel asks it for permission.

        Raises UnknownEvent (with the closest hooks); AttachError where the kernel was built without
        CONFIG_BPF_LSM. Source: Linux 5.7.

        >>> lab.load(guard).attached
        ['lsm path_mkdir -> lsm__path_mkdir']
        """
        self._attach("lsm", self._named("lsm__", fn_name))

    def _named(self, prefix: str, name: str) -> str:
        """The C function that BCC's macro made of ``name``; from BCC 0.30 on with ``vmlinux``."""
        known = (name, prefix + name, f"{prefix}vmlinux__{name}")
        return next((each for each in known if each in self.functions), name)

    def attach_perf_event(
        self,
        ev_type: int = -1,
        ev_config: int = -1,
        fn_name: str = "",
        sample_period: int = 0,
        sample_freq: int = 0,
        pid: int = -1,
        cpu: int = -1,
    ) -> None:
        """Run ``fn_name`` ``sample_freq`` times a second, or each ``sample_period`` events.

        ``ev_type`` and ``ev_config`` are a `PerfType` and a `PerfSWConfig` or `PerfHWConfig`. Give
        one of ``sample_freq`` (Hz, on each CPU) and ``sample_period`` (events; for a clock,
        nanoseconds). ``pid`` is one process with all its threads and later children, -1 for all;
        ``cpu`` one CPU, -1 for all. BCC's ``group_fd`` is left out: a descriptor of the agent means
        nothing here.

        Raises AttachError when the machine has no such counter, when there is no such process, when
        not exactly one rate is given, and for a clock of more than 10,000 samples a second. Source:
        perf_event_open(2).

        >>> prog.attach_perf_event(
        ...     ev_type=PerfType.SOFTWARE, ev_config=PerfSWConfig.CPU_CLOCK,
        ...     fn_name="on_sample", sample_freq=99)
        >>> prog.attached
        ['perf_event CPU_CLOCK at 99 Hz -> on_sample']
        """
        perf_events.check_rate(int(ev_type), int(ev_config), sample_period, sample_freq)
        self._attach(
            "perf_event",
            fn_name,
            ev_type=int(ev_type),
            ev_config=int(ev_config),
            sample_period=sample_period,
            sample_freq=sample_freq,
            pid=pid,
            cpu=cpu,
        )

    def _attach(self, kind: str, fn_name: str, **where: Unpack[Where]) -> None:
        if fn_name not in self.functions:
            have = ", ".join(self.functions) or "none"
            raise UnknownName(
                f"The program has no function {fn_name!r}. It has:"
                f" {have}.{suggest(fn_name, self.functions)}"
            )
        if "pid" in where:
            where["pid"] = arguments.process("pid", where["pid"])
        for number in _NUMBERS:
            if (given := where.get(number)) is not None:
                where[number] = arguments.whole(number, given)
        self._attachments.attach(kind, fn_name, where)

    if not TYPE_CHECKING:  # a type checker knows better what is not here

        def __getattr__(self, name: str) -> Any:
            if name in self.__dict__.get("_maps", {}):
                said = f"A map is taken by its name in brackets: prog[{name!r}]."
            elif name in _OF_BCC:
                said = f"{name}() is BCC's. Here: {_OF_BCC[name]}."
            else:
                said = f"A program has no .{name}.{suggest(name, dir(type(self)))}"
            raise AttributeError(said)

    @property
    def attached(self) -> list[str]:
        """The probes that are attached now, as ``kind place -> function``.

        >>> prog.attached
        ['kprobe __x64_sys_execve -> syscall__execve']
        """
        return self._attachments.names

    def stats(self) -> pd.DataFrame:
        """Return how often the kernel ran each attached function, and how long that took.

        A row for each function. Columns: function and probe (text; all that it is attached to: the
        kernel counts by function), hits (Int64), ns_per_hit (Float64; of your C alone, not of the
        way to it), total_ns (Int64), misses (Int64; times that the kernel left it out, because this
        CPU was in it already). Counted from zero when it is attached, and kept by `detach` and
        `close`. Counts that the kernel does not keep are NA: all of them before Linux 5.8, misses
        before 5.12.

        ``attrs["streams"]`` has, for each ring and perf buffer since the program was loaded: events
        that have arrived, lost, share_lost (of all that were sent, 0 to 1), and drain_ns_per_event,
        the nanoseconds of a CPU that the agent took to pass one on. ``attrs["compilation"]`` has
        the seconds that BCC took, the includes that were precompiled (None without any), and the
        reason where some were not. Source: ``struct bpf_prog_info``, while BPF_ENABLE_STATS is
        held.

        >>> prog.stats()[["probe", "hits", "ns_per_hit", "misses"]]
                        probe  hits   ns_per_hit  misses
        0   kretfunc vfs_read   122   9434.52459       0
        1  kretprobe vfs_read    95  2386.757895       0
        >>> list(prog.stats().attrs["streams"])
        ['ends']
        """
        asked = messages.OfProgram(program=self._ident)
        stats = self._last_stats
        if not self.closed:
            stats = self._connection.request(messages.STATS, asked).ok
        if stats is None:
            stats = {"functions": {}, "problem": None}
        if stats["problem"]:
            notice(stats["problem"])
        streams = {
            each.name: each._cost(stats.get("drain_ns", {}).get(each.name))
            for each in self._streams
            if isinstance(each, Stream)
        }
        attrs = {**self.lab.attrs, "streams": streams, "compilation": self._compilation}
        return frames.run_stats(self._attachments.of_functions, stats["functions"], attrs)

    # -- ending ------------------------------------------------------------------------------

    def detach(self) -> None:
        """Take all probes away. Maps and streams stay readable; see `attach_again`.

        >>> prog.detach()
        >>> prog.attached
        []
        """
        self._attachments.detach()

    def attach_again(self) -> None:
        """Attach once more all that was ever attached, after a `detach`. Else nothing happens.

        Raises what attaching raises, for instance when a traced process has ended meanwhile: then
        nothing is attached, and it can be tried again.

        >>> prog.detach()
        >>> prog.attach_again()
        >>> len(prog.attached)
        2
        """
        self._attachments.attach_again(self._usdt_contexts)

    def close(self) -> None:
        """Detach and give the program back. Rows that have arrived stay readable.

        May be called twice. The program's tables cannot be read any more.

        >>> prog.close()
        >>> prog.closed, len(prog["starts"].frame())
        (True, 0)
        """
        if not self._finalizer.alive:
            return
        for stream in self._streams:
            stream.close()
        self._attachments.forget()
        self._finalizer.detach()
        if self._connection.lost is None:
            asked = messages.OfProgram(program=self._ident)
            self._last_stats = self._connection.request(messages.CLOSE, asked).ok["stats"]

    @property
    def closed(self) -> bool:
        """Whether the program was closed, or its lab has ended.

        >>> prog.closed
        False
        """
        return not self._finalizer.alive or self._connection.lost is not None

    @property
    def _died(self) -> TargetError | None:
        """Why its lab has ended although nobody closed it; else None."""
        return self._connection.died

    def __repr__(self) -> str:
        state = "closed" if self.closed else "; ".join(self.attached) or "not attached"
        arrived = "".join(f"; {stream.name}: {stream._account}" for stream in self._streams)
        return f"<Program {', '.join(self.functions)}: {state}{arrived}>"

    def _repr_html_(self) -> str:
        """What is attached, its hits and cost, and what has arrived; for notebooks."""
        tables = [name for name, each in self._maps.items() if isinstance(each, Table)]
        facts = [
            ("functions", ", ".join(self.functions)),
            ("tables", ", ".join(tables)),
            *((f"stream {s.name}", s._account) for s in self._streams),
        ]
        stats = self.stats()
        for name, cost in stats.attrs["streams"].items():
            if cost["drain_ns_per_event"] > 0:
                facts.append((f"reading {name}", f"{cost['drain_ns_per_event']:,.0f} ns an event"))
        state = "closed" if self.closed else "attached" if self.attached else "not attached"
        card = rich.card(f"Program, {state}", facts)
        stats = stats[["probe", "function", "hits", "ns_per_hit"]]
        rows = stats.astype(object).fillna("").itertuples(index=False)
        return card + rich.table(["attached to", "function", "hits", "ns per hit"], rows)

    def _ipython_key_completions_(self) -> list[str]:
        return list(self._maps)


def _let_go(connection: Connection, ident: int, streams: list[EventSource]) -> None:
    """Close a program that nobody refers to any more. Runs in a finalizer: it must not wait."""
    for stream in streams:
        stream.close()
    connection.tell(messages.CLOSE, messages.OfProgram(program=ident))
