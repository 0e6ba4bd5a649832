"""How long from C to an attached probe, for BCC and for ebpflab: natively, and in a guest.

Each compilation is of a text that nobody has compiled before. BCC's is in a process of its own, and
what is not timed is what a program that uses BCC does once: starting Python, and importing bcc.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

from bcc_here import __file__ as bcc_here
from figures import Compilation

from ebpflab import Lab, Program

_LIBRARY, _FUNCTION = "c", "getsid"  # hardly any process calls it

_INCLUDES = {
    "no include": "",
    "linux/ptrace.h": "#include <uapi/linux/ptrace.h>\n",
    "linux/sched.h": "#include <uapi/linux/ptrace.h>\n#include <linux/sched.h>\n",
}
_PARENT = "((struct task_struct *)bpf_get_current_task())->real_parent->tgid"

_BY_BCC = f"""
import json, sys, time
{{importing}}
source = sys.stdin.read()
began = time.monotonic()
b = BPF(text=source)
compiled = time.monotonic()
b.attach_uprobe(name={_LIBRARY!r}, sym={_FUNCTION!r}, fn_name="on_call")
print(json.dumps([compiled - began, time.monotonic() - began]))
"""

PROGRAMS = tuple(_INCLUDES)


def source(program: str, number: int) -> str:
    """C that is like that of no other ``number``."""
    value = _PARENT if "sched" in program else "bpf_get_current_pid_tgid() >> 32"
    return f"""{_INCLUDES[program]}
BPF_HASH(calls, u32, u64);
int on_call(void *ctx) {{
    u32 key = {value} + {number};
    calls.increment(key);
    return 0;
}}
"""


def measure(lab: Lab, native: bool, rounds: int) -> list[Compilation]:
    """Each program in each round, by BCC and by ebpflab in turn."""
    for program in PROGRAMS:
        _make_ready(lab, program, native)
    found = []
    for number in range(rounds):
        for program in PROGRAMS:
            text = source(program, number)
            found.append(
                Compilation(
                    program,
                    "native" if native else "guest",
                    *_by_bcc(lab, text, native),
                    *_by_ebpflab(lab, text, native),
                )
            )
    return found


def _load(lab: Lab, text: str, native: bool) -> Program:
    """Natively with the headers that BCC gets here, be they another kernel's."""
    return lab.load(text, headers=os.environ.get("BCC_KERNEL_SOURCE") if native else None)


def _make_ready(lab: Lab, program: str, native: bool) -> None:
    """Wait until its headers are precompiled: the agent does it once, when it first meets them."""
    for attempt in range(60):
        with _load(lab, source(program, 1_000 + attempt), native) as prog:
            if prog.stats().attrs["compilation"]["reason"] is None:
                return
        time.sleep(1)
    raise SystemExit(f"the headers of {program!r} were not precompiled in a minute")


def _by_ebpflab(lab: Lab, text: str, native: bool) -> tuple[float, float]:
    began = time.monotonic()
    with _load(lab, text, native) as prog:
        compiled = time.monotonic()
        prog.attach_uprobe(name=_LIBRARY, sym=_FUNCTION, fn_name="on_call")
        attached = time.monotonic()
        assert prog.stats().attrs["compilation"]["reason"] is None
    return compiled - began, attached - began


def _by_bcc(lab: Lab, text: str, native: bool) -> tuple[float, float]:
    if native:
        here = bcc_here.rpartition("/")[0]
        code = _BY_BCC.format(importing=f"sys.path.insert(0, {here!r})\nfrom bcc_here import BPF")
        command = [sys.executable, "-c", code]
        told = subprocess.run(
            command, input=text, check=True, text=True, stdout=subprocess.PIPE
        ).stdout
    else:
        code = _BY_BCC.format(importing="from bcc import BPF")
        done = lab.run(["/usr/bin/python3", "-c", code], input=text)
        assert done.returncode == 0, done.stderr
        told = done.stdout
    compiled, attached = json.loads(told.splitlines()[-1])
    return compiled, attached
