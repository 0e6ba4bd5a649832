"""Chapter 02 on a real kernel, in the VM: what a reader would see, and that it is true."""

from __future__ import annotations

import re

import pytest
from chapters import Chapter, run

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1800)]

SOLUTION = '''my_source = r"""
#include <uapi/linux/ptrace.h>

BPF_HASH(errors, int, u64);

int open_ends(struct pt_regs *ctx) {
    int result = PT_REGS_RC(ctx);
    if (result < 0)
        errors.increment(result);
    return 0;
}
"""'''


@pytest.fixture(scope="module")
def kretprobes() -> Chapter:
    shown = {
        "book-run": "messages",
        "book-fails": "messages",
        "errors-table": "execs[execs['pid'] == python.pid]",
        "search-run": "execs",
        "latency-run": "buckets.reset_index(drop=True)",
        "late-run": "messages.tail(3)",
        "book-repaired": "messages",
    }
    return run("02-kretprobes", show=shown)


def test_no_cell_writes_to_stderr(kretprobes: Chapter) -> None:
    for name, cell in kretprobes.cells.items():
        streams = [output.get("name") for output in cell.get("outputs", [])]
        assert "stderr" not in streams, name


def test_a_successful_start_returns_under_its_new_name(kretprobes: Chapter) -> None:
    messages = list(kretprobes.frame("book-run")["message"])
    assert messages == [f"program {name}, result 0" for name in ("sh", "ls", "date")]


def test_a_failed_start_returns_under_its_callers_name(kretprobes: Chapter) -> None:
    messages = list(kretprobes.frame("book-fails")["message"])
    assert messages[0] == "program env, result 0"
    assert len(messages) > 1 and set(messages[1:]) == {"program env, result -2"}
    assert "'ENOENT'" in kretprobes.text("errorcode")


def test_each_way_not_to_start_has_its_error(kretprobes: Chapter) -> None:
    execs = kretprobes.frame("errors-table")
    assert list(execs["error"]) == ["none", "ENOENT", "EACCES", "ENOTDIR", "ENOEXEC", "E2BIG"]
    assert list(execs["result"]) == [0, -2, -13, -20, -8, -7]
    assert (execs["latency_ns"] > 0).all() and set(execs["comm"]) == {"python3"}
    told = kretprobes.cells["errors-reading"].source
    for error, number in zip(execs["error"][1:], -execs["result"][1:], strict=True):
        assert f"| `{error}` | {number} |" in told


def test_rows_are_as_many_as_attempts(kretprobes: Chapter) -> None:
    execs = kretprobes.frame("search-run")
    files = re.findall(r"^\d+ (/etc/\S+)$", kretprobes.text("search-run"), re.MULTILINE)
    wc = execs[execs["filename"].str.endswith("/wc")]
    assert len(files) >= 3 and len(execs) == 1 + len(wc)
    assert list(wc["error"]).count("none") == len(files)
    assert len(wc) % len(files) == 0 and set(wc["error"]) == {"none", "ENOENT"}
    failed, started = re.findall(r"(?:ENOENT|none) +([\d.]+)", kretprobes.text("search-latency"))
    assert float(failed) < float(started)
    assert "0 calls under way" in kretprobes.text("calls-empty")


def test_the_histogram_holds_each_read_of_ours_and_no_other(kretprobes: Chapter) -> None:
    assert kretprobes.frame("latency-run")["count"].sum() == 503 + 307
    assert "810 reads in all" in kretprobes.text("latency-longest")


def test_each_picture_is_there(kretprobes: Chapter) -> None:
    for cell in ("search-plot", "latency-run"):
        assert kretprobes.pictures(cell) == 1, cell


def test_seen_and_missed_returns_are_all_there_are(kretprobes: Chapter) -> None:
    entries, returns = re.findall(r"(\d+) (?:entries|returns)", kretprobes.text("missed-run"))
    assert int(entries) == 23 and int(returns) < 23
    assert "kprobe_profile: ''" in kretprobes.text("missed-run")
    for cell, seen in [("missed-five", 5), ("missed-cured", 23)]:
        assert f"{seen} returns seen" in kretprobes.text(cell)
        hits, misses = re.findall(r"bcc_\d+ +(\d+) +(\d+)", kretprobes.text(cell))[0]
        assert (int(hits), int(misses)) == (seen, 23 - seen)


def test_an_argument_at_the_return_is_not_the_callers(kretprobes: Chapter) -> None:
    for message in kretprobes.frame("late-run")["message"]:
        assert message.endswith("got 4093") and not message.startswith("asked for 4093,")


def test_failures_that_are_meant_say_what_to_do(kretprobes: Chapter) -> None:
    assert "The BPF stack is 512 bytes" in kretprobes.text("too-big")
    bare = kretprobes.text("book-bare")
    assert "incomplete definition of type 'struct pt_regs'" in bare and "PT_REGS_RC" in bare
    assert list(kretprobes.frame("book-repaired")["message"]) == ["program true, result 0"]


def test_the_exercises_know_right_from_wrong(kretprobes: Chapter) -> None:
    assert kretprobes.text("exercise-1-check").count("no answer yet") == 2
    assert "not yet" in kretprobes.text("exercise-2-check")
    needed = ["lab", "pair-source", "pair-attach", "errorcode", "exercise-1"]
    needed += [f"exercise-{cell}" for cell in ("1-answer", "1-check", "2-answer", "2-check")]
    needed += ["exercise-2-check-successes"]
    answers = {"exercise-1-answer": "rows, failures = n + 2, n", "exercise-2-answer": SOLUTION}
    solved = run("02-kretprobes", answers, only=needed)
    assert solved.text("exercise-1-check").count("right: ") == 2
    assert "right: " in solved.text("exercise-2-check")
    assert "right: " in solved.text("exercise-2-check-successes")


def test_the_solution_is_the_one_that_the_chapter_shows(kretprobes: Chapter) -> None:
    shown = kretprobes.cells["exercise-2-hints"].source
    assert SOLUTION.partition("int open_ends")[2].removesuffix('"""') in shown


def test_closes_its_lab(kretprobes: Chapter) -> None:
    assert "closed" in kretprobes.text("close")
