"""Chapter 05 on a real kernel, in the VM: what a reader would see, and that it is true."""

from __future__ import annotations

import json
import re

import pytest
from chapters import Chapter, run

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1800)]

SOLUTION = '''my_source = r"""
#include <uapi/linux/ptrace.h>

BPF_HASH(statuses, u64, u64);

int on_return(struct pt_regs *ctx) {
    u64 status = PT_REGS_RC(ctx);
    statuses.atomic_increment(status);
    return 0;
}
"""'''
NAP_NS = 20_000_000  # of nest


@pytest.fixture(scope="module")
def uretprobes() -> Chapter:
    shown = {
        "naps-run": "calls",
        "naps-plot": "buckets.reset_index(drop=True)",
        "nest-naive": "calls",
        "nest-undeleted": "calls",
        "nest-run": "calls",
        "pairs-plot": "calls",
        "pairs-durations": "buckets.reset_index(drop=True)",
    }
    return run("05-uretprobes", show=shown)


def test_no_cell_writes_to_stderr(uretprobes: Chapter) -> None:
    for name, cell in uretprobes.cells.items():
        streams = [output.get("name") for output in cell.get("outputs", [])]
        assert "stderr" not in streams, name


def trampoline(chapter: Chapter) -> str:
    return re.findall(r"probed: .* (0x[0-9a-f]+)", chapter.text("trampoline-run"))[0]


def test_the_return_address_is_swapped_for_the_trampoline(uretprobes: Chapter) -> None:
    without = re.findall(r"without: .* (0x[0-9a-f]+)", uretprobes.text("trampoline-run"))[0]
    assert int(without, 16) < 1 << 32 < int(trampoline(uretprobes), 16)


def test_no_nap_is_shorter_than_it_was_asked_to_be(uretprobes: Chapter) -> None:
    calls = uretprobes.frame("naps-run")
    assert list(calls["result"]) == [2] * 53 + [40] * 31
    assert (calls["duration_ns"] >= calls["result"] * 1_000_000).all()
    assert uretprobes.frame("naps-plot")["count"].sum() == 53 + 31
    naps, under_way = re.findall(r"(\d+) (?:naps|under)", uretprobes.text("naps-longest"))
    assert int(naps) >= 31 and under_way == "0"


def test_a_recursion_needs_its_depth_in_the_key(uretprobes: Chapter) -> None:
    assert list(uretprobes.frame("nest-naive")["result"]) == [1]
    wrong = uretprobes.frame("nest-undeleted").set_index("result")["duration_ns"]
    # All run from the entry of the innermost call, however late that one has woken up.
    assert list(wrong.index) == [1, 2, 3, 4, 5] and wrong[5] - wrong[1] < 4 * NAP_NS
    calls = uretprobes.frame("nest-run")
    assert list(calls["result"]) == [1, 2, 3, 4, 5] and list(calls["depth"]) == [5, 4, 3, 2, 1]
    assert (calls["duration_ns"] >= calls["result"] * NAP_NS).all()
    assert "0 entries left, 0 depths" in uretprobes.text("nest-run")


def test_the_kernel_notes_sixty_four_returns_of_a_thread(uretprobes: Chapter) -> None:
    told = uretprobes.text("nest-deep")
    assert "101 calls of nest" in told and "64 returns seen, 37 entries left" in told


def test_go_is_refused_with_the_cure_and_dies_when_forced(uretprobes: Chapter) -> None:
    refused = uretprobes.text("go-refused")
    assert "attach_go_return" in refused and "force=True" in refused
    codes = json.loads(uretprobes.text("forced-hello"))
    assert len(codes) == 30 and codes.count(0) > 15 and set(codes) <= {0, 2, -4, -11}
    died = uretprobes.text("forced-deep")
    address = trampoline(uretprobes)
    assert "return code 2\n" in died and "fatal error" in died
    assert f"unexpected return pc for main.deep called from {address}" in died
    killed = uretprobes.text("forced-pause")
    assert re.search(r"return code (2|-4|-11)\nSIGILL: illegal instruction\nPC=", killed)
    counter = int(re.findall(r"PC=(0x[0-9a-f]+)", killed)[0], 16)
    assert 0 <= counter - int(address, 16) < 4096


