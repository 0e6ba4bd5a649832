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
from typing import Any, Dict, Iterable, List, Optional, Sequence

import binaries
import headers
import named
import notes
import perf
from faults import Fault

_TRACEFS = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")
_SYSCALL_PREFIXES = ("__x64_sys_", "__arm64_sys_", "__s390x_sys_", "sys_")
_HEADER_SECONDS = 6.0
_MANY = 5000


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
    try:
        modules = Path("/proc/modules").read_text().splitlines()
    except FileNotFoundError:
        modules = []  # a kernel without modules (CONFIG_MODULES)
    return _functions(tuple(line.split()[0] for line in modules))


@lru_cache(maxsize=1)  # a long text, which changes when a module comes or goes
def _functions(modules: Sequence[str]) -> List[str]:
    text = Path("/proc/kallsyms").read_text()
    return re.findall(r"^\S+ [tTwW] (\S+)", text, re.MULTILINE)


def is_function(name: str) -> bool:
    """Whether the kernel has a function of that name, traceable or not."""
    return name in _kallsyms()


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
    # A name is a folder of tracefs: with a slash, it would be any file that is called `format`.
    if re.fullmatch(r"[\w.-]*\w:\w[\w.-]*", tp):
        try:
            return (tracefs() / "events" / category / name / "format").read_text()
        except OSError:
            pass
    raise unknown("tracepoint", tp, tracepoints("*"))


def closest(name: str, names: Iterable[str]) -> List[str]:
    """The three ``names`` most like ``name``, best first; those of padding are left out.

    Of a kernel's 200,000 functions, difflib is shown those that share a third of the pairs of
    letters: it takes many seconds for all of them.
    """
    known = [other for other in names if not other.startswith(("__pfx_", "__cfi_"))]
    if len(known) > _MANY:
        pairs = {name[at : at + 2] for at in range(len(name) - 1)}
        known = [other for other in known if 3 * sum(p in other for p in pairs) >= len(pairs)]
    return difflib.get_close_matches(name, known, n=3, cutoff=0.6)


def unknown(
    what: str, name: str, names: Iterable[str], meant: Sequence[str] = (), hint: str = ""
) -> Fault:
    """The fault for a name that does not exist, with its closest matches, ``meant`` before all."""
    found = list(meant) or closest(name, names)
    matches = f" Closest matches: {', '.join(found)}." if found else ""
    return Fault(
        "UnknownEvent",
        f"This kernel ({os.uname().release}) has no {what} {name!r}.{hint}{matches}",
        name=name,
        closest=found,
    )


def explain_tracepoint(tp: str, function: str) -> Fault:
    """Why ``function`` could not be attached to the tracepoint ``tp``."""
    known = tracepoints("*")
    if tp in known:
        record = "tracepoint__" + tp.replace(":", "__")
        return Fault(
            "AttachError",
            f"The kernel does not let {function!r} run at {tp!r}: it reads beyond the tracepoint's"
            f" record. Its parameter must be that record, `struct {record} *args`; what takes"
            " `struct pt_regs *ctx` is for kprobes and uprobes.",
        )
    category, _, name = tp.rpartition(":")
    meant = [other for other in known if other.split(":")[1] == name]
    hint = "" if category else " A tracepoint is named category:name."
    if not meant and name in _kallsyms():
        hint += f" The kernel has a function {name!r}: attach_kprobe(event={name!r}, fn_name=...)."
    return unknown("tracepoint", tp, known, meant, hint)


def explain_raw_tracepoint(tp: str) -> Fault:
    """Why nothing could be attached to the raw tracepoint ``tp``."""
    known, name = raw_tracepoints(), tp.rpartition(":")[2]
    if tp in known:
        return Fault("AttachError", f"The kernel refuses a program at the raw tracepoint {tp!r}.")
    hint = " A raw tracepoint is named without a category." if ":" in tp else ""
    return unknown("raw tracepoint", tp, known, [name] if name in known else (), hint)


def explain_second_kind(function: str, before: int, now: int) -> Fault:
    """Why a function that runs at one kind of probe cannot be attached to another as well."""
    kinds = {2: "a kprobe or uprobe", 5: "a tracepoint", 7: "a perf event", 17: "a raw tracepoint"}
    one, other = (kinds.get(each, "another kind of probe") for each in (before, now))
    return Fault(
        "AttachError",
        f"{function!r} is attached to {one}, and cannot run at {other} as well: the kernel gives"
        " them different arguments, and loads a function for one of them. Write a function of its"
        " own for each.",
    )


def explain_missing(event: str) -> Fault:
    """Why the kernel has no function ``event``, and what the reader may have meant."""
    functions = _kallsyms()
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
    called = re.sub(r"^(?:sys|SyS)_", "", event)
    if called != event and called in _syscalls():
        hint = (
            " The function of a system call has a prefix since Linux 4.17:"
            f" lab.syscall_name({called!r})."
        )
        return unknown("function", event, functions, [_syscalls()[called]], hint)
    return unknown("function", event, functions)


