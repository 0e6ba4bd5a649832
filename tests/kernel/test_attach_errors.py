"""Why a kernel function cannot be probed, in words."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from attached import probes

from ebpflab import Lab, Program
from ebpflab.errors import UnknownEvent

pytestmark = pytest.mark.vm


@pytest.fixture(scope="module")
def prog(lab: Lab) -> Iterator[Program]:
    with lab.load("int trace(struct pt_regs *ctx) { return 0; }") as prog:
        yield prog


def test_a_vanished_function_is_unknown(prog: Program) -> None:
    with pytest.raises(UnknownEvent, match="has no function 'sys_execve_of_old'"):
        prog.attach_kprobe(event="sys_execve_of_old", fn_name="trace")


@pytest.mark.parametrize(
    ("source", "closest"),
    [
        ("TRACEPOINT_PROBE(sched, sched_swich) { return 0; }", "sched:sched_switch"),
        ("int kprobe__vfs_raed(void *ctx) { return 0; }", "vfs_read"),
    ],
)
def test_what_attaches_itself_by_a_misspelt_name(lab: Lab, source: str, closest: str) -> None:
    good = "int kprobe__do_nanosleep(struct pt_regs *ctx) { return 0; }\n"
    before = probes(lab)
    with pytest.raises(UnknownEvent) as caught:
        lab.load(good + source)
    assert closest in caught.value.closest
    after = probes(lab)
    assert after == before, "the function with the good name is not left attached"


def test_discovery(lab: Lab) -> None:
    assert lab.syscall_name("execve") == "__x64_sys_execve"
    with pytest.raises(UnknownEvent, match=r"no system call 'exxecve'.*execve"):
        lab.syscall_name("exxecve")
    assert "vfs_read" in lab.kernel_functions("vfs_*")
    assert "sched:sched_process_exec" in lab.tracepoints("sched:*")
    assert "field:pid_t pid" in lab.tracepoint_format("sched:sched_process_exec")


def test_the_guest_has_every_feature_that_the_chapters_need(lab: Lab) -> None:
    status = lab.features().set_index("feature")["status"]
    needed = [
        "kprobes",
        "uprobes",
        "tracepoints",
        "ring buffer",
        "BTF",
        "tracefs",
        "kernel headers",
    ]
    assert {name: status[name] for name in needed} == dict.fromkeys(needed, "yes")
    assert set(status) == {"yes"}, "the guest lacks nothing"
