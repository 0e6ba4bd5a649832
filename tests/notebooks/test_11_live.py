"""Chapter 11 on a real kernel, in the VM, without a browser: what is counted, and what stays."""

from __future__ import annotations

import pytest
from chapters import Chapter, run

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1800)]

VIEW = "application/vnd.jupyter.widget-view+json"
BOARD = """
my_latency = prog["latency"].live(unit="ns")
my_sizes = prog["by_size"].live()
my_calls = prog["calls"].live()
my_board = widgets.VBox([my_latency, my_sizes, my_calls])
for piece in (my_sizes, my_calls):
    widgets.link((my_latency.window, "value"), (piece.window, "value"))
"""


@pytest.fixture(scope="module")
def live() -> Chapter:
    return run("11-live", show={"sizes": "rows"})


def test_no_cell_writes_to_stderr(live: Chapter) -> None:
    for name, cell in live.cells.items():
        streams = [output.get("name") for output in cell.get("outputs", [])]
        assert "stderr" not in streams, name


def test_the_view_leaves_the_rows_to_collect(live: Chapter) -> None:
    rows = live.frame("sizes")
    assert set(rows["size_bytes"]) == {100, 4096, 262144} and (rows["latency_ns"] > 0).all()
    assert f"({len(rows)}, 0)" in live.text("collect")


def test_stop_detaches_and_start_attaches(live: Chapter) -> None:
    assert live.text("link").strip() == "(10, 10)"
    assert live.text("stop").strip() == "[]"
    assert live.text("source").endswith(live.text("start"))
    assert live.text("start").count("tracepoint syscalls:sys_e") == 2


def test_a_picture_of_each_view_stays_where_it_was_made(live: Chapter) -> None:
    for cell, pictures in {"calls": 1, "tables": 2, "exercise-1-check": 1}.items():
        assert live.pictures(cell) == pictures, cell
        assert VIEW not in str(live.cells[cell].outputs), "a view that no kernel is behind any more"
    assert "events, 0 lost" in live.text("calls")


def test_failures_that_are_meant_say_what_to_do(live: Chapter) -> None:
    assert "Closest matches: latency_ns" in live.text("misspelt")
    assert "its program is closed" in live.text("closed")


def test_the_exercises_know_right_from_wrong(live: Chapter) -> None:
    assert "no answer yet" in live.text("exercise-1-check")
    assert "; not yet" in live.text("exercise-2-check")
    given = live.cells["exercise-1"].source
    answers = {
        "lab": "import ipywidgets as widgets\nfrom ebpflab import Lab\nlab = Lab()",
        "exercise-1": given.replace("my_prediction = None", "my_prediction = 7 * rounds"),
        "exercise-2-answer": BOARD,
    }
    needed = ["workload-start", "source", *answers, "exercise-1-check", "exercise-2-check"]
    solved = run("11-live", answers, only=needed)
    assert "right: " in solved.text("exercise-1-check")
    assert "; right" in solved.text("exercise-2-check")


def test_closes_its_lab(live: Chapter) -> None:
    assert "closed" in live.text("close")
