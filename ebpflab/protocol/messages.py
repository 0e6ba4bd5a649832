"""What crosses the wire: a type for each request and each response, and the table of operations.

A request is ``{"id": ..., "op": ..., **fields}``, its response ``{"id": ..., "ok": {...}}`` (see
framing.py). Here are the fields of the one and the ``ok`` of the other. The notebook's
`Connection.request` and the agent's `Session` both take an `Operation`, so mypy compares what is
sent, what is read, and what is answered.

Fields that recordings of earlier versions lack are NotRequired.

This file is used by both sides: standard library only, Python 3.9.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, Mapping, Sequence, TypedDict, TypeVar, Union

if TYPE_CHECKING:  # in typing from Python 3.11 on
    from typing_extensions import NotRequired

Request = TypeVar("Request", bound=Mapping[str, object])
Response = TypeVar("Response", bound=Mapping[str, object])

Json = Union[None, bool, int, float, str, "Sequence[Json]", "Mapping[str, Json]"]


class Operation(Generic[Request, Response]):
    """Something that the agent can be asked for, by its name on the wire."""

    def __init__(self, name: str) -> None:
        self.name = name


class Nothing(TypedDict):
    """No fields."""


# -- the agent itself ------------------------------------------------------------------------------


class RecordingFacts(TypedDict):
    """Of a recording that is played: which chapter it is of, and when and where it was made."""

    chapter: str | None
    date: str
    target: str


class Hello(TypedDict):
    """What an agent says of itself before anything is asked."""

    protocol: int
    kernel: str
    arch: str
    hostname: str
    bcc: str
    python: str
    pid: int
    root: bool
    clock_offset_ns: int
    """Added to bpf_ktime_get_ns(): nanoseconds since 1970, UTC."""
    recording: NotRequired[RecordingFacts]
    """Only where a recording is played."""


class FaultMessage(TypedDict):
    """A failure: the name of a class of `ebpflab.errors`, what it says, and more facts."""

    type: str
    message: str
    detail: dict[str, Json]


class Clock(TypedDict):
    clock_offset_ns: int


class SetClock(TypedDict):
    realtime_ns: int


class Feature(TypedDict):
    """A row of `Lab.features`."""

    feature: str
    status: str
    reason: str
    fix: str


class Features(TypedDict):
    features: list[Feature]


# -- programs --------------------------------------------------------------------------------------


class UsdtContext(TypedDict):
    """USDT probes of one file: of all processes, or of one."""

    path: str
    pid: int | None
    probes: list[tuple[str, str]]
    """``provider:name``, and the C function."""


class Load(TypedDict):
    program: int
    """A number that the notebook chooses."""
    source: str
    cflags: list[str]
    headers: str | None
    """A tree of headers to use, whatever it matches."""
    usdt_contexts: NotRequired[list[UsdtContext]]


class HeadersState(TypedDict):
    """The kernel headers that BCC takes."""

    headers: str | None
    """Of which kernel release."""
    matching: bool
    path: str | None


class Compilation(TypedDict):
    seconds: float
    includes: list[str] | None
    """What was precompiled of the program's includes."""
    reason: str | None
    """Why it was not precompiled, or not all of it."""


class MapDescription(TypedDict):
    name: str
    type: int
    """enum bpf_map_type."""
    key_size: int
    value_size: int
    max_entries: int
    cpus: int
    """Values an entry has, or 0: of all CPUs."""
    typed_as: str | None
    """The map by whose BTF the values, or the records, are read."""
    stream: int | None
    """The number of its stream; None: it is a table."""
    counted: bool
    rings: NotRequired[bool]
    """Whether there is a ring for each CPU."""


class AttachedProbe(TypedDict):
    """A probe that attached itself: by its name, or as a USDT probe."""

    attachment: int
    probe: str
    fn_name: str


class Described(TypedDict):
    """A program. The blob is its BTF."""

    functions: list[str]
    maps: list[MapDescription]
    attached: list[AttachedProbe]
    log: str
    compilation: NotRequired[Compilation]


class Loaded(Described):
    compiled: bool
    """False for a text that was compiled earlier."""
    headers: HeadersState
    messages: int | None
    """The number of the stream of trace_pipe."""


class Where(TypedDict, total=False):
    """A place for a probe: the arguments of its ``attach_...`` method, by kind.

    kprobe, kretprobe: event, event_off, maxactive. tracepoint, raw_tracepoint: tp. uprobe,
    uretprobe: name, sym, addr, sym_off, pid. go_return: name, sym, offsets, pid. perf_event: the
    rest. Kinds that are attached by the name of their function: nothing.
    """

    event: str
    event_off: int | None
    maxactive: int | None
    tp: str
    name: str
    sym: str | None
    sym_off: int | None
    addr: int | None
    pid: int
    offsets: list[int]
    ev_type: int
    ev_config: int
    sample_period: int
    sample_freq: int
    cpu: int


class Attach(TypedDict):
    program: int
    kind: str
    fn_name: str
    where: Where


class Attached(TypedDict):
    attachment: int


class AttachAgain(TypedDict):
    program: int
    usdt_contexts: list[UsdtContext]


