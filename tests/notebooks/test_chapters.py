"""Chapters on a real kernel, in the VM: what a reader would see, and that it is true."""

from __future__ import annotations

import re

import pandas as pd
import pytest
from chapters import Chapter, run

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1800)]

SOLUTION = '''my_source = r"""
#include <uapi/linux/ptrace.h>
#include <linux/sched.h>

BPF_HASH(children, u32, u64);

int count_child(struct pt_regs *ctx) {
    struct task_struct *task = (struct task_struct *)bpf_get_current_task();
    u32 ppid = task->real_parent->tgid;
    children.increment(ppid);
    return 0;
}
"""'''


@pytest.fixture(scope="module")
def check() -> Chapter:
    return run("00-check-your-machine", show={"features": "features"})


@pytest.fixture(scope="module")
def kprobes() -> Chapter:
    shown = ("book-run", "one-start", "bigger-table", "empty-rows", "succeeded-run", "wrapper-run")
    names = {
        cell: "messages" if cell in ("book-run", "wrapper-run") else "starts" for cell in shown
    }
    return run("01-kprobes", show=names)


def test_no_cell_writes_to_stderr(check: Chapter, kprobes: Chapter) -> None:
    for chapter in (check, kprobes):
        for name, cell in chapter.cells.items():
            streams = [output.get("name") for output in cell.get("outputs", [])]
            assert "stderr" not in streams, name


# -- 00 ------------------------------------------------------------------------------------------


def test_00_explains_each_row_that_the_machine_shows(check: Chapter) -> None:
    features = check.frame("features")
    explained = check.cells["features-rows"].source
    for feature in features["feature"]:
        assert feature in explained
    needed = features[features["feature"].isin(["kprobes", "BCC", "kernel headers", "ring buffer"])]
    assert list(needed["status"]) == ["yes"] * 4


def test_00_counts_thirteen_starts_and_none_after_detaching(check: Chapter) -> None:
    assert check.text("count").split()[-1] == "13"
    assert check.text("detach").split()[-1] == "13"
    (traced,) = re.findall(r"the traced kernel: +(\S+)", check.text("which-kernel"))
    assert f"Linux {traced}" in check.text("run")


def test_00_the_exercises_know_right_from_wrong(check: Chapter) -> None:
    assert check.text("exercise-1-check").count("no answer yet") == 2
    assert "when the shell begins?" in check.text("exercise-2-check")
    needed = ["lab", "source", "load", "exercise-1-setup"]
    needed += [f"exercise-{cell}" for cell in ("1-answer", "1-check", "2-answer", "2-check")]
    for answer, call, verdict in [
        ("1, 'n + 1'", "chdir", "right: "),
        ("'n', 'n'", "execveat", "not yet: "),
    ]:
        changed = {
            "exercise-1-answer": f"names, paths = {answer}",
            "exercise-2-answer": f'my_event = lab.syscall_name("{call}")',
        }
        answered = run("00-check-your-machine", changed, only=needed)
        assert answered.text("exercise-1-check").count(verdict) == 2
        assert verdict in answered.text("exercise-2-check")


def test_00_closes_its_lab(check: Chapter) -> None:
    assert "closed" in check.text("close")


# -- 01 ------------------------------------------------------------------------------------------


def test_01_messages_show_the_callers_name_and_every_field(kprobes: Chapter) -> None:
    messages = kprobes.frame("book-run")
    assert list(messages["message"].str.removeprefix("executing program: ")) == [
        "python3",
        "sh",
        "sh",
    ]
    assert list(messages) == ["task", "tid", "cpu", "flags", "time_s", "function", "message"]
    assert messages["flags"].str.fullmatch(r"[.dbBX][.NnpPlLb][.HhsZz]\S\S").all()
    assert set(messages["function"]) == {"bpf_trace_printk"}
    for column in messages:
        assert f"| `{column}` |" in kprobes.cells["fields"].source
    assert messages["flags"].iloc[0][3:] != ".."  # as the text says of places 4 and 5


def test_01_one_command_is_one_row_with_its_pid_and_arguments(kprobes: Chapter) -> None:
    starts = kprobes.frame("one-start")
    assert len(starts) == 1
    row = starts.iloc[0]
    assert (row["comm"], row["filename"], row["arg1"], row["arg2"]) == (
        "python3",
        "/bin/ls",
        "-l",
        "/",
    )
    said, seen = re.findall(r": +(\d+)", kprobes.text("one-start-pid"))
    assert int(said) == int(seen) == row["pid"]
    assert "'lost': 0" in kprobes.text("attrs")


