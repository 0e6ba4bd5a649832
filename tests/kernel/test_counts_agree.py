"""Every probe kind counts the same run, and counts what strace and bpftrace count.

One program makes each kind's event a prime number of times: `umask` with a number of its own,
which returns the number before; a call of ``work``, which returns its argument doubled; a USDT
probe. It says its process id, by which its rows are found among those of others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pandas as pd
import pytest

from ebpflab import Lab, Program

pytestmark = pytest.mark.vm

HITS = 211
TARGET_C = r"""
#include <stdio.h>
#include <stdlib.h>
#include <sys/sdt.h>
#include <sys/stat.h>
#include <unistd.h>
__attribute__((noinline)) long work(long n) {
  __asm__ volatile("" : "+r"(n) : : "memory");
  return n * 2;
}
int main(int argc, char **argv) {
  umask(0);
  for (long n = 1; n <= atol(argv[1]); n++) {
    umask(n);
    work(n);
    DTRACE_PROBE1(target, step, n);
  }
  printf("process %d\n", getpid());
  return 0;
}
"""
KINDS = ["kprobe", "kretprobe", "tracepoint", "raw tracepoint", "uprobe", "uretprobe", "usdt"]
PROBES = r"""
#include <uapi/linux/ptrace.h>
struct hit { u32 kind, pid; s64 n; };
BPF_RINGBUF_OUTPUT(hits, 64);
static int tell(u32 kind, s64 n) {
  struct hit hit = {.kind = kind, .pid = bpf_get_current_pid_tgid() >> 32, .n = n};
  hits.ringbuf_output(&hit, sizeof(hit), 0);
  return 0;
}
int syscall__umask(struct pt_regs *ctx, int mask) { return tell(0, mask); }
int umask_returns(struct pt_regs *ctx) { return tell(1, PT_REGS_RC(ctx)); }
TRACEPOINT_PROBE(syscalls, sys_enter_umask) { return tell(2, args->mask); }
RAW_TRACEPOINT_PROBE(sys_enter) {
  struct pt_regs *regs = (struct pt_regs *)ctx->args[0];
  u64 mask = 0;
  if (ctx->args[1] != UMASK) return 0;
  bpf_probe_read_kernel(&mask, sizeof(mask), &PT_REGS_PARM1(regs));
  return tell(3, mask);
}
int on_work(struct pt_regs *ctx) {
  bpf_trace_printk("work %d\n", (int)PT_REGS_PARM1(ctx));
  return tell(4, PT_REGS_PARM1(ctx));
}
int work_returns(struct pt_regs *ctx) { return tell(5, PT_REGS_RC(ctx)); }
int on_step(struct pt_regs *ctx) {
  s64 n = 0;
  bpf_usdt_readarg(1, ctx, &n);
  return tell(6, n);
}
"""
NUMBERS = range(1, HITS + 1)
EXPECTED = {
    "kprobe": [0, *NUMBERS],
    "tracepoint": [0, *NUMBERS],
    "raw tracepoint": [0, *NUMBERS],
    "uprobe": [*NUMBERS],
    "uretprobe": [2 * n for n in NUMBERS],
    "usdt": [*NUMBERS],
}
BPFTRACE = """
kprobe:FUNCTION /comm == "target"/ { @kprobe = count(); }
kretprobe:FUNCTION /comm == "target"/ { @kretprobe = count(); }
tracepoint:syscalls:sys_enter_umask /comm == "target"/ { @tracepoint = count(); }
uprobe:/tmp/target:work { @uprobe = count(); }
uretprobe:/tmp/target:work { @uretprobe = count(); }
usdt:/tmp/target:target:step { @usdt = count(); }
"""


@pytest.fixture(scope="module")
def prog(lab: Lab) -> Iterator[Program]:
    built = lab.run(["gcc", "-O1", "-x", "c", "-o", "/tmp/target", "-"], input=TARGET_C)
    assert built.returncode == 0, built.stderr
    usdt = lab.usdt("/tmp/target")
    usdt.enable_probe(probe="target:step", fn_name="on_step")
    number = {"x86_64": 95, "aarch64": 166}[lab.arch]  # of umask, asm/unistd.h
    with lab.load(PROBES, cflags=[f"-DUMASK={number}"], usdt_contexts=[usdt]) as prog:
        function = lab.syscall_name("umask")
        prog.attach_kprobe(event=function, fn_name="syscall__umask")
        prog.attach_kretprobe(event=function, fn_name="umask_returns")
        prog.attach_uprobe(name="/tmp/target", sym="work", fn_name="on_work")
        prog.attach_uretprobe(name="/tmp/target", sym="work", fn_name="work_returns")
        yield prog


def check(prog: Program, output: str) -> pd.Series[int]:
    """Every kind has a row for each hit, with the right value; how many rows each kind has."""
    (pid,) = (int(found) for found in re.findall(r"^process (\d+)$", output, re.MULTILINE))
    hits, messages = prog["hits"].collect(), prog.messages.collect()
    assert hits.attrs["lost"] == 0
    hits = hits[hits["pid"] == pid]
    seen = {kind: list(hits.loc[hits["kind"] == n, "n"]) for n, kind in enumerate(KINDS)}
    before = seen.pop("kretprobe")
    assert seen == EXPECTED
    assert before[1:] == [0, *NUMBERS][:-1], "what umask returns is the mask before"
    said = messages[messages["tid"] == pid]
    assert list(said["message"]) == [f"work {n}" for n in NUMBERS]
    return hits["kind"].map(lambda kind: KINDS[kind]).value_counts()


def test_every_kind_has_every_hit(lab: Lab, prog: Program) -> None:
    check(prog, lab.run(["/tmp/target", str(HITS)]).stdout)


def test_strace_counts_the_same_system_calls(lab: Lab, prog: Program) -> None:
    done = lab.run(["strace", "-f", "-c", "-o", "/tmp/calls", "/tmp/target", str(HITS)])
    table = lab.run(["cat", "/tmp/calls"]).stdout
    (calls,) = re.findall(r"^(?:\s*[\d.]+){3}\s+(\d+)\s+umask$", table, re.MULTILINE)
    counts = check(prog, done.stdout)
    assert set(counts[["kprobe", "kretprobe", "tracepoint", "raw tracepoint"]]) == {int(calls)}


def test_bpftrace_counts_the_same_hits(lab: Lab, prog: Program) -> None:
    script = BPFTRACE.replace("FUNCTION", lab.syscall_name("umask"))
    done = lab.run(["bpftrace", "-e", script, "-c", f"/tmp/target {HITS}"])
    assert done.returncode == 0, done.stderr
    theirs = {kind: int(n) for kind, n in re.findall(r"^@(\w+): (\d+)$", done.stdout, re.MULTILINE)}
    ours = check(prog, done.stdout)
    assert theirs == {kind: ours[kind] for kind in KINDS if kind != "raw tracepoint"}