def test_it_lives_when_the_ways_out_are_probed(uretprobes: Chapter) -> None:
    assert uretprobes.text("cure-deep").startswith("return code 0 |")
    assert uretprobes.text("cure-code").count("RET") >= 2


def test_every_call_is_paired_by_goroutine_and_not_by_thread(uretprobes: Chapter) -> None:
    told = uretprobes.text("pairs-run")
    assert "return code 0; 1600 returns by 8" in told
    assert "by goroutine: 1600 right, each request once: True" in told
    assert int(re.findall(r"by thread: (\d+) right", told)[0]) < 1600
    calls = uretprobes.frame("pairs-plot")
    assert sorted(calls["request"]) == sorted(8 * list(range(200)))
    assert (calls["slept"] == "slept").sum() == 8 * sum(
        r % 10 == 3 and r % 7 != 0 for r in range(200)
    )
    wrong = calls["found_by_thread"] != calls["goroutine"]
    assert (calls.loc[wrong, "slept"] == "slept").mean() > 0.5
    assert uretprobes.frame("pairs-durations")["count"].sum() == 1600
    assert "1600 calls; 0 under way" in uretprobes.text("pairs-durations")
    fast, slow = re.findall(r"(?:did not|slept) +([\d.]+)", uretprobes.text("pairs-medians"))
    assert float(fast) < float(slow)


def test_a_panic_is_no_return(uretprobes: Chapter) -> None:
    told = uretprobes.text("unseen-run")
    assert "15 panics" in told and "86 returns" in told


def test_each_refusal_says_why(uretprobes: Chapter) -> None:
    reasons = ("no return instruction", "the compiler inlined it", "was stripped", "not a Go")
    told = [line for line in uretprobes.text("refused").splitlines() if line]
    for line, reason in zip(told, reasons, strict=True):
        assert reason in line


def test_the_books_format_cuts_off_the_upper_half(uretprobes: Chapter) -> None:
    told = uretprobes.text("book-run")
    assert "Function call duration: " in told and "1 entry left" in told
    printed, whole = map(int, re.findall(r"(\d+) ms", told))
    assert whole >= 4500 and whole - printed in (4294, 4295)


def test_each_picture_is_there(uretprobes: Chapter) -> None:
    for cell in ("naps-plot", "pairs-plot", "pairs-durations"):
        assert uretprobes.pictures(cell) == 1, cell


def test_the_exercises_know_right_from_wrong(uretprobes: Chapter) -> None:
    assert uretprobes.text("exercise-1-check").count("no answer yet") == 2
    assert "not yet: " in uretprobes.text("exercise-2-check")
    needed = ["lab", "go-targets", "runtime", "pairs-source", "exercise-1"]
    needed += [f"exercise-{cell}" for cell in ("1-answer", "1-check", "2-answer", "2-check")]
    answers = {
        "exercise-1-answer": "handle, deep = workers * requests, workers * (depth + 1)",
        "exercise-2-answer": SOLUTION,
    }
    solved = run("05-uretprobes", answers, only=needed)
    assert solved.text("exercise-1-check").count("right: ") == 2
    assert "right: " in solved.text("exercise-2-check")


def test_the_solution_is_the_one_that_the_chapter_shows(uretprobes: Chapter) -> None:
    shown = uretprobes.cells["exercise-2-hints"].source
    assert SOLUTION.partition("int on_return")[2].removesuffix('"""') in shown


def test_closes_its_lab(uretprobes: Chapter) -> None:
    assert "closed" in uretprobes.text("close")
