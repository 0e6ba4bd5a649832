"""What can be probed here, and why a probe could not be attached.

Names come from the running kernel: tracefs' ``available_filter_functions`` and ``events/``,
``/proc/kallsyms``, and ``kprobes/blacklist`` of debugfs (Documentation/trace/ftrace.rst,
kprobes.rst). Symbols of programs come from BCC.
"""

import difflib
import fnmatch
import os
import re
import time
from functools import lru_cache
from pathlib import Path
from typing import Any, Dict, Iterable, List, Optional

from faults import Fault

_TRACEFS = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")
_SYSCALL_PREFIXES = ("__x64_sys_", "__arm64_sys_", "__s390x_sys_", "sys_")
_HEADER_SECONDS = 6.0


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


def _kallsyms() -> List[str]:
    """The names of the kernel's functions, modules included."""
    text = Path("/proc/kallsyms").read_text()
    return re.findall(r"^\S+ [tTwW] (\S+)", text, re.MULTILINE)


def kernel_functions(pattern: str) -> List[str]:
    """The kernel functions that can be traced, by shell pattern, sorted."""
    try:
        text = (tracefs() / "available_filter_functions").read_text()
        names: Iterable[str] = (line.split()[0] for line in text.splitlines() if line)
    except (Fault, OSError):
        names = _kallsyms()
    return sorted(set(fnmatch.filter(names, pattern)))


def syscall_name(name: str) -> str:
    """The kernel function of a system call: ``execve`` -> ``__x64_sys_execve``.

    Since Linux 4.17 (commit fa697140f9a2) it carries a prefix that names the architecture.
    """
    names = _syscalls()
    if name not in names:
        raise unknown("system call", name, names)
    return names[name]


@lru_cache(maxsize=1)  # the system calls of a kernel do not change, and kallsyms is long
def _syscalls() -> Dict[str, str]:
    """The kernel function of each system call."""
    functions = _kallsyms()
    found: Dict[str, str] = {}
    for prefix in reversed(_SYSCALL_PREFIXES):
        found.update({f[len(prefix) :]: f for f in functions if f.startswith(prefix)})
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
    try:
        return (tracefs() / "events" / category / name / "format").read_text()
    except OSError:
        raise unknown("tracepoint", tp, tracepoints("*")) from None


def unknown(what: str, name: str, names: Iterable[str]) -> Fault:
    """The fault for a name that does not exist, with its closest matches."""
    found = difflib.get_close_matches(name, list(names), n=3, cutoff=0.6)
    hint = f" Closest matches: {', '.join(found)}." if found else ""
    return Fault(
        "UnknownEvent",
        f"This kernel ({os.uname().release}) has no {what} {name!r}.{hint}",
        name=name,
        closest=found,
    )


def explain_kprobe(event: str) -> Fault:
    """Why a kprobe on ``event`` was refused."""
    if not os.path.isdir("/sys/bus/event_source/devices/kprobe"):
        return Fault(
            "AttachError",
            f"Cannot attach to {event!r}: this kernel ({os.uname().release}) was built without"
            " kprobes (CONFIG_KPROBE_EVENTS). Use Lab('vm'), whose kernel has them.",
        )
    functions = _kallsyms()
    if event not in functions:
        changed = [name for name in functions if name.startswith(event + ".")]
        if changed:
            return Fault(
                "UnknownEvent",
                f"Cannot attach to {event!r}: the compiler changed this function and its name;"
                f" it is here as {', '.join(changed[:3])}. Attach to that, and do not trust its"
                " arguments.",
                name=event,
                closest=changed[:3],
            )
        inlined = _inline_definition(event)
        if inlined:
            return Fault(
                "UnknownEvent",
                f"Cannot attach to {event!r}: it is `static inline` ({inlined}), so the compiler"
                " copies its body into each caller and there is no function to stop at. Probe a"
                " caller, or a tracepoint nearby.",
                name=event,
                closest=[],
            )
        return unknown("function", event, functions)
    if event in _blacklist():
        return Fault(
            "AttachError",
            f"Cannot attach to {event!r}: it is on the kernel's own list of functions that a probe"
            " would crash (kprobes/blacklist in debugfs). Probe one of its callers.",
        )
    return Fault(
        "AttachError",
        f"Cannot attach to {event!r}: the kernel has this function and refuses to probe it. It is"
        " likely marked notrace, or runs where a breakpoint is forbidden. Functions that can be"
        " probed are listed by lab.kernel_functions('...*').",
    )


def _blacklist() -> List[str]:
    try:
        text = Path("/sys/kernel/debug/kprobes/blacklist").read_text()
    except OSError:
        return []
    return [line.split()[1] for line in text.splitlines() if "\t" in line]


def _inline_definition(name: str) -> Optional[str]:
    """Where the headers define ``name`` as static inline: ``linux/sched.h:123``, or None."""
    include = Path("/lib/modules") / os.uname().release / "source" / "include"
    if not include.is_dir():
        include = Path("/lib/modules") / os.uname().release / "build" / "include"
    roots = [include]
    common = sorted(Path("/usr/src").glob("linux-headers-*-common/include"))
    if common:
        roots.append(common[-1])
    wanted = name.encode()
    definition = re.compile(
        rb"^static\s+(?:__always_inline|inline|__inline\w*)[^;{}#]*?\b"
        + re.escape(wanted)
        + rb"\s*\(",
        re.MULTILINE,
    )
    deadline = time.monotonic() + _HEADER_SECONDS
    for root in roots:
        for part in ("linux", "net", "asm-generic"):
            for header in sorted((root / part).glob("*.h")):
                if time.monotonic() > deadline:
                    return None
                text = header.read_bytes()
                found = definition.search(text) if wanted in text else None
                if found:
                    line = text.count(b"\n", 0, found.end()) + 1
                    return f"{part}/{header.name}:{line}"
    return None


def symbols(path: str, pattern: str) -> List[Dict[str, Any]]:
    """The function symbols of a program or library: name and address."""
    from bcc import BPF

    if not os.path.isfile(path):
        raise Fault("UnknownEvent", f"There is no file {path!r} on the traced machine.")
    pairs = BPF.get_user_functions_and_addresses(path, ".*")
    found = {name.decode(): address for name, address in pairs}
    return [
        {"symbol": name, "address": found[name]} for name in sorted(fnmatch.filter(found, pattern))
    ]


def explain_uprobe(path: str, sym: str, pid: int) -> Fault:
    """Why a uprobe on ``sym`` in ``path`` was refused."""
    if pid > 0 and not os.path.isdir(f"/proc/{pid}"):
        return Fault("AttachError", f"There is no process {pid} on the traced machine.")
    if path.startswith("/") and not os.path.isfile(path):
        return Fault("UnknownEvent", f"There is no file {path!r} on the traced machine.")
    names = [row["symbol"] for row in symbols(path, "*")] if path.startswith("/") else []
    if sym in names:
        where = f" for process {pid}: does it run this file?" if pid > 0 else "."
        return Fault("AttachError", f"The kernel refused a probe at {sym!r} in {path!r}{where}")
    if path.startswith("/") and not names:
        return Fault(
            "UnknownEvent",
            f"{path!r} has no symbol table: it was stripped (strip, or a build with -s). Rebuild"
            " without stripping, or attach to an address with addr=.",
        )
    found = difflib.get_close_matches(sym, names, n=3, cutoff=0.6)
    hint = f" Closest matches: {', '.join(found)}." if found else ""
    return Fault(
        "UnknownEvent",
        f"There is no function {sym!r} in {path!r}: misspelt, inlined, or not in it.{hint}",
        name=sym,
        closest=found,
    )
