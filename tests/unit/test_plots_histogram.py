"""Histograms: every value in its bucket, percentiles at their place, in picture, words and text."""

from __future__ import annotations

import matplotlib

matplotlib.use("Agg")

from collections.abc import Iterator
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes

from ebpflab import plots
from ebpflab.errors import PlotError, UnknownName
from ebpflab.plots import buckets

BUCKETS = pd.DataFrame(
    {"count": [0, 3, 40, 500, 22, 1, 0, 3, 0]},
    index=pd.IntervalIndex.from_breaks([0, *(2**n for n in range(1, 10))], closed="left"),
)
READS = pd.DataFrame(
    {"latency_ns": [900, 1000, 1100, 1200, 70_000], "comm": ["dd", "dd", "dd", "cat", "cat"]}
)


@pytest.fixture(autouse=True)
def close_figures() -> Iterator[None]:
    yield
    plt.close("all")


def buckets_of(values: Any, scale: str = "auto") -> buckets.Buckets:
    return buckets.of(pd.Series(values), "", None, None, scale, "count")


def names(ax: Axes) -> list[str]:
    return [label.get_text() for label in ax.get_yticklabels()]


def numbers(ax: Axes) -> list[float]:
    return [patch.get_width() for patch in ax.patches]  # type: ignore[attr-defined]


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=40))
def test_every_whole_number_is_in_the_bucket_of_its_power_of_two(values: list[int]) -> None:
    found = buckets_of(np.array(values, "u8"), "log2")
    (series,) = found.series
    for (low, high), number in zip(found.pairs, series.counts, strict=True):
        assert number == sum(low <= value < high for value in values)
    assert series.total == len(values)


@given(
    st.lists(st.floats(-1e300, 1e300, allow_nan=False), min_size=1, max_size=40),
    st.sampled_from(["auto", "linear", "log2"]),
)
def test_no_value_is_lost_whatever_the_scale(values: list[float], scale: str) -> None:
    found = buckets_of(values, scale)
    assert found.series[0].total == len(values)
    assert list(found.edges) == sorted(set(found.edges))
    assert found.edges[0] <= min(values)


@given(st.lists(st.integers(-(10**6), 10**12), min_size=1, max_size=200))
def test_percentiles_of_values_are_those_of_numpy(values: list[int]) -> None:
    marks = buckets_of(values).series[0].marks
    for mark in marks:
        expected = np.percentile(values, mark.percent, method="inverted_cdf")
        assert mark.low == mark.high == expected


def test_percentiles_of_buckets_hold_the_exact_ones() -> None:
    values = np.random.default_rng(1).lognormal(9, 2, 1009).astype("i8")
    exact = buckets_of(values, "log2")
    series = exact.series[0]
    frame = pd.DataFrame(
        {"count": series.counts}, index=pd.IntervalIndex.from_breaks(exact.edges, closed="left")
    )
    counted = buckets.of(frame, "", None, None, "auto", "count").series[0]
    for known, ranged in zip(series.marks, counted.marks, strict=True):
        assert ranged.low <= known.low < ranged.high


def test_a_wide_range_is_in_powers_of_two_and_a_narrow_one_is_not() -> None:
    assert buckets_of([1, 100_000]).edges[:3] == [0, 2, 4]
    assert buckets_of([3, 4, 4, 9]).edges == [3, 4, 5, 6, 7, 8, 9, 10]
    assert buckets_of([1000, 1100, 1500]).edges[:3] == [1000, 1050, 1100]
    assert buckets_of([0.25, 0.5, 100.0]).edges[:3] == [0.25, 0.5, 1]
    assert buckets_of([-5, 900_000]).log2 is False


def test_below_zero_has_a_bucket_of_its_own_in_powers_of_two() -> None:
    found = buckets_of([-7, -1, 0, 5], "log2")
    assert found.pairs[0] == (-7, 0) and list(found.series[0].counts) == [2, 1, 0, 1]


def test_gaps_of_a_sparse_table_are_filled() -> None:
    index = pd.MultiIndex.from_tuples(
        [("vda", pd.Interval(4, 8, closed="left")), ("vda", pd.Interval(64, 128, closed="left"))],
        names=["disk", "bucket"],
    )
    found = buckets.of(
        pd.DataFrame({"count": [5, 7]}, index=index), "", None, None, "auto", "count"
    )
    assert found.edges == [4, 8, 16, 32, 64, 128]
    assert list(found.series[0].counts) == [5, 0, 0, 0, 7]


def test_the_unit_comes_from_the_columns_name() -> None:
    ax = plots.histogram(READS["latency_ns"], of="reads")
    assert names(ax)[0] == "512 ns to 1.02 µs" and names(ax)[-1] == "65.5 µs to 131 µs"
    assert numbers(ax) == [2, 2, 0, 0, 0, 0, 0, 1]
    sizes = pd.DataFrame({"size_bytes": [512, 4096, 65536]})
    assert names(plots.histogram(sizes, column="size_bytes"))[-1] == "64 KiB to 128 KiB"


