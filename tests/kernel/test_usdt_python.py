"""Probes that nobody wrote for us: the garbage collector of Debian's python3 tells when it runs."""

from __future__ import annotations

import pytest

from ebpflab import Lab

pytestmark = pytest.mark.vm

COLLECT = """
import gc, os, signal, sys
gc.disable()
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
open(sys.argv[1], "x").close()
signal.sigwait([signal.SIGUSR1])
for n in range(13):
    gc.collect(n % 3)
os._exit(0)
"""
STARTS = r"""
#include <uapi/linux/ptrace.h>
struct start { s64 generation; u32 pid; };
BPF_RINGBUF_OUTPUT(starts, 8);
int on_start(struct pt_regs *ctx) {
  struct start start = {.pid = bpf_get_current_pid_tgid() >> 32};
  bpf_usdt_readarg(1, ctx, &start.generation);
  starts.ringbuf_output(&start, sizeof(start), 0);
  return 0;
}
"""


@pytest.mark.parametrize("pid", [None, True], ids=["by path", "by pid"])
def test_every_garbage_collection_of_python_is_a_row(lab: Lab, pid: bool | None) -> None:
    ready = lab.run(["mktemp", "--dry-run"]).stdout.strip()
    workload = lab.start(["/usr/bin/python3", "-c", COLLECT, ready])
    while lab.run(["rm", ready]).returncode != 0:
        pass  # Python is still starting, and the signal would end it
    usdt = lab.usdt("/usr/bin/python3", pid=pid and workload.pid)
    usdt.enable_probe(probe="python:gc__start", fn_name="on_start")
    with lab.load(STARTS, usdt_contexts=[usdt]) as prog:
        lab.run(["kill", "-USR1", str(workload.pid)])
        assert workload.wait().returncode == 0
        frame = prog["starts"].frame()
    # By path, other programs in Python are seen as well.
    frame = frame[frame["pid"] == workload.pid]
    assert list(frame["generation"]) == [n % 3 for n in range(13)]
