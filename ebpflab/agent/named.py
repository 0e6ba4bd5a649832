"""What a C function attaches itself to by its name, as BCC's macros spell it.

``KFUNC_PROBE(vfs_read, ...)`` makes a function ``kfunc__vfs_read``, and so do ``TRACEPOINT_PROBE``
and the others. BCC's Python attaches all such functions while its object is made, and stops in
the middle when one cannot be attached; here each is a request to attach like any other, so that
a refusal is explained and undone.
"""

from typing import Any, Callable, Dict, Iterator, List, Tuple

_PREFIXES = (
    ("kprobe__", "kprobe"),
    ("kretprobe__", "kretprobe"),
    ("tracepoint__", "tracepoint"),
    ("raw_tracepoint__", "raw_tracepoint"),
    ("kfunc__", "kfunc"),
    ("kretfunc__", "kretfunc"),
    ("kmod_ret__", "fmod_ret"),
    ("lsm__", "lsm"),
)
TRAMPOLINES = {
    "kfunc": "an fentry probe",
    "kretfunc": "an fexit probe",
    "fmod_ret": "a probe that changes the result",
    "lsm": "an LSM probe",
}
"""Kinds whose place is in the function's name and nowhere else, in words: see ``fentry.py``."""


def kind(function: str) -> str:
    """The kind of probe that a function's name asks for.

    >>> kind("kretfunc__vfs_read")
    'kretfunc'
    """
    return next((kind for prefix, kind in _PREFIXES if function.startswith(prefix)), "")


def place(function: str, where: Dict[str, Any]) -> str:
    """Where a function is attached by its name, as a reader would say: ``vfs_read``.

    From 0.30 on, BCC's KFUNC_PROBE puts the kernel's own name, or a module's, before the function.
    """
    after = function.partition("__")[2]
    if after.startswith("vmlinux__"):
        after = after[len("vmlinux__") :]
    return str(where.get("event") or where.get("tp") or after)


def requests(
    functions: List[str], syscall: Callable[[bytes], bytes]
) -> Iterator[Tuple[str, str, Dict[str, Any]]]:
    """Kind, function and place of each function that is attached by its name.

    ``syscall`` puts right the prefix of a system call's function, ``sys_clone``.

    >>> list(requests(["kprobe__vfs_read", "helper"], lambda name: name))
    [('kprobe', 'kprobe__vfs_read', {'event': 'vfs_read'})]
    """
    for function in functions:
        for prefix, kind in _PREFIXES:
            if not function.startswith(prefix):
                continue
            after = function.partition("__")[2]
            if kind in ("kprobe", "kretprobe"):
                yield kind, function, {"event": syscall(after.encode()).decode()}
            elif kind == "tracepoint":
                yield kind, function, {"tp": after.replace("__", ":")}
            elif kind == "raw_tracepoint":
                yield kind, function, {"tp": after}
            else:
                yield kind, function, {}
