"""Names that a traced machine may have, and numbers that nobody expects, in every picture."""

from __future__ import annotations

import matplotlib

matplotlib.use("Agg")

import html
import re
import warnings
from collections.abc import Iterator
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from ebpflab import plots
from ebpflab.errors import UnknownName
from ebpflab.plots import canvas, units

NAMES = [
    "<script>",
    "a$b$c",
    "new\nline",
    "nul\0",
    "\x1b[31m",
    "\u202eevil",
    "\u4e2d",
    "",
    "x" * 4000,
]
FRAME = pd.DataFrame(
    {
        "name": NAMES,
        "time_ns": range(9),
        "start_ns": range(9),
        "duration_ns": 10,
        "latency_ns": range(9),
        "pid": range(9),
        "ppid": 0,
    }
)
PICTURES = {
    "counts": lambda frame: plots.counts(frame, by="name"),
    "histogram": lambda frame: plots.histogram(frame, column="latency_ns", by="name"),
    "overlay": lambda frame: plots.histogram(frame, column="latency_ns", by="name", overlay=True),
    "timeline": lambda frame: plots.timeline(frame, lane="name", category="name"),
    "process_tree": lambda frame: plots.process_tree(frame, label="name"),
}


@pytest.fixture(autouse=True)
def close_figures() -> Iterator[None]:
    yield
    plt.close("all")


def figure_of(ax: Any) -> Any:
    return ax.get_figure()


def drawn_texts(figure: Any) -> list[str]:
    return [text.get_text() for text in figure.findobj(plt.Text)]


@pytest.mark.parametrize("kind", PICTURES)
def test_a_name_is_shown_as_it_is_and_without_a_warning(kind: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = figure_of(PICTURES[kind](FRAME))
        page = figure._repr_html_()
        figure.get_tightbbox()
    assert figure.get_figheight() < 15, "a long name does not make the picture long"
    drawn = drawn_texts(figure)
    assert not [text for text in drawn if {"\0", "\x1b", "\u202e"} & set(text)]
    assert not [text for text in drawn if "new\nline" in text]
    told = [spot.text for spot in figure.spots]
    assert any("a$b$c" in text for text in told)
    assert not [text for text in told if "\\$" in text], (
        "what is drawn is escaped, not what is told"
    )
    assert any("(empty)" in text for text in told)
    assert html.escape("<script>") in page
    titles = re.findall("<title>(.*?)</title>", page, re.DOTALL)
    assert any("\ufffdevil" in title for title in titles)
    assert not [title for title in titles if {"\u202e", "\n"} & set(title)]


def test_a_flame_graph_is_drawn_without_a_warning() -> None:
    frame = pd.DataFrame({"stack": [tuple(NAMES)], "value": [3], "comm": ["\u4e2d"]})
    graph = plots.flame_graph(frame, title="@DATA@")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        graph._repr_mimebundle_()
    assert graph.words == ["3 samples in 1 stack."]
    assert graph.html().count('"tree":') == 1, "a title is a title"
    assert "\u202e" not in graph.html() and "\ufffdevil" in graph.html()
    assert "\u202eevil" in graph.folded()[0], "other tools get what was traced"


def test_what_has_no_name_is_counted() -> None:
    frame = pd.DataFrame({"comm": ["sh", None, None], "v": [1, 2, 3]})
    for kind in ("object", "category"):
        ax = plots.counts(frame.astype({"comm": kind}), by="comm")
        assert plots.reading(ax) == "(none): 2 of 3 rows (67 %); none of the 2 has more."
    figure = figure_of(plots.histogram(frame, column="v", by="comm"))
    assert sum(len(spot.rows) for spot in figure.spots) == 3


def test_numbers_below_zero_have_bars_and_no_share() -> None:
    frame = pd.DataFrame({"c": ["a", "b"], "v": [-3.0, 0.1 + 0.2]})
    ax = plots.counts(frame, by="c", values="v", unit="points")
    assert ax.get_xlim()[0] < -3 and ax.get_xlabel() == "points"
    assert plots.reading(ax) == "b: 0.3 points; the least, a: -3."


def test_the_largest_u64_leaves_room_for_the_picture() -> None:
    values = pd.Series(np.array([0, 5, 2**64 - 1], "u8"), name="x")
    frame = pd.DataFrame({"time_ns": range(3), "x": values})
    for ax in (plots.histogram(values), plots.heatmap(frame, "x")):
        figure_of(ax).draw_without_rendering()
        assert ax.get_window_extent().width > figure_of(ax).bbox.width * 0.3
        assert "2⁶³ to 2⁶⁴ - 1" in figure_of(ax).spots[-1].text
    # exact where both edges are short
    assert canvas.picture_of(plots.histogram(values)).spots[0].text.startswith("0 to 1: ")  # type: ignore[union-attr]


def test_days_have_no_exponent_on_the_axis() -> None:
    frame = FRAME.assign(time_ns=FRAME["time_ns"] * 86_400 * 10**9)
    ax = plots.process_tree(frame, label="name")
    figure_of(ax).draw_without_rendering()
    assert ax.get_xlabel() == "seconds since the first start"
    assert ax.xaxis.get_offset_text().get_text() == ""


def test_a_missing_column_of_a_process_tree_is_named() -> None:
    with pytest.raises(UnknownName, match="There is no column 'filename'"):
        plots.process_tree(FRAME)


@pytest.mark.parametrize("unit", ["ns", "bytes", ""])
def test_what_is_no_number_is_said(unit: str) -> None:
    assert units.amount(float("nan"), unit) == "no number"


def test_a_start_that_is_no_time_is_left_out() -> None:
    starts = np.array([5, 7, 2**64 - 1], "u8")
    ax = plots.timeline(pd.DataFrame({"start_ns": starts, "duration_ns": 2, "cpu": 0}), "cpu")
    assert plots.reading(ax) == "2 spans on 1 lane (cpu) in 4 ns; the longest took 2 ns."
    assert "1 row left out" in ax.get_xlabel()


def test_dates_are_times_and_not_a_date_is_none() -> None:
    when = pd.to_datetime(["2026-01-01 00:00:00", None, "2026-01-01 00:01:00"], utc=True)
    ax = plots.heatmap(pd.DataFrame({"time_ns": when, "latency_ns": [1, 2, 3]}))
    assert plots.reading(ax).startswith("2 events in 60 s.")
    assert ax.get_xlabel() == "seconds since the first   (1 row left out)"


def test_flames_of_the_largest_numbers() -> None:
    frame = pd.DataFrame({"stack": [("a",), ("b",)], "value": np.array([2**64 - 1] * 2, "u8")})
    graph = plots.flame_graph(frame, unit="ns")
    assert graph._repr_mimebundle_()["image/png"]
    assert graph.words == ["1,170 years in 2 stacks."]
