"""What a notebook can ask for: a method for each operation of `protocol/messages.py`.

`Operations` finds the method for a request. mypy compares each with the types of its operation.
"""

import json
import os
import platform
import time
from typing import Callable, Dict, Iterator, List, Mapping, Tuple, cast

from ebpflab.agent.faults import Fault
from ebpflab.agent.kernel import features, headers, maps, names
from ebpflab.agent.probes import usdt
from ebpflab.agent.processes import elf, notes
from ebpflab.agent.processes.mappings import Mappings
from ebpflab.agent.processes.symbols import Symbols, name_stacks, of_file
from ebpflab.agent.processes.workloads import Workloads
from ebpflab.agent.programs import cflags
from ebpflab.agent.programs.cache import Programs
from ebpflab.agent.streams.drain import Drain
from ebpflab.agent.streams.trace_pipe import Messages, prints
from ebpflab.protocol import framing, map_types, messages
from ebpflab.protocol.messages import Operation, Request, Response

Then = Callable[[Mapping[str, object], bytes], None]
"""Called once with a response and its blob."""
_Method = Callable[[Mapping[str, object], Then], None]


def hello() -> messages.Hello:
    """What this agent says of itself."""
    import bcc

    return {
        "protocol": framing.PROTOCOL,
        "kernel": os.uname().release,
        "arch": platform.machine(),
        "hostname": os.uname().nodename,
        "bcc": bcc.__version__,
        "python": platform.python_version(),
        "pid": os.getpid(),
        "root": os.geteuid() == 0,
        "clock_offset_ns": clock_offset_ns(),
    }


def clock_offset_ns() -> int:
    """What to add to the kernel's monotonic clock to get wall time (bpf_ktime_get_ns -> UTC).

    The monotonic clock is read between two readings of the other; the error is at most half
    the time between those, some microseconds.
    """
    before = time.time_ns()
    monotonic = time.monotonic_ns()
    after = time.time_ns()
    return (before + after) // 2 - monotonic


