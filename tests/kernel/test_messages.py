"""trace_pipe as the kernel prints it: a line feed in a text loses no row."""

from __future__ import annotations

import pytest

from ebpflab import Lab

pytestmark = pytest.mark.vm

SOURCE = r"""
#include <uapi/linux/ptrace.h>
int on_getppid(struct pt_regs *ctx) {
    char name[16];
    bpf_get_current_comm(name, sizeof(name));
    if (name[0] != 'e' || name[1] != 'l') return 0;
    bpf_trace_printk("first\nsecond of %d\n", 2);
    bpf_trace_printk("third\n");
    return 0;
}
"""
# prctl(PR_SET_NAME): a name with a line feed in it, as any process may give itself. Of a process
# that has ended so soon the kernel prints <...> instead.
WORK = """
import ctypes, os
ctypes.CDLL(None).prctl(15, b"el\\nname", 0, 0, 0)
os.getppid()
"""


def test_a_line_feed_loses_no_row(lab: Lab) -> None:
    with lab.load(SOURCE) as prog:
        prog.attach_kprobe(event=lab.syscall_name("getppid"), fn_name="on_getppid")
        done = lab.run(["/usr/bin/python3", "-c", WORK])
        frame = prog.messages.collect(seconds=20, rows=2)
    frame = frame[frame["tid"] == done.pid]
    assert frame["message"].to_list() == ["first\nsecond of 2", "third"]
