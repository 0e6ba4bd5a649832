"""The kinds of probes: what each is called, and the file that knows it.

A kind is one file of this folder, with a table ``KINDS`` of its names. To add one: write its file,
and add its table below.
"""

from typing import Dict, Iterator, List, Optional, Tuple

from ebpflab.agent.faults import Fault
from ebpflab.agent.probes import fentry, kprobe, perf_event, tracepoint, uprobe
from ebpflab.agent.probes.kind import Bpf, Kind
from ebpflab.protocol.messages import Where

KINDS: Dict[str, Kind] = {
    **kprobe.KINDS,
    **uprobe.KINDS,
    **tracepoint.KINDS,
    **perf_event.KINDS,
    **fentry.KINDS,
}


def of(name: str) -> Kind:
    """The kind of that name. Raises AttachError where there is none."""
    if name not in KINDS:
        raise Fault("AttachError", f"There is no probe kind {name!r}. Kinds: {', '.join(KINDS)}.")
    return KINDS[name]


def requests(functions: List[str], bpf: Bpf) -> Iterator[Tuple[str, str, Where]]:
    """Kind, function and place of each function that attaches itself by its name.

    ``KFUNC_PROBE(vfs_read, ...)`` makes a function ``kfunc__vfs_read``, and so do
    ``TRACEPOINT_PROBE`` and the others. BCC's Python attaches all such functions while its object
    is made, and stops in the middle when one cannot be attached; here each is a request to attach
    like any other, so that a refusal is explained and undone.
    """
    for function in functions:
        for name, kind in KINDS.items():
            if kind.prefix and function.startswith(kind.prefix):
                yield name, function, kind.named(function[len(kind.prefix) :], bpf)


def explain_load(function: str, program_type: int, log: str) -> Optional[Fault]:
    """Why the kernel would not load a function that attaches itself, if its place is the reason."""
    for kind in KINDS.values():
        named = kind.prefix and function.startswith(kind.prefix)
        if named and kind.program_type == program_type:
            return kind.explain_load(function, log)
    return None


def explain_second_kind(function: str, before: int, now: int) -> Fault:
    """Why a function that runs at one kind of probe cannot be attached to another as well."""
    words = {each.program_type: each.words for each in KINDS.values()}
    one, other = (words.get(each, "another kind of probe") for each in (before, now))
    return Fault(
        "AttachError",
        f"{function!r} is attached to {one}, and cannot run at {other} as well: the kernel gives"
        " them different arguments, and loads a function for one of them. Write a function of its"
        " own for each.",
    )
