"""Chapter 03 on a real kernel, in the VM: what a reader would see, and that it is true."""

from __future__ import annotations

import re

import pytest
from chapters import Chapter, run

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1800)]

SOLUTION = '''my_source = r"""
#include <uapi/linux/ptrace.h>

BPF_HASH(loaded, u32, u64);

int load_ends(struct pt_regs *ctx) {
    u32 pid = bpf_get_current_pid_tgid() >> 32;
    int result = PT_REGS_RC(ctx);
    if (result >= 0)
        loaded.increment(pid);
    return 0;
}
"""'''


@pytest.fixture(scope="module")
def tracepoints() -> Chapter:
    shown = {
        "probe-plot": "calls",
        "three-run": "ours",
        "others": "others",
        "repaired-run": "messages",
    }
    return run("03-tracepoints", show=shown)


def test_no_cell_writes_to_stderr(tracepoints: Chapter) -> None:
    for name, cell in tracepoints.cells.items():
        streams = [output.get("name") for output in cell.get("outputs", [])]
        assert "stderr" not in streams, name


def test_lists_and_formats_are_the_kernels(tracepoints: Chapter) -> None:
    assert int(tracepoints.text("how-many")) > 1000
    assert "'sched:sched_process_exec'" in tracepoints.text("find-process")
    assert "'syscalls:sys_enter_bpf'" in tracepoints.text("find-bpf")
    for line in ("int cmd;\toffset:16;\tsize:8", "union bpf_attr * uattr", "unsigned int size"):
        assert line in tracepoints.text("format")
        assert line.replace("\t", " ") in tracepoints.cells["format-reading"].source
    assert tracepoints.text("commands") == "5"


def test_rows_are_as_many_as_strace_counts(tracepoints: Chapter) -> None:
    calls = tracepoints.frame("probe-plot")
    counted = re.search(r"(\d+)(?: +\d+)? bpf$", tracepoints.text("probe-run"), re.MULTILINE)
    assert counted is not None and len(calls) == int(counted.group(1))
    assert f"{len(calls)} rows" in tracepoints.text("probe-run")
    commands = calls["command"].value_counts()
    programs = commands["PROG_GET_FD_BY_ID"]
    assert commands["PROG_GET_NEXT_ID"] == programs + 1


def test_the_books_tracepoint_is_gone_and_its_repair_works(tracepoints: Chapter) -> None:
    refused = tracepoints.text("void-ctx")
    assert "argument may not have 'void' type" in refused and "trace_bpf_prog_load(void ctx)" in (
        refused
    )
    assert "has no tracepoint 'bpf:bpf_prog_load'" in tracepoints.text("vanished")
    messages = tracepoints.frame("repaired-run")["message"]
    assert list(messages) == ["python3 is loading a BPF program"] * 17
    results = dict(re.findall(r"^(\S+) +(\d+)$", tracepoints.text("results"), re.MULTILINE))
    assert results == {"loaded": "7", "-13": "5", "-22": "3", "-7": "2"}


def test_each_place_sees_what_comes_that_far(tracepoints: Chapter) -> None:
    # Since Linux 6.9 the hook has this name, and comes after the check of the type.
    early = not tracepoints.text("hooks").startswith("('security_bpf_prog_load',")
    seen = tracepoints.frame("three-run")["seen_at"].value_counts()
    at_hook = 7 + 5 + (3 if early else 0)
    assert seen.to_dict() == {
        "system call": 7 + 5 + 3 + 2,
        "function": 7 + 5 + 3,
        "LSM hook": at_hook,
    }
    told = tracepoints.cells["three-reading"].source
    assert all(f"({number})" in told for number in seen)


def test_the_agent_sees_its_own_loads(tracepoints: Chapter) -> None:
    others = tracepoints.frame("others")
    own = others[others["pid"] == int(tracepoints.text("agent"))]
    assert own["seen_at"].value_counts().to_dict() == {"system call": 2, "function": 1}


def test_both_kinds_count_thirteen_starts(tracepoints: Chapter) -> None:
    assert tracepoints.text("raw-run").strip() == "[13, 13] True 13"


def test_each_picture_is_there(tracepoints: Chapter) -> None:
    for cell in ("probe-plot", "three-plot"):
        assert tracepoints.pictures(cell) == 1, cell


def test_failures_that_are_meant_say_what_to_do(tracepoints: Chapter) -> None:
    misspelt = tracepoints.text("misspelt")
    assert "'sched:sched_proces_exec'" in misspelt
    assert "Closest matches: sched:sched_process_exec" in misspelt
    assert "no member named 'command'" in tracepoints.text("misspelt-field")


def test_the_exercises_know_right_from_wrong(tracepoints: Chapter) -> None:
    assert tracepoints.text("exercise-1-check").count("no answer yet") == 3
    assert "not yet" in tracepoints.text("exercise-2-check")
    answer = "forks, execs, exits = 'n', 'n + 1', 'n + 1'"
    needed = ["lab", "loader", "exercise-1", "exercise-1-source", "exercise-1-check"]
    needed += ["exercise-2-answer", "exercise-2-check"]
    answers = {"exercise-1": answer, "exercise-2-answer": SOLUTION}
    solved = run("03-tracepoints", answers, only=needed)
    assert solved.text("exercise-1-check").count("right: ") == 3
    assert "right: " in solved.text("exercise-2-check")


def test_the_solution_is_the_one_that_the_chapter_shows(tracepoints: Chapter) -> None:
    shown = tracepoints.cells["exercise-2-hints"].source
    assert SOLUTION.partition("int load_ends")[2].removesuffix('"""') in shown


def test_closes_its_lab(tracepoints: Chapter) -> None:
    assert "closed" in tracepoints.text("close")