def test_01_times_are_now(kprobes: Chapter) -> None:
    shown = re.search(r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d\.\d+\+00:00", kprobes.text("wall-time"))
    assert shown is not None
    assert abs(pd.Timestamp.now(tz="UTC") - pd.Timestamp(shown.group())) < pd.Timedelta(minutes=30)


def test_01_rows_are_as_many_as_attempts(kprobes: Chapter) -> None:
    starts = kprobes.frame("bigger-table")
    files = re.findall(r"^\d+ (/etc/\S+)$", kprobes.text("bigger-run"), re.MULTILINE)
    path = re.findall(r"'([^']+)'", kprobes.text("exercise-path"))
    directories = path.index("/usr/bin") + 1  # up to where it is found; Debian 12 has more
    wc = starts[starts["filename"].str.endswith("/wc")]
    assert len(files) >= 3 and len(wc) == len(files) * directories
    assert sorted(set(wc["arg2"])) == sorted(files)
    assert len(starts) == len(wc) + len(["sh", "ls", "sort", "head", "find", "date"])
    shell = starts.iloc[0]
    find = starts[starts["filename"] == "/usr/bin/find"].iloc[0]
    assert set(wc["ppid"]) == {find["pid"]} and find["ppid"] == shell["pid"]
    assert wc["pid"].nunique() == len(files)


def test_01_a_page_that_is_not_there_reads_as_nothing(kprobes: Chapter) -> None:
    assert list(kprobes.frame("empty-rows")["filename"]) == ["/usr/bin/python3", ""]
    assert kprobes.text("empty-run").strip() == "0"


def test_01_what_really_started_has_names_and_no_failures(kprobes: Chapter) -> None:
    started = kprobes.frame("succeeded-run")
    files = re.findall(r"^\d+ (/etc/\S+)$", kprobes.text("bigger-run"), re.MULTILINE)
    names = started["filename"].value_counts()
    assert names["/bin/true"] == 1 and names["/usr/bin/wc"] == len(files)
    assert len(started) == 2 + 6 + len(files)


def test_01_each_picture_is_there(kprobes: Chapter) -> None:
    for cell in ("who", "what", "tree", "succeeded-run"):
        assert kprobes.pictures(cell) == 1, cell


def test_01_failures_that_are_meant_say_what_to_do(kprobes: Chapter) -> None:
    assert re.search(
        "'__x64_sys_exceve'.* Closest matches: __x64_sys_execve,", kprobes.text("misspelt")
    )
    assert "Closest matches: __x64_sys_execve" in kprobes.text("old-name")
    assert "__x64_sys_execve" in kprobes.text("search")
    refused = kprobes.text("refused")
    assert "R0 invalid mem access 'map_value_or_null'" in refused
    assert "7 |     (*count)++;" in refused and "may be NULL" in refused


def test_01_a_function_without_syscall_in_its_name_sees_no_file_name(kprobes: Chapter) -> None:
    messages = kprobes.frame("wrapper-run")["message"]
    assert sorted(messages) == ["plain:   ''", "syscall: '/bin/true'"]


def test_01_the_exercises_know_right_from_wrong(kprobes: Chapter) -> None:
    assert "no answer yet" in kprobes.text("exercise-1-check")
    assert "not yet" in kprobes.text("exercise-2-check")
    prediction = kprobes.cells["exercise-1"].source.replace(
        "= None", "= path.split(':').index('/usr/bin') + 1"
    )
    needed = ["lab", "typed-source", "exercise-path", "exercise-1", "exercise-1-check"]
    needed += ["exercise-2-answer", "exercise-2-check"]
    answers = {"exercise-1": prediction, "exercise-2-answer": SOLUTION}
    solved = run("01-kprobes", answers, only=needed)
    assert "right: " in solved.text("exercise-1-check")
    assert "right: " in solved.text("exercise-2-check")


def test_01_the_solution_is_the_one_that_the_chapter_shows(kprobes: Chapter) -> None:
    shown = kprobes.cells["exercise-2-hints"].source
    assert SOLUTION.partition("int count_child")[2].removesuffix('"""') in shown