class Operations:
    """Everything that one notebook has on this machine, and what it can ask for."""

    def __init__(self, drain: Drain, idents: Iterator[int]) -> None:
        self._drain = drain
        self._programs = Programs(drain, idents)
        self._workloads = Workloads()
        self._mappings = Mappings()
        self._symbols = Symbols(self._mappings)
        self._messages = Messages(drain, idents)
        self._methods: Dict[str, _Method] = {}
        self._answer(messages.SET_CLOCK, _set_clock)
        self._answer(messages.FEATURES, _features)
        self._answer_with_blob(messages.LOAD, self._load)
        self._answer(messages.ATTACH, self._attach)
        self._answer(messages.ATTACH_AGAIN, self._attach_again)
        self._answer(messages.DETACH, self._detach)
        self._answer(messages.STATS, lambda asked: self._programs[asked["program"]].stats())
        self._answer(messages.CLOSE, self._close)
        self._answer(messages.SYNC, self._sync)
        self._answer_with_blob(messages.TABLE, self._read_table)
        self._answer(messages.CLEAR, self._clear)
        self._answer(messages.UPDATE, self._update)
        self._answer(messages.DELETE, self._delete)
        self._answer(messages.PUT_PROGRAM, self._put_program)
        self._answer_with_blob(messages.POP, self._pop)
        self._answer_with_blob(messages.STACKS, self._stacks)
        self._answer(messages.START, self._start)
        self._methods[messages.WAIT.name] = self._wait
        self._answer(messages.STOP, self._stop)
        self._answer(messages.KERNEL_FUNCTIONS, _kernel_functions)
        self._answer(messages.TRACEPOINTS, _tracepoints)
        self._answer(messages.TRACEPOINT_FORMAT, _tracepoint_format)
        self._answer(messages.SYSCALL_NAME, _syscall_name)
        self._answer(messages.SYMBOLS, _symbols)
        self._answer(messages.USDT_PROBES, lambda asked: {"probes": notes.describe(asked["path"])})
        self._answer(messages.USDT_CHECK, _usdt_check)
        self._answer_with_blob(messages.READ_ELF, _read_elf)

    def _answer(
        self, operation: Operation[Request, Response], method: Callable[[Request], Response]
    ) -> None:
        def answer(asked: Mapping[str, object], then: Then) -> None:
            then(method(cast(Request, asked)), b"")

        self._methods[operation.name] = answer

    def _answer_with_blob(
        self,
        operation: Operation[Request, Response],
        method: Callable[[Request], Tuple[Response, bytes]],
    ) -> None:
        def answer(asked: Mapping[str, object], then: Then) -> None:
            then(*method(cast(Request, asked)))

        self._methods[operation.name] = answer

    def __call__(self, request: framing.Message, then: Then) -> None:
        """Do what a request asks for, and give its response to ``then``. Raises Fault."""
        method = self._methods.get(str(request.get("op")))
        if method is None:
            raise Fault("AgentFault", f"the agent knows no request {request.get('op')!r}")
        method(request, then)

    def close(self) -> None:
        """Detach everything. The kernel would do so when this process ends; workloads not."""
        self._workloads.close()
        self._programs.end()

    # -- programs ----------------------------------------------------------------------------

    def _load(self, asked: messages.Load) -> Tuple[messages.Loaded, bytes]:
        ident = asked["program"]
        cflags.check(asked["cflags"])
        if prints(asked["source"]):
            self._messages.listen(ident)
        try:
            compiled, state = self._programs.load(
                ident,
                asked["source"],
                asked["cflags"],
                asked.get("headers"),
                asked.get("usdt_contexts", []),
            )
        except BaseException as error:
            self._messages.forget(ident)
            if isinstance(error, Fault):
                raise _explained(error) from None
            raise
        program = self._programs[ident]
        described = program.describe()
        if any(table["type"] == map_types.STACK_TRACE for table in described["maps"]):
            self._mappings.watch()
            for pid in self._workloads.pids:
                self._mappings.remember(pid)
        loaded: messages.Loaded = {
            "compiled": compiled,
            "headers": state,
            **described,
            "messages": self._messages.stream,
        }
        return loaded, program.types

    def _attach(self, asked: messages.Attach) -> messages.Attached:
        program = self._programs[asked["program"]]
        attachment = program.attach(asked["kind"], asked["fn_name"], asked["where"])
        return {"attachment": attachment.ident}

    def _attach_again(self, asked: messages.AttachAgain) -> messages.Described:
        return self._programs.attach_again(asked["program"], asked["usdt_contexts"])

    def _detach(self, asked: messages.Detach) -> messages.Nothing:
        self._programs[asked["program"]].detach(asked.get("attachment"))
        return {}

    def _close(self, asked: messages.OfProgram) -> messages.Closed:
        stats = self._programs.close(asked["program"])
        self._messages.forget(asked["program"])
        return {"stats": stats}

    def _sync(self, asked: messages.Sync) -> messages.Nothing:
        self._drain.sync(asked["streams"])
        return {}

    # -- tables ------------------------------------------------------------------------------

    def _table(self, asked: messages.OfTable) -> maps.Map:
        return self._programs[asked["program"]].maps[asked["name"]]

    def _read_table(self, asked: messages.OfTable) -> Tuple[messages.TableRead, bytes]:
        table = self._table(asked)
        keys, values = maps.read(table)
        return {"entries": len(keys) // table.key_size, "stride": table.stride}, keys + values

    def _clear(self, asked: messages.OfTable) -> messages.Nothing:
        maps.clear(self._table(asked))
        return {}

    def _update(self, asked: messages.Update) -> messages.Nothing:
        key, value = bytes.fromhex(asked["key"]), bytes.fromhex(asked["value"])
        maps.update(self._table(asked), key, value)
        return {}

    def _delete(self, asked: messages.OfEntry) -> messages.Nothing:
        maps.delete(self._table(asked), bytes.fromhex(asked["key"]))
        return {}

    def _put_program(self, asked: messages.PutProgram) -> messages.Nothing:
        program = self._programs[asked["program"]]
        program.put_program(asked["name"], bytes.fromhex(asked["key"]), asked["fn_name"])
        return {}

    def _pop(self, asked: messages.Pop) -> Tuple[messages.Nothing, bytes]:
        return {}, maps.pop(self._table(asked), asked["most"])

    def _stacks(self, asked: messages.Stacks) -> Tuple[messages.Nothing, bytes]:
        """The blob is `NamedStacks`, as JSON."""
        named = name_stacks(self._symbols, self._table(asked), asked["kernel"], asked["user"])
        return {}, json.dumps(named).encode()

    # -- commands ----------------------------------------------------------------------------

    def _start(self, asked: messages.Start) -> messages.OfProcess:
        self._mappings.drain()
        return {"pid": self._workloads.start(asked)}

    def _wait(self, asked: Mapping[str, object], then: Then) -> None:
        """Answered whenever the command ends."""
        self._workloads.wait(cast(messages.OfProcess, asked)["pid"], then)

    def _stop(self, asked: messages.Stop) -> messages.Nothing:
        self._workloads.stop(asked["pid"], asked["signal"])
        return {}


def _explained(refusal: Fault) -> Fault:
    """Why a program was refused: clang stumbles over the headers of a kernel newer than BCC."""
    log = str(refusal.detail.get("log"))
    if refusal.type != "CompileError" or not headers.are_blamed(log):
        return refusal
    match = features.check_bcc_version(features.Machine())
    if match.status == features.YES:
        return refusal
    return Fault(
        "HeadersError",
        f"BCC cannot compile this for this kernel: {match.reason}. What helps: {match.fix}.",
        log=log,
    )


def _set_clock(asked: messages.SetClock) -> messages.Clock:
    """Set this machine's wall clock; only asked of a guest that was resumed."""
    now = asked["realtime_ns"]
    if abs(time.time_ns() - now) > 1_000_000:
        time.clock_settime_ns(time.CLOCK_REALTIME, now)
    return {"clock_offset_ns": clock_offset_ns()}


def _features(_: messages.Nothing) -> messages.Features:
    # The file of the checks must run alone, so it knows no types of the wire.
    return {"features": cast(List[messages.Feature], features.probe())}


def _kernel_functions(asked: messages.ByPattern) -> messages.Names:
    return {"names": names.kernel_functions(asked["pattern"])}


def _tracepoints(asked: messages.ByPattern) -> messages.Names:
    return {"names": names.tracepoints(asked["pattern"])}


def _tracepoint_format(asked: messages.OfTracepoint) -> messages.TracepointFormat:
    return {"format": names.tracepoint_format(asked["tp"])}


def _syscall_name(asked: messages.ByName) -> messages.SyscallName:
    return {"name": names.syscall_name(asked["name"])}


def _symbols(asked: messages.SymbolsOf) -> messages.Symbols:
    return {"symbols": of_file(asked["path"], asked["pattern"])}


def _usdt_check(asked: messages.UsdtCheck) -> messages.UsdtChecked:
    path, probe = usdt.check(asked["path"], asked["pid"], asked["probe"])
    return {"path": path, "probe": probe}


def _read_elf(asked: messages.ReadElf) -> Tuple[messages.ElfRead, bytes]:
    return elf.read_elf(asked["name"], asked["offset"], asked["size_bytes"])
