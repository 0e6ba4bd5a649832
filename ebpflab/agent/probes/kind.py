"""What each kind of probe says of itself."""

from typing import Any, Callable, NamedTuple, Optional

from ebpflab.agent.faults import Fault
from ebpflab.protocol.messages import Where

Bpf = Any
"""BCC's object (``bcc.BPF``), which has no types."""


class Kind(NamedTuple):
    """A kind of probe."""

    program_type: int
    """enum bpf_prog_type (include/uapi/linux/bpf.h)."""
    words: str
    """The program type, as a reader would say."""
    attach: Callable[[Bpf, bytes, Where], None]
    """``attach(bpf, function, where)`` leaves its descriptors in BCC's object."""
    explain: Callable[[str, Where, str, str], Fault]
    """Why a function could not be attached there: (function, where, complaint, log)."""
    explain_load: Callable[[str, str], Optional[Fault]] = lambda function, log: None
    """Why the kernel would not load a function for its place; None when its C is the reason."""
    prefix: str = ""
    """How the name of a C function begins that attaches itself; "": none does."""
    named: Callable[[str, Bpf], Where] = lambda after, bpf: Where()
    """What is after the prefix, and BCC's object -> where."""
    check: Callable[[Where], None] = lambda _: None
    """Refuses a place where the kernel would put a probe that never fires."""


def by_bcc(name: str) -> Callable[[Bpf, bytes, Where], None]:
    """Attach with BCC's method of that name."""

    def attach(bpf: Bpf, function: bytes, where: Where) -> None:
        arguments = {
            key: value.encode() if isinstance(value, str) else value for key, value in where.items()
        }
        getattr(bpf, name)(fn_name=function, **arguments)

    return attach


def place(function: str, where: Where) -> str:
    """Where a function is attached by its name, as a reader would say: ``vfs_read``.

    From 0.30 on, BCC's KFUNC_PROBE puts the kernel's own name, or a module's, before the function.
    """
    after = function.partition("__")[2]
    if after.startswith("vmlinux__"):
        after = after[len("vmlinux__") :]
    return str(where.get("event") or where.get("tp") or after)
