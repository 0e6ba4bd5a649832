"""Heatmaps and timelines: every event in its cell, every span in its lane, nothing lost unsaid."""

from __future__ import annotations

import matplotlib

matplotlib.use("Agg")

from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection, QuadMesh

from ebpflab import plots
from ebpflab.errors import PlotError, UnknownName
from ebpflab.plots.picture import Picture

START = 1_700_000_000_000_000_000  # since 1970: no float holds such nanoseconds
EVENTS = pd.DataFrame(
    {
        "time_ns": np.array([0, 1, 500, 999, 2_000], "u8") * 1_000_000 + START,
        "latency_ns": np.array([0, 1, 1500, 1700, 1 << 40], "u8"),
    }
)
RUNS = pd.DataFrame(
    [
        (0, 400, 0, "dd"),
        (100, 300, 1, "cat"),
        (500, 100, 0, "dd"),
        (700, 300, 1, "sh"),
    ],
    columns=["start_ns", "duration_ns", "cpu", "comm"],
).assign(start_ns=lambda frame: frame["start_ns"] * 1_000_000 + START)
RUNS["duration_ns"] *= 1_000_000


@pytest.fixture(autouse=True)
def close_figures() -> Iterator[None]:
    yield
    plt.close("all")


def cells(ax: Axes) -> list[list[int]]:
    (mesh,) = [each for each in ax.collections if isinstance(each, QuadMesh)]
    drawn = mesh.get_array()
    assert drawn is not None
    return np.ma.filled(drawn, 0).tolist()  # type: ignore[no-any-return]


def rows_in(ax: Axes) -> list[str]:
    return [label.get_text() for label in ax.get_yticklabels()]


def picture(ax: Axes) -> Picture:
    figure = ax.get_figure()
    assert isinstance(figure, Picture)
    return figure


# -- heatmap -------------------------------------------------------------------------------------


def test_each_event_is_in_its_cell() -> None:
    ax = plots.heatmap(EVENTS, slot_ns=1_000_000_000)
    grid = cells(ax)
    assert grid[0] == [2, 0, 0] and grid[-1] == [0, 0, 1] and sum(map(sum, grid)) == 5
    assert grid[10 - 0] == [2, 0, 0]  # 1024 to 2047
    assert ax.get_xlabel() == "seconds since the first"
    assert picture(ax).spots[0].text == "0 to 1 s, 0 to 2 ns: 2 events"


def test_sixty_slots_hold_the_last_event_too() -> None:
    grid = cells(plots.heatmap(EVENTS))
    assert len(grid[0]) == 60 and sum(map(sum, grid)) == 5 and grid[-1][-1] == 1


