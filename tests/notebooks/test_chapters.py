"""Chapters on a real kernel, in the VM: what a reader would see, and that it is true."""

from __future__ import annotations

import re
from typing import Protocol

import pytest

pytestmark = [pytest.mark.vm, pytest.mark.timeout(600)]

ANSWERED = {
    "exercise-1": """my_prediction = lab.run(["/bin/sh", "-c", "echo $PATH"]).stdout.count(":") + 1
prog = lab.load(typed)
prog.attach_kprobe(event=lab.syscall_name("execve"), fn_name="syscall__execve")""",
    "exercise-2-answer": '''my_source = r"""
#include <uapi/linux/ptrace.h>
#include <linux/sched.h>

BPF_HASH(children, u32, u64);

int count_child(struct pt_regs *ctx) {
    struct task_struct *task = (struct task_struct *)bpf_get_current_task();
    u32 ppid = task->real_parent->tgid;
    children.increment(ppid);
    return 0;
}
"""''',
    # What the pictures are drawn from, in a form that a test can read.
    "who-reading": "",
}


class Chapter(Protocol):
    def text(self, cell: str) -> str: ...
    def pictures(self, cell: str) -> int: ...


@pytest.fixture(scope="module")
def first(run_chapter) -> Chapter:  # type: ignore[no-untyped-def]
    return run_chapter("00-check-your-machine", {"exercise-answer": "names, paths = 1, n + 1"})


@pytest.fixture(scope="module")
def kprobes(run_chapter) -> Chapter:  # type: ignore[no-untyped-def]
    return run_chapter("01-kprobes")
