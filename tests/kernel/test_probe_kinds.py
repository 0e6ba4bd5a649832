"""Each kind of probe sees each event of a known workload: a row of docs/compatibility.md each."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest

from ebpflab import Lab, PerfSWConfig, PerfType, Program

pytestmark = pytest.mark.vm

TIMES = 1009
GO, USDT = "/opt/ebpflab/labs/go-hello/work", "/opt/ebpflab/labs/usdt-c/usdt_loop"
COUNTER = r"""
#include <uapi/linux/ptrace.h>
BPF_HASH(seen, u64, u64, 65536);
static inline int count_it(u64 key) {
  u64 comm[2] = {};
  bpf_get_current_comm(&comm, sizeof(comm));
  if (comm[0] == 0x6464) seen.increment(key); /* dd */
  return 0;
}
"""
# Touches 1,009 pages that nobody else touches, and says where they are.
PAGES = f"""
import ctypes, json, mmap
pages = mmap.mmap(-1, {TIMES} * 4096)
pages.madvise(15)  # MADV_NOHUGEPAGE
for page in range({TIMES}):
    pages[page * 4096] = 1
print(json.dumps(ctypes.addressof(ctypes.c_char.from_buffer(pages))))
"""

Kind = Callable[[Lab], int]
KINDS: dict[str, Kind] = {}


def kind(name: str) -> Callable[[Kind], Kind]:
    def keep(function: Kind) -> Kind:
        KINDS[name] = function
        return function

    return keep


def copied(lab: Lab, body: str, attach: Callable[[Program], object] = lambda prog: None) -> int:
    """How often ``body`` counted while dd copied 1,009 times 7 bytes."""
    with lab.load(COUNTER + body) as prog:
        attach(prog)
        lab.run(["dd", "if=/dev/zero", "of=/dev/null", "bs=7", f"count={TIMES}"])
        return counted(prog)


def counted(prog: Program) -> int:
    return int(prog["seen"].frame()["value"].sum())


@kind("kprobe")
def kprobe(lab: Lab) -> int:
    body = "int on_read(struct pt_regs *ctx) { return PT_REGS_PARM3(ctx) == 7 ? count_it(0) : 0; }"
    return copied(lab, body, lambda prog: prog.attach_kprobe(event="vfs_read", fn_name="on_read"))


@kind("kprobe with linux/fs.h")
def kprobe_with_headers(lab: Lab) -> int:
    """An older BCC fails on such headers of a newer kernel, whatever else it can."""
    body = """#include <linux/fs.h>
    int on_read(struct pt_regs *ctx, struct file *file, char *buffer, size_t size) {
      return size == 7 && (file->f_mode & FMODE_READ) ? count_it(0) : 0;
    }"""
    return copied(lab, body, lambda prog: prog.attach_kprobe(event="vfs_read", fn_name="on_read"))


@kind("kretprobe")
def kretprobe(lab: Lab) -> int:
    body = "int after(struct pt_regs *ctx) { return PT_REGS_RC(ctx) == 7 ? count_it(0) : 0; }"
    return copied(lab, body, lambda prog: prog.attach_kretprobe(event="vfs_read", fn_name="after"))


@kind("tracepoint")
def tracepoint(lab: Lab) -> int:
    return copied(
        lab,
        "TRACEPOINT_PROBE(syscalls, sys_enter_read) { return args->count == 7 ? count_it(0) : 0; }",
    )


@kind("raw tracepoint")
def raw_tracepoint(lab: Lab) -> int:
    """Reads and writes both end with 7."""
    body = "RAW_TRACEPOINT_PROBE(sys_exit) { return ctx->args[1] == 7 ? count_it(0) : 0; }"
    return copied(lab, body) // 2


@kind("fentry")
def fentry(lab: Lab) -> int:
    arguments = "struct file *file, char *buf, size_t count"
    return copied(
        lab, f"KFUNC_PROBE(vfs_read, {arguments}) {{ return count == 7 ? count_it(0) : 0; }}"
    )


@kind("fexit")
def fexit(lab: Lab) -> int:
    arguments = "struct file *file, char *buf, size_t count, loff_t *pos, ssize_t ret"
    return copied(
        lab, f"KRETFUNC_PROBE(vfs_read, {arguments}) {{ return ret == 7 ? count_it(0) : 0; }}"
    )


@kind("LSM")
def lsm(lab: Lab) -> int:
    make = f"cd $(mktemp -d) && mkdir $(seq {TIMES}) && rm -r $PWD"
    body = (
        "LSM_PROBE(path_mkdir, void *dir, void *dentry, int mode) { seen.increment(0); return 0; }"
    )
    with lab.load(COUNTER + body) as prog:
        lab.run(["sh", "-c", make])
        return counted(prog) - 1  # mktemp's


@kind("uprobe")
def uprobe(lab: Lab) -> int:
    body = "int on_known(struct pt_regs *ctx) { seen.increment(0); return 0; }"
    with lab.load(COUNTER + body) as prog:
        prog.attach_uprobe(name=GO, sym="main.known", fn_name="on_known")
        lab.run([GO, "1", str(TIMES)])
        return counted(prog)


@kind("uretprobe")
def uretprobe(lab: Lab) -> int:
    (libc,) = re.findall(r"=> (\S+/libc\.so\.\d)", lab.run(["ldd", "/bin/dd"]).stdout)
    body = "int after(struct pt_regs *ctx) { return PT_REGS_RC(ctx) == 7 ? count_it(0) : 0; }"

    def attach(prog: Program) -> None:
        prog.attach_uretprobe(name=libc, sym="read", fn_name="after")

    return copied(lab, body, attach)


@kind("return from Go")
def go_return(lab: Lab) -> int:
    with lab.load(
        COUNTER + "int after(struct pt_regs *ctx) { seen.increment(0); return 0; }"
    ) as prog:
        prog.attach_go_return(name=GO, sym="main.handle", fn_name="after")
        lab.run([GO, "1", str(TIMES)])
        return counted(prog)


@kind("USDT")
def usdt(lab: Lab) -> int:
    context = lab.usdt(USDT)
    context.enable_probe(probe="step", fn_name="on_step")
    body = "int on_step(struct pt_regs *ctx) { seen.increment(0); return 0; }"
    with lab.load(COUNTER + body, usdt_contexts=[context]) as prog:
        lab.run([USDT, str(TIMES)])
        return counted(prog)


@kind("perf event")
def perf_event(lab: Lab) -> int:
    body = r"""
#ifdef bpf_target_arm64
    struct sample { struct user_pt_regs registers; u64 sample_period, addr; };
#else
    struct sample { struct pt_regs registers; u64 sample_period, addr; };
#endif
    int on_fault(struct sample *ctx) { seen.increment(ctx->addr); return 0; }
    """
    faults = {"ev_type": PerfType.SOFTWARE, "ev_config": PerfSWConfig.PAGE_FAULTS}
    with lab.load(COUNTER + body) as prog:
        prog.attach_perf_event(**faults, fn_name="on_fault", sample_period=1)
        start = json.loads(lab.run(["python3", "-c", PAGES]).stdout)
        at = prog["seen"].frame()["key"]
        return int(((at >= start) & (at < start + TIMES * 4096)).sum())


@pytest.mark.parametrize("name", KINDS)
def test_a_probe_of_each_kind_sees_every_event(lab: Lab, name: str) -> None:
    assert KINDS[name](lab) == TIMES
