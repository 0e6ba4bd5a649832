"""Does memory stay flat? For 20 minutes, unless told.

    .venv/bin/python benchmarks/memory.py [SECONDS]

A program that calls ``read`` 1,000 times a second is traced, a hundred records of 40 bytes a call
(a probe for each of them would keep a core busy by itself); the stream keeps a million rows, and
every ten seconds new ones are collected and let go. Meanwhile the anonymous memory of the agent
and of this process, which is as a notebook's, is looked at, and what malloc has in use of this
process's: the rest is free, and kept for the next DataFrame. At the end slopes are told, by least
squares over the time after the first minute. Takes root.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from measure import HERE, anonymous_bytes

from ebpflab import Lab

HZ, BURST, KEPT_ROWS, EVERY_SECONDS, WARM_SECONDS = 1_000, 100, 1_000_000, 10, 60
SOURCE = r"""
#include <uapi/linux/ptrace.h>
struct call { u64 time_ns; u32 pid, tid; char comm[16]; u64 size_bytes; };
BPF_RINGBUF_OUTPUT(calls, 256);
int on_read(struct pt_regs *ctx) {
  struct call call = {.time_ns = bpf_ktime_get_ns(), .size_bytes = PT_REGS_PARM3(ctx)};
  call.tid = bpf_get_current_pid_tgid();
  call.pid = bpf_get_current_pid_tgid() >> 32;
  bpf_get_current_comm(&call.comm, sizeof(call.comm));
  #pragma clang loop unroll(disable)
  for (int n = 0; n < BURST; n++) calls.ringbuf_output(&call, sizeof(call), 0);
  return 0;
}
"""


def cpu_seconds(pid: int) -> float:
    """Of this process alone: the agent is our child, and the workload the agent's."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class _MallInfo(ctypes.Structure):
    _fields_ = [
        ("arena", ctypes.c_size_t),
        ("ordblks", ctypes.c_size_t),
        ("smblks", ctypes.c_size_t),
        ("hblks", ctypes.c_size_t),
        ("hblkhd", ctypes.c_size_t),
        ("usmblks", ctypes.c_size_t),
        ("fsmblks", ctypes.c_size_t),
        ("uordblks", ctypes.c_size_t),
        ("fordblks", ctypes.c_size_t),
        ("keepcost", ctypes.c_size_t),
    ]


def malloc_bytes() -> int:
    """What is allocated and not freed, large blocks included. Source: mallinfo2(3)."""
    libc = ctypes.CDLL(None)
    libc.mallinfo2.restype = _MallInfo
    found = libc.mallinfo2()
    return int(found.hblkhd) + int(found.uordblks)


def main() -> None:
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 1200
    with tempfile.TemporaryDirectory() as folder, Lab("local") as lab:
        program = f"{folder}/workload"
        subprocess.run(["gcc", "-O2", "-o", program, HERE / "workload.c"], check=True)
        with lab.load(SOURCE.replace("BURST", str(BURST))) as prog:
            work = lab.start([program, "rate", str(HZ), str(seconds)])
            calls = prog["calls"]
            calls.keep(rows=KEPT_ROWS)
            prog.attach_uprobe(name="c", sym="read", fn_name="on_read", pid=work.pid)
            pids = {"agent": lab.agent_pid, "notebook": os.getpid()}
            used = {name: cpu_seconds(pid) for name, pid in pids.items()}
            collected, began = 0, time.monotonic()
            samples: list[tuple[float, int, int, int]] = []
            while (now := time.monotonic() - began) < seconds - EVERY_SECONDS:
                collected += len(calls.collect(seconds=EVERY_SECONDS))
                agent, notebook = (anonymous_bytes(pid) for pid in pids.values())
                samples.append((now, agent, notebook, malloc_bytes()))
            elapsed = time.monotonic() - began
            cpu = {name: (cpu_seconds(pid) - used[name]) / elapsed for name, pid in pids.items()}
            work.stop()
            print(f"{elapsed:.0f} s: {collected / elapsed:,.0f} events/s collected,", end=" ")
            print(f"{calls.lost:,} of {calls.arrived + calls.lost:,} lost")
    for minute in range(0, len(samples), 60 // EVERY_SECONDS):
        mib = ", ".join(f"{size / 2**20:.1f}" for size in samples[minute][1:])
        print(f"minute {minute * EVERY_SECONDS // 60}: {mib}")
    warm = np.array([each for each in samples if each[0] >= WARM_SECONDS])
    for column, name in enumerate(("agent", "notebook", "in use in the notebook"), 1):
        slope, _ = np.polyfit(warm[:, 0], warm[:, column], 1)
        least, most = warm[:, column].min() / 2**20, warm[:, column].max() / 2**20
        print(f"{name}: {least:.1f} to {most:.1f} MiB, {slope * 3600 / 2**20:+.2f} MiB an hour")
    print(", ".join(f"{name}: {share:.1%} of a core" for name, share in cpu.items()))


main()
