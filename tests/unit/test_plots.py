"""Every picture: what is drawn, that it is readable on any theme, and at the edges of the data."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba

from ebpflab import plots
from ebpflab.plots import canvas
from ebpflab.plots.units import amount as edge

STARTS = pd.DataFrame(
    [
        (1_000_000, 500, 300, "python3", "/bin/sh"),
        (3_000_000, 501, 500, "sh", "/usr/bin/find"),
        (4_000_000, 502, 501, "find", "/usr/local/bin/wc"),
        (4_100_000, 502, 501, "find", "/usr/bin/wc"),
        (6_000_000, 500, 300, "sh", "/usr/bin/date"),
    ],
    columns=["time_ns", "pid", "ppid", "comm", "filename"],
)
BUCKETS = pd.DataFrame(
    {"count": [0, 0, 5, 0, 1200, 0]},
    index=pd.IntervalIndex.from_breaks([0, 2, 4, 8, 16, 32, 64], closed="left", name="bucket"),
)


@pytest.fixture(autouse=True)
def close_figures() -> Iterator[None]:
    yield
    plt.close("all")


def tick_labels(ax: Axes) -> list[str]:
    return [label.get_text() for label in ax.get_yticklabels()]


def texts(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.texts]


def all_plots() -> list[Axes]:
    return [
        plots.counts(STARTS, by="comm", title="t"),
        plots.histogram(BUCKETS, unit="ns", title="t"),
        plots.process_tree(STARTS, title="t"),
    ]


def test_every_picture_is_on_opaque_white_with_dark_text() -> None:
    for ax in all_plots():
        figure = ax.get_figure(root=True)
        assert figure is not None
        figure.canvas.draw()
        assert figure.get_facecolor() == to_rgba("white")
        assert ax.get_facecolor() == to_rgba("white")
        assert ax.get_title(loc="left") == "t"
        for label in (*ax.get_xticklabels(), *ax.get_yticklabels(), *ax.texts, ax.xaxis.label):
            assert max(to_rgba(label.get_color())[:3]) < 0.3, label
            assert label.get_fontsize() >= 10


def test_pictures_stay_white_where_the_reader_chose_a_dark_style() -> None:
    with plt.style.context("dark_background"):
        test_every_picture_is_on_opaque_white_with_dark_text()


def test_no_text_leaves_the_picture() -> None:
    for ax in all_plots():
        figure = ax.get_figure(root=True)
        assert figure is not None
        figure.canvas.draw()
        for text in [text for text in (*ax.texts, *ax.get_yticklabels()) if text.get_text()]:
            box = text.get_window_extent()
            assert box.x0 >= 0 and box.x1 <= figure.bbox.x1, text


def test_given_axes_are_drawn_on() -> None:
    _, ax = plt.subplots()
    assert plots.counts(STARTS, by="comm", ax=ax) is ax


def test_counts_has_the_longest_bar_on_top_and_a_number_at_each() -> None:
    ax = plots.counts(STARTS, by="comm", unit="attempts")
    assert tick_labels(ax) == ["find", "sh", "python3"]
    assert texts(ax) == ["2", "2", "1"]
    assert ax.yaxis_inverted()
    assert ax.get_xlabel() == "number of attempts"


def test_counts_joins_columns_and_adds_up_values() -> None:
    frame = pd.DataFrame({"a": ["x", "x", ""], "b": ["y", "y", "z"], "n": [1000, 2000, 5]})
    ax = plots.counts(frame, by=["a", "b"], values="n")
    assert tick_labels(ax) == ["x → y", " → z"]
    assert texts(ax) == ["3,000", "5"]


def test_measurements_side_by_side_are_not_added_up() -> None:
    frame = pd.DataFrame({"probe": ["off", "on"], "ns": [1.4, 1699.2]})
    ax = plots.counts(frame, by="probe", values="ns", unit="nanoseconds", parts=False)
    assert texts(ax) == ["1,699.2", "1.4"]
    assert ax.get_xlabel() == "nanoseconds"
    assert plots.reading(ax) == "on: 1,699.2 nanoseconds; the least, off: 1.4."
    one = plots.counts(frame[:1], by="probe", values="ns", unit="nanoseconds", parts=False)
    assert plots.reading(one) == "off: 1.4 nanoseconds."


def test_counts_names_empty_text_and_shows_dollars_as_they_are() -> None:
    ax = plots.counts(pd.DataFrame({"name": ["", "$HOME $x"]}), by="name")
    assert tick_labels(ax) == [r"\$HOME \$x", "(empty)"]


def test_counts_says_what_it_leaves_out() -> None:
    ax = plots.counts(pd.DataFrame({"n": range(30)}), by="n", most=10)
    assert len(ax.patches) == 10
    assert "20 more not shown: 20 rows" in ax.get_xlabel()


def test_counts_of_a_categorical_and_of_a_missing_column() -> None:
    ax = plots.counts(STARTS.astype({"comm": "category"}), by="comm")
    assert texts(ax) == ["2", "2", "1"]
    with pytest.raises(KeyError):
        plots.counts(STARTS, by="command")


def test_histogram_keeps_gaps_and_drops_the_empty_ends() -> None:
    ax = plots.histogram(BUCKETS, unit="us", of="reads")
    assert tick_labels(ax) == ["4 µs to 8 µs", "8 µs to 16 µs", "16 µs to 32 µs"]
    assert texts(ax) == ["5", "", "1,200", "p50, p90, p99: 16 µs to 32 µs"]
    assert ax.get_xlabel() == "number of reads"


def test_histogram_of_whole_numbers_names_the_values_of_a_bucket() -> None:
    linear = pd.DataFrame(
        {"count": [2, 3]}, index=pd.IntervalIndex.from_breaks([1, 2, 3], closed="left")
    )
    assert tick_labels(plots.histogram(linear, unit="arguments")) == ["1", "2"]
    assert tick_labels(plots.histogram(BUCKETS))[0] == "4 to 7"


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (0, "ns", "0"),
        (512, "ns", "512 ns"),
        (1024, "ns", "1.02 µs"),
        (1 << 20, "us", "1.05 s"),
        (1 << 40, "s", "34,865 years"),
        (0, "bytes", "0 B"),
        (1023, "bytes", "1,023 B"),
        (4096, "bytes", "4 KiB"),
        (1 << 63, "bytes", "8,192 PiB"),
        (1 << 20, "", "1,048,576"),
    ],
)
def test_edges_are_written_as_a_person_would(value: int, unit: str, expected: str) -> None:
    assert edge(value, unit) == expected


def test_process_tree_links_children_and_marks_the_same_process() -> None:
    ax = plots.process_tree(STARTS)
    assert texts(ax) == list(STARTS["filename"])
    links = {
        tuple(line.get_ydata()): line.get_color() for line in ax.lines if len(line.get_xdata()) == 3
    }
    assert links == {
        (0, 1, 1): canvas.BLUE,
        (1, 2, 2): canvas.BLUE,
        (2, 3, 3): canvas.ORANGE,  # the second attempt of one process
        (0, 4, 4): canvas.ORANGE,  # the shell becomes date
    }
    dots = [
        line.get_xdata()[0]
        for line in ax.lines
        if list(line.get_xdata()) and len(line.get_xdata()) == 1
    ]
    assert np.allclose(dots[:5], [0, 2, 3, 3.1, 5])
    assert ax.get_xlabel() == "milliseconds since the first start"
    assert plots.reading(ax) == (
        "5 starts in 5 ms, by 3 processes; 2 of them a further one of the same process."
    )


def test_process_tree_is_in_order_of_time_and_says_what_it_leaves_out() -> None:
    ax = plots.process_tree(STARTS.iloc[::-1], most=2, label="comm", unit="attempts")
    assert texts(ax) == ["python3", "sh"]
    assert ax.get_xlabel().startswith("milliseconds since the first attempt ")
    assert plots.reading(ax) == "2 attempts in 2 ms, by 2 processes."
    assert "the first 2 of 5" in ax.get_xlabel()


def test_no_rows_and_one_row_are_pictures_too() -> None:
    assert texts(plots.counts(STARTS.iloc[:0], by="comm")) == ["no rows"]
    assert texts(plots.histogram(BUCKETS.iloc[:0])) == ["no rows"]
    assert texts(plots.histogram(BUCKETS.iloc[:2])) == ["no rows"]
    assert texts(plots.process_tree(STARTS.iloc[:0])) == ["no rows"]
    for ax in (plots.process_tree(STARTS.iloc[:1]), plots.counts(STARTS.iloc[:1], by="pid")):
        assert len(texts(ax)) == 1
        ax.get_figure(root=True).canvas.draw()  # type: ignore[union-attr]


def test_the_frame_is_not_changed() -> None:
    before = STARTS.copy()
    all_plots()
    pd.testing.assert_frame_equal(STARTS, before)