class Detach(TypedDict):
    program: int
    attachment: NotRequired[int]
    """Without: all of the program's."""


class OfProgram(TypedDict):
    program: int


class Runs(TypedDict):
    """What the kernel counted for a function."""

    hits: int
    total_ns: int
    misses: int | None


class Stats(TypedDict):
    problem: str | None
    functions: dict[str, Runs]
    drain_ns: NotRequired[dict[str, int]]


class Closed(TypedDict):
    stats: Stats | None


class Sync(TypedDict):
    streams: list[int]


# -- tables ----------------------------------------------------------------------------------------


class OfTable(TypedDict):
    program: int
    name: str


class OfEntry(OfTable):
    key: str
    """In hex digits."""


class Update(OfEntry):
    value: str


class PutProgram(OfEntry):
    fn_name: str


class Pop(OfTable):
    most: int


class TableRead(TypedDict):
    """The blob is all keys, then all values; a value is ``stride`` bytes."""

    entries: int
    stride: int


class Stacks(OfTable):
    kernel: list[int]
    user: list[tuple[int, int]]


class NamedStacks(TypedDict):
    """The JSON in the blob of a response to ``stacks``: stacks as places in ``symbols``."""

    symbols: list[tuple[str, str, str]]
    """name, module, kind"""
    kernel: list[list[int] | None]
    user: list[list[int] | None]


# -- commands --------------------------------------------------------------------------------------


class Start(TypedDict):
    argv: list[str]
    input: NotRequired[str]
    cwd: NotRequired[str | None]
    env: NotRequired[dict[str, str] | None]


class OfProcess(TypedDict):
    pid: int


class Stop(OfProcess):
    signal: int


class Ended(TypedDict):
    """The blob is its standard output, then its standard error."""

    pid: int
    returncode: int
    stdout_bytes: int
    truncated: bool


# -- what there is to trace ------------------------------------------------------------------------


class ByPattern(TypedDict):
    pattern: str


class Names(TypedDict):
    names: list[str]


class OfTracepoint(TypedDict):
    tp: str


class TracepointFormat(TypedDict):
    format: str


class ByName(TypedDict):
    name: str


class SyscallName(TypedDict):
    name: str


class SymbolsOf(TypedDict):
    path: str
    pattern: str


class SymbolRow(TypedDict):
    symbol: str
    address: int


class Symbols(TypedDict):
    symbols: list[SymbolRow]


class OfFile(TypedDict):
    path: str


class UsdtProbe(TypedDict):
    """A place where a USDT probe can be hit."""

    provider: str
    probe: str
    address: int
    semaphore: int
    arguments: str


class UsdtProbes(TypedDict):
    probes: list[UsdtProbe]


class UsdtCheck(TypedDict):
    path: str
    pid: int | None
    probe: str


class UsdtChecked(TypedDict):
    path: str
    probe: str


class ReadElf(TypedDict):
    name: str
    offset: int
    size_bytes: int


class ElfRead(TypedDict):
    """The blob is the part that was asked for."""

    path: str
    size_bytes: int
    version: str


# -- the table -------------------------------------------------------------------------------------

SET_CLOCK: Operation[SetClock, Clock] = Operation("set_clock")
FEATURES: Operation[Nothing, Features] = Operation("features")
LOAD: Operation[Load, Loaded] = Operation("load")
ATTACH: Operation[Attach, Attached] = Operation("attach")
ATTACH_AGAIN: Operation[AttachAgain, Described] = Operation("attach_again")
DETACH: Operation[Detach, Nothing] = Operation("detach")
STATS: Operation[OfProgram, Stats] = Operation("stats")
CLOSE: Operation[OfProgram, Closed] = Operation("close")
SYNC: Operation[Sync, Nothing] = Operation("sync")
TABLE: Operation[OfTable, TableRead] = Operation("table")
CLEAR: Operation[OfTable, Nothing] = Operation("clear")
UPDATE: Operation[Update, Nothing] = Operation("update")
DELETE: Operation[OfEntry, Nothing] = Operation("delete")
PUT_PROGRAM: Operation[PutProgram, Nothing] = Operation("put_program")
POP: Operation[Pop, Nothing] = Operation("pop")
STACKS: Operation[Stacks, Nothing] = Operation("stacks")
START: Operation[Start, OfProcess] = Operation("start")
WAIT: Operation[OfProcess, Ended] = Operation("wait")
STOP: Operation[Stop, Nothing] = Operation("stop")
KERNEL_FUNCTIONS: Operation[ByPattern, Names] = Operation("kernel_functions")
TRACEPOINTS: Operation[ByPattern, Names] = Operation("tracepoints")
TRACEPOINT_FORMAT: Operation[OfTracepoint, TracepointFormat] = Operation("tracepoint_format")
SYSCALL_NAME: Operation[ByName, SyscallName] = Operation("syscall_name")
SYMBOLS: Operation[SymbolsOf, Symbols] = Operation("symbols")
USDT_PROBES: Operation[OfFile, UsdtProbes] = Operation("usdt_probes")
USDT_CHECK: Operation[UsdtCheck, UsdtChecked] = Operation("usdt_check")
READ_ELF: Operation[ReadElf, ElfRead] = Operation("read_elf")