def test_percentiles_are_marked_exactly_of_values_and_as_a_range_of_buckets() -> None:
    told = [text.get_text() for text in plots.histogram(READS["latency_ns"]).texts]
    assert told[-2:] == ["p50: 1.1 µs", "p90, p99: 70 µs"]
    told = [text.get_text() for text in plots.histogram(BUCKETS, unit="us").texts]
    assert told[-2:] == ["p50, p90: 8 µs to 16 µs", "p99: 16 µs to 32 µs"]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (READS["latency_ns"], "Half of the 5 reads took at most 1.1 µs, 99 % at most 70 µs."),
        (pd.Series([7], name="latency_ns"), "There is one value only: 7 ns."),
        (pd.Series([7] * 17, name="latency_ns"), "All 17 reads took 7 ns."),
        (pd.Series([], name="latency_ns", dtype="i8"), "No reads."),
        (pd.Series([None, np.nan, np.inf]), "3 values, and none is a number."),
    ],
)
def test_a_histogram_in_words(values: pd.Series[Any], words: str) -> None:
    assert plots.reading(plots.histogram(values, of="reads")) == words


def test_buckets_in_words_say_no_more_than_they_know() -> None:
    told = plots.reading(plots.histogram(BUCKETS, unit="us", of="reads"))
    assert told == "90 % of the 569 reads took less than 16 µs, 99 % less than 32 µs."


def test_a_bucket_of_one_value_is_that_value() -> None:
    pages = pd.DataFrame(
        {"count": [0, 47, 0, 0, 29]}, index=pd.IntervalIndex.from_breaks(range(6), closed="left")
    )
    ax = plots.histogram(pages, unit="pages", of="requests")
    told = "Half of the 76 requests were at most 1 page, 99 % at most 4 pages."
    assert plots.reading(ax) == told


def test_each_key_has_a_panel_with_its_own_total() -> None:
    keyed = pd.concat({"vda": BUCKETS, "vdb": BUCKETS * 2}, names=["disk"])
    ax = plots.histogram(keyed, unit="us", of="requests", title="By disk")
    panels = ax.get_figure().axes  # type: ignore[union-attr]
    assert [panel.get_title() for panel in panels] == ["vdb\n1,138 requests", "vda\n569 requests"]
    assert numbers(panels[1]) == [3, 40, 500, 22, 1, 0, 3]
    assert "of vdb less than 16 µs; of vda less than 16 µs" in plots.reading(ax)


def test_a_column_can_be_split_and_overlaid() -> None:
    ax = plots.histogram(READS, column="latency_ns", by="comm", overlay=True, of="reads")
    legend = ax.get_legend()
    assert legend is not None
    assert [t.get_text() for t in legend.get_texts()] == ["dd: 3 reads", "cat: 2 reads"]


def test_what_is_left_out_is_said() -> None:
    many = pd.DataFrame({"n": range(200), "of": [f"k{n % 20}" for n in range(200)]})
    ax = plots.histogram(many, column="n", by="of")
    labels = [each.get_xlabel() for each in ax.get_figure().axes]  # type: ignore[union-attr]
    assert "number of events   (11 more not shown: 110 events)" in labels
    ax = plots.histogram(pd.Series([1.0, 2.0, np.nan, np.inf]))
    assert ax.get_xlabel() == "number of events   (2 without a value left out)"


def test_what_cannot_be_drawn_is_refused_with_the_way_out() -> None:
    with pytest.raises(PlotError, match=r"histogram\(frame, column=\.\.\.\).*latency_ns, comm"):
        plots.histogram(READS)
    with pytest.raises(PlotError, match=r"'comm' holds str.*plots\.counts"):
        plots.histogram(READS["comm"])
    with pytest.raises(UnknownName, match="latency_ns"):
        plots.histogram(READS, column="latency")


def test_the_text_form_is_bccs() -> None:
    text = plots.text_histogram(BUCKETS, "usecs")
    assert text.splitlines() == [
        "     usecs               : count     distribution",
        "         2 -> 3          : 3        |                                        |",
        "         4 -> 7          : 40       |***                                     |",
        "         8 -> 15         : 500      |****************************************|",
        "        16 -> 31         : 22       |*                                       |",
        "        32 -> 63         : 1        |                                        |",
        "        64 -> 127        : 0        |                                        |",
        "       128 -> 255        : 3        |                                        |",
    ]


def test_the_text_form_of_linear_wide_keyed_and_no_values() -> None:
    linear = plots.text_histogram(pd.Series([1, 1, 3], name="n"))
    assert linear.splitlines()[0] == "     value         : count     distribution"
    assert linear.splitlines()[2].startswith("        2          : 0        |  ")
    wide = plots.text_histogram(pd.Series([1, 2**63], dtype="u8"))
    assert len({len(line) for line in wide.splitlines()[1:]}) == 1
    assert "9223372036854775808 -> 18446744073709551615" in wide
    keyed = plots.text_histogram(READS, column="latency_ns", by="comm")
    assert keyed.startswith("comm = 'dd'\n") and "\n\ncomm = 'cat'\n" in keyed
    assert plots.text_histogram(READS["latency_ns"].iloc[:0]) == "     ns: no rows"
