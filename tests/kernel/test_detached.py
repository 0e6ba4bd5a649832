"""What is closed leaves nothing in the kernel."""

from __future__ import annotations

import pytest

from ebpflab import Lab

pytestmark = pytest.mark.vm

RETURNS = """
BPF_ARRAY(seen, u64, 1);
int ends(struct pt_regs *ctx) { seen.increment(0); return 0; }
"""
HOOK = """
BPF_ARRAY(asked, u64, 1);
LSM_PROBE(bpf_prog_load, void *prog, void *attr, void *token) { asked.increment(0); return 0; }
"""


def test_a_kretprobe_with_maxactive_can_be_attached_again(lab: Lab) -> None:
    for maxactive in (3, 5):
        with lab.load(RETURNS) as prog:
            event = lab.syscall_name("sethostname")
            prog.attach_kretprobe(event=event, fn_name="ends", maxactive=maxactive)
            for _ in range(7):
                lab.run(["/usr/bin/python3", "-c", "import socket as s; s.sethostname('guest')"])
            assert list(prog["seen"].frame()["value"]) == [7]
        assert lab.run(["cat", "/sys/kernel/tracing/kprobe_events"]).stdout == ""


def test_an_lsm_probe_is_gone_after_close(lab: Lab) -> None:
    before = lab.run(["/usr/sbin/bpftool", "link", "list"]).stdout
    for text in ("int a(void *ctx) { return 0; }", "int b(void *ctx) { return 0; }"):
        with lab.load(HOOK) as hook, lab.load(text) as prog:
            prog.attach_kprobe(event="bpf_prog_load", fn_name=prog.functions[0])
            assert list(hook["asked"].frame()["value"]) == [1]
        assert lab.run(["/usr/sbin/bpftool", "link", "list"]).stdout == before


def test_what_attaches_itself_is_attached_again(lab: Lab) -> None:
    source = """
    BPF_ARRAY(started, u64, 1);
    TRACEPOINT_PROBE(sched, sched_process_exec) { started.increment(0); return 0; }
    """
    with lab.load(source) as prog:
        attached = prog.attached
        prog.detach()
        for _ in range(3):
            lab.run(["/bin/true"])
        prog.attach_again()
        assert prog.attached == attached
        for _ in range(7):
            lab.run(["/bin/true"])
        assert list(prog["started"].frame()["value"]) == [7]
