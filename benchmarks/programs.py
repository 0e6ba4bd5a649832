"""The BPF programs: the same C for ebpflab and for BCC, and what bpftrace calls the same.

Every record has 40 bytes, and every program sees nothing but the processes it is told of.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

COLUMNS = ["at_ns", "pid", "tid", "comm", "n"]

_EVENT = "struct event { u64 at_ns; u32 pid; u32 tid; char comm[16]; u64 n; };"

_FUNCTIONS = {
    "read": "TRACEPOINT_PROBE(syscalls, sys_enter_read) {\n  u64 n = args->count;",
    "call": "int on_work(struct pt_regs *args) {\n  u64 n = PT_REGS_PARM1(args);",
}

_RECORD = """
  struct event event = {.at_ns = bpf_ktime_get_ns(), .pid = id >> 32, .tid = id, .n = n};
  bpf_get_current_comm(&event.comm, sizeof(event.comm));
"""

_SENDS = {
    "ring": _RECORD + "  events.ringbuf_output(&event, sizeof(event), 0);",
    "perf": _RECORD + "  events.perf_submit(args, &event, sizeof(event));",
    "table": "\n  u64 one = 1;\n  counts.update(&n, &one);",
    # More than a system call could ever send by one record each: the ring itself is the limit.
    "flood": _RECORD.replace(".n = n", ".n = 0")
    + """  u32 zero = 0;
  u64 *sent = produced.lookup(&zero);
  if (!sent) return 0;
  for (int i = 0; i < 128; i++) {
    event.n = (*sent)++;
    events.ringbuf_output(&event, sizeof(event), 0);
  }""",
}

_MAPS = {
    "ring": "BPF_RINGBUF_OUTPUT(events, {pages});",
    "perf": "BPF_PERF_OUTPUT(events);",
    "table": "BPF_HASH(counts, u64, u64, {entries});",
    "flood": "BPF_RINGBUF_OUTPUT(events, {pages}); BPF_PERCPU_ARRAY(produced, u64, 1);",
}


def c_source(probe: str, output: str, pids: Sequence[int], pages: int, entries: int) -> str:
    """C for BCC: what ``probe`` ("read" or "call") sees of ``pids`` goes to ``output``.

    Without ``pids``, of all processes.
    """
    others = [" && ".join(f"(id >> 32) != {pid}" for pid in pids)] if pids else []
    if probe == "read":
        others.append("n != 1")  # dd's reads, not those of its loader
    leave = f"\n  if ({' || '.join(others)}) return 0;" if others else ""
    return f"""\
#include <uapi/linux/ptrace.h>
{_EVENT}
{_MAPS[output].format(pages=pages, entries=entries)}
{_FUNCTIONS[probe]}
  u64 id = bpf_get_current_pid_tgid();{leave}{_SENDS[output]}
  return 0;
}}
"""


def bpftrace_source(
    probe: str, output: str, pids: Sequence[int], program: str, attached: Path
) -> str:
    """The same in bpftrace's language, as lines of comma-separated values.

    It makes the file ``attached`` when its probes are: what it prints stays in its buffer for a
    while.
    """
    place = {"read": "tracepoint:syscalls:sys_enter_read", "call": f"uprobe:{program}:work"}[probe]
    n = {"read": "args->count", "call": "arg0"}[probe]
    wanted = " || ".join(f"pid == {pid}" for pid in pids)
    if probe == "read":
        wanted = f"({wanted}) && {n} == 1"
    line = f'printf("%llu,%d,%d,%s,%llu\\n", nsecs, pid, tid, comm, {n});'
    action = "@counts[arg0] = 1;" if output == "table" else line
    tell = f'interval:s:1 /!@told/ {{ @told = 1; system("touch {attached}"); }}'
    return f"{place} /{wanted}/ {{ {action} }} {tell}"
