"""Kprobes and kretprobes: a function of the kernel, at its start, or when it returns."""

import os
import re
import time
from pathlib import Path
from typing import List, Optional

import bcc

from ebpflab.agent.faults import Fault
from ebpflab.agent.kernel import headers, names
from ebpflab.agent.probes.kind import Bpf, Kind, by_bcc
from ebpflab.protocol.messages import Where

_HEADER_SECONDS = 6.0


def explain_missing(event: str) -> Fault:
    """Why the kernel has no function ``event``, and what the reader may have meant."""
    functions = names.functions()
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
    if called != event and called in names.syscalls():
        hint = (
            " The function of a system call has a prefix since Linux 4.17:"
            f" lab.syscall_name({called!r})."
        )
        return names.unknown("function", event, functions, [names.syscalls()[called]], hint)
    return names.unknown("function", event, functions)


def _explain(function: str, where: Where, complaint: str, log: str) -> Fault:
    """Why a kprobe was refused."""
    event, offset = where["event"], where.get("event_off", 0)
    if not os.path.isdir("/sys/bus/event_source/devices/kprobe"):
        return Fault(
            "AttachError",
            f"Cannot attach to {event!r}: this kernel ({os.uname().release}) was built without"
            " kprobes (CONFIG_KPROBE_EVENTS). Use Lab('vm'), whose kernel has them.",
        )
    if event not in names.functions():
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


def _named(after: str, bpf: Bpf) -> Where:
    """``sys_clone`` gets the prefix of this kernel's system calls."""
    return {"event": bpf.fix_syscall_fnname(after.encode()).decode()}


KINDS = {
    name: Kind(
        program_type=bcc.BPF.KPROBE,
        words="a kprobe or uprobe",
        explain=_explain,
        prefix=f"{name}__",
        named=_named,
        attach=by_bcc(f"attach_{name}"),
    )
    for name in ("kprobe", "kretprobe")
}
