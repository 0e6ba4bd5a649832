"""Chapter 08 on a real kernel, in the VM: what a reader would see, and that it is true."""

from __future__ import annotations

import re

import pytest
from chapters import Chapter, run

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1800)]

SOLUTION = '''my_source = r"""
struct end {
    u32 pid;
    char comm[16];
};
BPF_RINGBUF_OUTPUT(ends, 16);

TRACEPOINT_PROBE(sched, sched_process_exit) {
    struct end end = {};
    end.pid = bpf_get_current_pid_tgid() >> 32;
    bpf_get_current_comm(&end.comm, sizeof(end.comm));
    ends.ringbuf_output(&end, sizeof(end), 0);
    return 0;
}
"""'''


@pytest.fixture(scope="module")
def perf() -> Chapter:
    return run("08-perf-events", show={"book-run": "events", "typed-run": "execs"})


def test_no_cell_writes_to_stderr(perf: Chapter) -> None:
    for name, cell in perf.cells.items():
        streams = [output.get("name") for output in cell.get("outputs", [])]
        assert "stderr" not in streams, name


def test_the_books_program_does_not_compile_and_its_repair_counts_callers(perf: Chapter) -> None:
    assert "'void' must be the first and only parameter" in perf.text("book-source")
    comms = perf.frame("book-run")["comm"].value_counts().to_dict()
    assert comms == {"sh": 5, "python3": 1}


def test_an_array_of_ctypes_is_no_key(perf: Chapter) -> None:
    assert "unhashable type" in perf.text("ctypes")
    assert "Counter()" in perf.text("ctypes")


def test_every_start_is_a_typed_row(perf: Chapter) -> None:
    names = perf.frame("typed-run")["filename"].value_counts().to_dict()
    assert names == {"/bin/ls": 3, "/bin/date": 2, "/bin/sh": 1}
    assert "cpu" in perf.text("typed-types") and "uint64" in perf.text("typed-types")
    assert perf.pictures("typed-plot") == 1


def test_both_buffers_have_the_same_thirty_events(perf: Chapter) -> None:
    assert perf.text("both-run").strip() == "(30, 30, {'cpu'})"
    assert re.search(r"the same events: +True", perf.text("both-order"))


def test_what_is_lost_is_counted_exactly(perf: Chapter) -> None:
    told = perf.text("burst-run")
    numbers = {name: int(value) for name, value in re.findall(r"^(\w+) +(\d+)$", told, re.M)}
    assert numbers["produced"] == 6900 == numbers["delivered"] + numbers["lost"]
    assert "delivered + lost: 6900" in told and f"{numbers['lost']:,} events were lost" in told
    # The agent's threads stop one after the other, and one may empty the ring in between. An event
    # is refused by a full ring alone, and the first 56 found it empty.
    assert 56 <= numbers["delivered"] < 6900
    first, last = map(int, re.findall(r"\d+", perf.text("burst-which")))
    assert first == 0 and 55 <= last < 300
    assert last == 55 or numbers["delivered"] > 56
    assert "delivered 6900 lost 0" in perf.text("cure-run")


def test_the_stack_is_too_small_and_the_ring_is_not(perf: Chapter) -> None:
    assert "stack" in perf.text("stack")
    assert "/bin/ls" in perf.text("reserve")


def test_the_exercises_know_right_from_wrong(perf: Chapter) -> None:
    assert "no answer yet" in perf.text("exercise-1-check")
    assert "not yet: " in perf.text("exercise-2-check")
    predict = "import random\n\npages = 4\nmy_prediction = (pages * 4096 - 1) // 72"
    needed = ["lab", "burst-source", "exercise-1-answer", "exercise-1-check"]
    needed += ["exercise-2-answer", "exercise-2-check", "exercise-2-check-pids"]
    answers = {"exercise-1-answer": predict, "exercise-2-answer": SOLUTION}
    solved = run("08-perf-events", answers, {"exercise-1-check": "records"}, needed)
    # As above: more may arrive than fit into the ring, and then no prediction is right.
    arrived, fit = len(solved.frame("exercise-1-check")), (4 * 4096 - 1) // 72
    assert arrived >= fit
    assert ("right: " in solved.text("exercise-1-check")) == (arrived == fit)
    assert "right: " in solved.text("exercise-2-check")
    assert "right: " in solved.text("exercise-2-check-pids")


def test_the_solution_is_the_one_that_the_chapter_shows(perf: Chapter) -> None:
    shown = perf.cells["exercise-2-hints"].source
    assert SOLUTION.partition("TRACEPOINT_PROBE")[2].removesuffix('"""') in shown


def test_closes_its_lab(perf: Chapter) -> None:
    assert "closed" in perf.text("close")