def explain_kprobe(event: str, offset: int = 0) -> Fault:
    """Why a kprobe on ``event``, ``offset`` bytes from its start, was refused."""
    if not os.path.isdir("/sys/bus/event_source/devices/kprobe"):
        return Fault(
            "AttachError",
            f"Cannot attach to {event!r}: this kernel ({os.uname().release}) was built without"
            " kprobes (CONFIG_KPROBE_EVENTS). Use Lab('vm'), whose kernel has them.",
        )
    if event not in _kallsyms():
        return explain_missing(event)
    if offset:
        return Fault(
            "AttachError",
            f"Cannot attach {offset} bytes into {event!r}: the kernel wants the first byte of an"
            " instruction of that function, and one that may be probed. Without event_off= the"
            " probe stands at the function's start.",
        )
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
    wanted = name.encode()
    definition = re.compile(
        rb"^static\s+(?:__always_inline|inline|__inline\w*)[^;{}#]*?\b"
        + re.escape(wanted)
        + rb"\s*\(",
        re.MULTILINE,
    )
    deadline = time.monotonic() + _HEADER_SECONDS
    for root in headers.include_folders():
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


def symbols(name: str, pattern: str) -> List[Dict[str, Any]]:
    """The function symbols of a program or library, named as a probe's is: name and address."""
    from bcc import BPF

    path = binaries.locate(name)
    if not os.path.isfile(path):
        raise Fault("UnknownEvent", f"There is no file {path!r} on the traced machine.")
    pairs = BPF.get_user_functions_and_addresses(path, ".*")
    found = {symbol.decode(): address for symbol, address in pairs}
    matching = sorted(fnmatch.filter(found, pattern))
    return [{"symbol": symbol, "address": found[symbol]} for symbol in matching]


def check_program(name: str, pid: int) -> None:
    """Refuse, as a place for uprobes, what is no program, or one of another processor.

    The kernel puts a probe into any file, where it waits for ever. A process in a container may
    know a file that is not here; that is for BCC to find.
    """
    if pid > 0 and not os.path.isdir(f"/proc/{pid}"):
        raise Fault("AttachError", f"There is no process {pid} on the traced machine.")
    if pid <= 0 or os.path.exists(name):
        notes.check_machine(str(binaries.read_elf(name, 0, 0)[0]["path"]))


def explain_uprobe(path: str, sym: str, pid: int) -> Fault:
    """Why a uprobe on ``sym`` in ``path`` was refused."""
    path = str(binaries.read_elf(path, 0, 0)[0]["path"])
    names = [row["symbol"] for row in symbols(path, "*")]
    if sym in names:
        where = f" for process {pid}: does it run this file?" if pid > 0 else "."
        return Fault("AttachError", f"The kernel refused a probe at {sym!r} in {path!r}{where}")
    if not names:
        return Fault(
            "UnknownEvent",
            f"{path!r} has no symbol table: it was stripped (strip, or a build with -s). Rebuild"
            " without stripping, or attach to an address with addr=.",
        )
    found = closest(sym, names)
    hint = f" Closest matches: {', '.join(found)}." if found else ""
    return Fault(
        "UnknownEvent",
        f"There is no function {sym!r} in {path!r}: misspelt, inlined, or not in it.{hint}",
        name=sym,
        closest=found,
    )


def explain(kind: str, function: str, where: Dict[str, Any], complaint: str, log: str) -> Fault:
    """Why ``function`` could not be attached to ``where``; BCC's complaint, and what it printed."""
    if kind in ("kprobe", "kretprobe") and "event" in where:
        fault = explain_kprobe(where["event"], where.get("event_off", 0))
    elif kind in ("uprobe", "uretprobe", "go_return") and where.get("sym"):
        fault = explain_uprobe(where["name"], where["sym"], where["pid"])
    elif kind == "tracepoint":
        fault = explain_tracepoint(where["tp"], function)
    elif kind == "raw_tracepoint":
        fault = explain_raw_tracepoint(where["tp"])
    elif kind == "perf_event":
        fault = perf.explain(where, complaint, log)
    elif kind in named.TRAMPOLINES:
        fault = Fault(
            "AttachError",
            f"Cannot attach {named.TRAMPOLINES[kind]} to {named.place(function, where)!r}: the"
            " kernel has this function, and no place in it for a trampoline. It is likely marked"
            " notrace. Functions that have one are listed by lab.kernel_functions('...*').",
        )
    else:
        fault = Fault("AttachError", f"Cannot attach a {kind} with {where}: {complaint}")
    fault.detail.update(complaint=complaint, log=log)
    return fault
