"""What the running kernel can be probed at, by name.

Names come from tracefs' ``available_filter_functions`` and ``events/``, and from
``/proc/kallsyms`` (Documentation/trace/ftrace.rst).
"""

import fnmatch
import os
import re
from functools import lru_cache
from pathlib import Path
from typing import Dict, Iterable, List, Sequence

from ebpflab.agent.faults import Fault
from ebpflab.protocol.closest import closest, offered

_TRACEFS = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")
_SYSCALL_PREFIXES = ("__x64_sys_", "__arm64_sys_", "__s390x_sys_", "sys_")


def tracefs() -> Path:
    """Where tracefs is mounted. Raises AttachError where it is not."""
    for place in _TRACEFS:
        if os.path.isdir(os.path.join(place, "events")):
            return Path(place)
    raise Fault(
        "AttachError",
        "tracefs is not mounted on the traced machine, so tracepoints and printk messages cannot"
        " be read. Mount it: sudo mount -t tracefs tracefs /sys/kernel/tracing",
    )


def functions() -> List[str]:
    """The names of the kernel's functions, modules included."""
    try:
        modules = Path("/proc/modules").read_text().splitlines()
    except FileNotFoundError:
        modules = []  # a kernel without modules (CONFIG_MODULES)
    return _functions_of(tuple(line.split()[0] for line in modules))


@lru_cache(maxsize=1)  # a long text, which changes when a module comes or goes
def _functions_of(modules: Sequence[str]) -> List[str]:
    text = Path("/proc/kallsyms").read_text()
    return re.findall(r"^\S+ [tTwW] (\S+)", text, re.MULTILINE)


def is_function(name: str) -> bool:
    """Whether the kernel has a function of that name, traceable or not."""
    return name in functions()


def kernel_functions(pattern: str) -> List[str]:
    """The kernel functions that can be traced, by shell pattern, sorted."""
    try:
        text = (tracefs() / "available_filter_functions").read_text()
        names: Iterable[str] = (line.split()[0] for line in text.splitlines() if line)
    except (Fault, OSError):
        names = functions()
    return sorted(set(fnmatch.filter(names, pattern)))


def syscall_name(name: str) -> str:
    """The kernel function of a system call: ``execve`` -> ``__x64_sys_execve``.

    Since Linux 4.17 (commit fa697140f9a2) it carries a prefix that names the architecture.
    """
    names = syscalls()
    if name not in names:
        raise unknown("system call", name, names)
    return names[name]


@lru_cache(maxsize=1)  # the system calls of a kernel do not change, and kallsyms is long
def syscalls() -> Dict[str, str]:
    """The kernel function of each system call."""
    known, found = functions(), {}
    for prefix in reversed(_SYSCALL_PREFIXES):
        found.update({f[len(prefix) :]: f for f in known if f.startswith(prefix)})
    return found


def tracepoints(pattern: str) -> List[str]:
    """Tracepoints as ``category:name``, by shell pattern, sorted."""
    found = (
        f"{p.parent.parent.name}:{p.parent.name}" for p in (tracefs() / "events").glob("*/*/id")
    )
    return sorted(fnmatch.filter(found, pattern))


def raw_tracepoints() -> List[str]:
    """The names of tracepoints without their categories, which is how raw ones are called.

    System calls are left out: theirs are made of the two raw tracepoints sys_enter and sys_exit.
    """
    names = [tp.split(":")[1] for tp in tracepoints("*") if not tp.startswith("syscalls:")]
    return sorted(set(names))


_NAMED_TRACEPOINT = re.compile(
    r"\bTRACEPOINT_PROBE\s*\(\s*(\w+)\s*,\s*(\w+)\s*\)|\bstruct\s+tracepoint__(\w+?)__(\w+)"
)


def named_tracepoints(source: str) -> List[str]:
    """The tracepoints that a C program names, as ``category:name``.

    >>> named_tracepoints("TRACEPOINT_PROBE(sched, sched_switch) { return 0; }")
    ['sched:sched_switch']
    """
    found = _NAMED_TRACEPOINT.finditer(source)
    return [f"{m.group(1) or m.group(3)}:{m.group(2) or m.group(4)}" for m in found]


def tracepoint_format(tp: str) -> str:
    """The text of a tracepoint's ``format`` file."""
    category, _, name = tp.partition(":")
    # A name is a folder of tracefs: with a slash, it would be any file that is called `format`.
    if re.fullmatch(r"[\w.-]*\w:\w[\w.-]*", tp):
        try:
            return (tracefs() / "events" / category / name / "format").read_text()
        except OSError:
            pass
    raise unknown("tracepoint", tp, tracepoints("*"))


def _of_readers(functions: Iterable[str]) -> Iterable[str]:
    """Without what the compiler puts in front of functions as padding."""
    return (name for name in functions if not name.startswith(("__pfx_", "__cfi_")))


def unknown(
    what: str, name: str, names: Iterable[str], meant: Sequence[str] = (), hint: str = ""
) -> Fault:
    """The fault for a name that does not exist, with its closest matches, ``meant`` before all."""
    found = list(meant) or closest(name, _of_readers(names))
    return Fault(
        "UnknownEvent",
        f"This kernel ({os.uname().release}) has no {what} {name!r}.{hint}{offered(found)}",
        name=name,
        closest=found,
    )