def test_cells_counted_in_the_kernel_are_those_of_the_raw_events() -> None:
    random = np.random.default_rng(3)
    raw = pd.DataFrame(
        {
            "time_ns": random.integers(10**9, 2 * 10**9, 2003),
            "latency_ns": random.lognormal(9, 2, 2003).astype("i8"),
        }
    )
    slot_ns = 1 << 26
    raw["time_ns"] -= int(raw["time_ns"].min()) % slot_ns  # the first slots begin alike
    counted = (
        raw.assign(when=raw["time_ns"] // slot_ns, slot=np.log2(raw["latency_ns"]).astype(int) + 1)
        .groupby(["when", "slot"], as_index=False)
        .size()
    )
    made = plots.heatmap(
        counted, "slot", time="when", values="size", slot_ns=slot_ns, unit="ns", of="reads"
    )
    expected = plots.heatmap(raw, slot_ns=slot_ns, of="reads")
    assert cells(made) == cells(expected)
    assert plots.reading(made) == plots.reading(expected)
    assert rows_in(made) == rows_in(expected)


def test_a_heatmap_has_a_bar_for_its_colours_and_words() -> None:
    ax = plots.heatmap(EVENTS, of="reads", slot_ns=1_000_000_000, title="When?")
    assert picture(ax).axes[1].get_ylabel() == "number of reads"
    told = "5 reads in 3 s. The fullest cell: 2 of 0 to 2 ns, from 0 on."
    assert plots.reading(ax).startswith(told)
    assert picture(ax).alternative.startswith("When? 5 reads in 3 s.")


def test_rows_that_have_no_place_are_counted() -> None:
    frame = pd.DataFrame({"time_ns": [1, 2, None, 4], "latency_ns": [5, -1, 6, np.nan]})
    assert "(3 rows left out)" in plots.heatmap(frame).get_xlabel()
    none = plots.heatmap(frame.iloc[1:])
    assert plots.reading(none) == "3 rows, and none can be drawn."
    assert plots.reading(plots.heatmap(EVENTS.iloc[:0], of="reads")) == "No reads."


def test_one_event_and_a_long_time_and_narrow_slots() -> None:
    assert cells(plots.heatmap(EVENTS.iloc[:1])) == [[1]]
    ax = plots.heatmap(EVENTS, slot_ns=1000)
    assert len(cells(ax)[0]) <= 240 and sum(map(sum, cells(ax))) == 5


def test_counted_cells_need_the_width_of_a_slot() -> None:
    with pytest.raises(PlotError, match="slot_ns"):
        plots.heatmap(EVENTS, values="latency_ns")
    with pytest.raises(UnknownName, match="time_ns"):
        plots.heatmap(EVENTS, time="time")


# -- timeline ------------------------------------------------------------------------------------


def spans(ax: Axes) -> int:
    return sum(len(each.get_paths()) for each in ax.collections if isinstance(each, PolyCollection))


def test_each_span_is_in_its_lane_at_its_time() -> None:
    ax = plots.timeline(RUNS, lane="cpu", category="comm")
    assert rows_in(ax) == ["cpu 0", "cpu 1"] and spans(ax) == 4
    found = [(spot.x, round(spot.y[0] + 0.36)) for spot in picture(ax).spots if spot.x and spot.y]
    assert sorted(found) == [
        ((0.0, 400.0), 0),
        ((100.0, 400.0), 1),
        ((500.0, 600.0), 0),
        ((700.0, 1000.0), 1),
    ]
    assert ax.get_xlabel() == "milliseconds since the first start"
    told = "4 spans on 2 lanes (cpu) in 1 s. dd took the most time, 500 ms (45 % of all spans)."
    assert plots.reading(ax) == told


def test_a_number_as_category_says_of_what() -> None:
    ax = plots.timeline(RUNS, lane="comm", category="cpu")
    assert "cpu 0 took the most time" not in plots.reading(ax)  # 500 ms, and cpu 1 has 600
    assert "cpu 1 took the most time, 600 ms" in plots.reading(ax)


def test_an_end_does_as_well_as_a_duration() -> None:
    ends = RUNS.assign(end_ns=RUNS["start_ns"] + RUNS["duration_ns"]).astype({"end_ns": "u8"})
    by_end = plots.timeline(ends, lane="cpu", end="end_ns")
    by_duration = plots.timeline(RUNS, lane="cpu")
    assert [s.x for s in picture(by_end).spots] == [s.x for s in picture(by_duration).spots]


def test_too_many_spans_are_merged_and_that_is_said() -> None:
    many = pd.DataFrame({"start_ns": range(0, 10_000_000, 1000), "duration_ns": 500, "cpu": 0})
    ax = plots.timeline(many, lane="cpu")
    assert spans(ax) == 1
    assert "(9,999 spans merged with a neighbour)" in ax.get_xlabel()
    assert "10,000 spans, together 5 ms" in picture(ax).spots[0].text


def test_two_long_spans_stay_two_however_close() -> None:
    close = pd.DataFrame({"start_ns": [0, 501], "duration_ns": [500, 499], "cpu": 0})
    assert spans(plots.timeline(close, lane="cpu")) == 2


def test_lanes_and_colours_beyond_the_readable_are_said() -> None:
    many = pd.DataFrame(
        {"start_ns": range(40), "duration_ns": 1, "task": [f"t{n}" for n in range(40)]}
    )
    ax = plots.timeline(many, lane="task", category="task")
    assert rows_in(ax)[:2] == ["t0", "t1"] and len(rows_in(ax)) == 24
    assert "16 lanes not shown" in ax.get_xlabel()
    legend = ax.get_legend()
    assert legend is not None and legend.get_texts()[-1].get_text() == "all others"


def test_rows_without_a_time_are_left_out() -> None:
    odd = pd.DataFrame({"start_ns": [0, 10, None], "duration_ns": [5, -1, 3], "cpu": 0})
    ax = plots.timeline(odd, lane="cpu")
    assert spans(ax) == 1 and "2 rows left out" in ax.get_xlabel()
    assert plots.reading(plots.timeline(odd.iloc[1:2], lane="cpu")) == "1 row without a time."
    assert plots.reading(plots.timeline(RUNS.iloc[:0], lane="cpu", of="turns")) == "No turns."


def test_one_instant_is_a_picture_too() -> None:
    ax = plots.timeline(pd.DataFrame({"start_ns": [5], "duration_ns": [0], "pid": [7]}), lane="pid")
    assert spans(ax) == 1 and rows_in(ax) == ["pid 7"]
    picture(ax).canvas.draw()
