"""Chapter 09 on a real kernel, in the VM: what a reader would see, and that it is true."""

from __future__ import annotations

import re

import pytest
from chapters import Chapter, run

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1800)]

READS = 4001 + 503 + 2003
SOLUTION = '''my_source = r"""
struct writer {
    char comm[16];
    u64 slot;
};
BPF_HISTOGRAM(size_bytes, struct writer, 4096);

TRACEPOINT_PROBE(syscalls, sys_enter_write) {
    struct writer writer = {};
    bpf_get_current_comm(&writer.comm, sizeof(writer.comm));
    writer.slot = bpf_log2l(args->count);
    size_bytes.increment(writer);
    return 0;
}
"""'''
PICTURES = (
    *("ship-plot", "sum-run", "heatmap-raw", "grid-run", "linked", "book-plot", "disk-run"),
    *("disk-latency", "calls-run", "sched-run", "timeline", "timeline-cpus"),
)


@pytest.fixture(scope="module")
def histograms() -> Chapter:
    shown = {
        "costs": "costs.reset_index()",
        "disk-run": "pages.reset_index(drop=True)",
        "calls-totals": 'by_call.groupby(level="number")["count"].sum().reset_index()',
    }
    return run("09-histograms", show=shown)


def test_no_cell_writes_to_stderr(histograms: Chapter) -> None:
    for name, cell in histograms.cells.items():
        streams = [output.get("name") for output in cell.get("outputs", [])]
        assert "stderr" not in streams, name


def test_three_ways_count_the_same_reads(histograms: Chapter) -> None:
    assert f"{READS} rows shipped; {READS} reads in the buckets" in histograms.text("sum-total")
    assert f"cells hold {READS} reads" in histograms.text("grid-total")
    assert f"4001 + 503 + 2003 = {READS}" in histograms.cells["sum-reading"].source


def test_costs_are_the_kernels_and_arithmetic(histograms: Chapter) -> None:
    costs = histograms.frame("costs").set_index("function")
    assert list(costs.index) == ["ship", "sum", "grid"]
    assert (costs["hits"] >= READS).all() and (costs["ns_per_hit"] > 0).all()
    assert costs.loc["ship", "bytes"] == 16 * READS and costs.loc["sum", "bytes"] == 768
    assert costs.loc["grid", "bytes"] < costs.loc["ship", "bytes"]


def test_the_books_faults_are_told_and_its_loads_counted(histograms: Chapter) -> None:
    assert "argument may not have 'void' type" in histograms.text("book-fails")
    assert "msecs" in histograms.text("book-run").splitlines()[0]
    counts = re.findall(r"\d+ -> \d+ +: (\d+)", histograms.text("book-run"))
    assert sum(map(int, counts)) == 53
    assert histograms.text("book-total").strip() == "53 loads; 0 entries left in the cache"
    # "minutes, if not hours": read as milliseconds, each takes a second and more.
    lines = re.findall(r"(\d+) -> \d+ +: [1-9]", histograms.text("book-run"))
    assert min(map(int, lines)) >= 1000


def test_requests_to_the_disk_are_those_of_dd(histograms: Chapter) -> None:
    counts = list(histograms.frame("disk-run")["count"])
    assert counts == [0, 47, 0, 0, 29]
    told = "in the histogram: 76, then 76; requests counted: 76, then 78"
    assert told in histograms.text("overflow")


def test_each_system_call_has_its_own_histogram(histograms: Chapter) -> None:
    totals = histograms.frame("calls-totals").set_index("number")["count"]
    assert totals["write"] == 307 and totals["fsync"] == 1 and totals["read"] > 307


def test_waits_counted_are_turns_shipped(histograms: Chapter) -> None:
    waits, turns, lost = map(int, re.findall(r"\d+", histograms.text("sched-total")))
    assert waits == turns + lost and lost == 0 and turns > 53


def test_each_picture_is_there_and_tells_itself_in_words(histograms: Chapter) -> None:
    for cell in PICTURES:
        assert histograms.pictures(cell) == 1, cell
        page = "".join(
            o.get("data", {}).get("text/html", "") for o in histograms.cells[cell].outputs
        )
        words = re.search(r' alt="([^"]+)"', page)
        assert words is not None and len(words[1]) > 40, cell
        assert page.count("<title>") >= 1, cell
    assert f"of the {READS:,} reads" in str(histograms.cells["ship-plot"].outputs)
    assert "4 lanes (tid)" in str(histograms.cells["timeline"].outputs)


def test_failures_that_are_meant_say_what_to_do(histograms: Chapter) -> None:
    refused = histograms.text("float")
    assert "cannot translate the function sum" in refused and "__floatundidf" in refused


def test_the_exercises_know_right_from_wrong(histograms: Chapter) -> None:
    assert "no answer yet" in histograms.text("exercise-1-check")
    assert "not yet: " in histograms.text("exercise-2-check")
    answers = {
        "exercise-1-answer": "low = 1 << size.bit_length() - 1\nhigh = 2 * low",
        "exercise-2-answer": SOLUTION,
    }
    needed = ["lab", "exercise-1", *answers, "exercise-1-check", "exercise-2-check"]
    solved = run("09-histograms", answers, only=needed)
    assert "right: " in solved.text("exercise-1-check")
    assert "right: " in solved.text("exercise-2-check")


def test_the_solution_is_the_one_that_the_chapter_shows(histograms: Chapter) -> None:
    shown = histograms.cells["exercise-2-hints"].source
    assert SOLUTION.partition("TRACEPOINT_PROBE")[2].removesuffix('"""') in shown


def test_closes_its_lab(histograms: Chapter) -> None:
    assert "closed" in histograms.text("close")
