"""Slots of a BPF_HISTOGRAM become the right buckets."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from ebpflab.decode import histograms
from ebpflab.errors import TableError


@pytest.mark.parametrize("largest", [2**61, 2**62, 2**63, 2**64 - 2048])
def test_log2_buckets_hold_what_bpf_log2l_puts_there(largest: int) -> None:
    def bpf_log2l(value: int) -> int:
        return max(value, 1).bit_length()

    values = pd.Series([0, 1, 2, 3, 4, 7, 8, 1000, 2**40, largest], dtype="u8")
    slots = values.map(bpf_log2l).value_counts()
    found = histograms.histogram(slots.index.to_numpy(), slots.to_numpy(), "log2")
    for bucket, count in found["count"].items():
        assert count == values.between(bucket.left, bucket.right, inclusive="left").sum()
    assert found["count"].sum() == len(values)


def test_an_empty_histogram_has_no_rows() -> None:
    empty = np.zeros(0, "i8")
    assert histograms.histogram(empty, empty, "log2").empty
    with pytest.raises(ValueError, match="'log2' or 'linear'"):
        histograms.histogram(empty, empty, "log10")


@pytest.mark.parametrize("scale", ["log2", "linear"])
def test_a_histogram_for_each_key(scale: str) -> None:
    groups = pd.DataFrame({"disk": ["a", "b", "a", "b"], "op": [1, 1, 1, 2]})
    slots, counts = np.array([1, 4, 3, 2]), np.array([10, 20, 30, 0])
    found = histograms.grouped_histogram(groups, slots, counts, scale)
    assert found.index.names == ["disk", "op", "bucket"]
    for (disk, op), part in found.groupby(["disk", "op"]):
        mine = (groups["disk"] == disk) & (groups["op"] == op)
        alone = histograms.histogram(slots[mine], counts[mine], scale)
        part = part.droplevel(["disk", "op"])
        assert list(part["count"])[: len(alone)] == list(alone["count"])
        assert part["count"].sum() == counts[mine].sum()
    assert set(found.groupby(["disk", "op"]).size()) == {len(found) // 2}, "the same buckets"
    assert ("b", 2) not in found.index, "of nothing but zeros there is no histogram"


def test_no_key_has_no_histogram() -> None:
    empty = np.zeros(0, "i8")
    found = histograms.grouped_histogram(pd.DataFrame({"disk": []}), empty, empty, "log2")
    assert found.empty and found.index.names == ["disk", "bucket"]


BAD_SLOTS = [
    (np.array([-2, 0, 5], "i4"), "linear", r"key -2,.*count from 0"),
    (np.array([-9], "i8"), "log2", r"key -9,.*BPF_HASH"),
    (np.array([3, 2**64 - 2], "u8"), "log2", r"\(which is -2 in an unsigned field\)"),
    (np.array([2**32 - 1], "u4"), "linear", r"\(which is -1 in an unsigned field\)"),
    (np.array([100]), "log2", "scale='linear'"),
    (np.array([1, 2**40]), "linear", r"1,099,511,627,776,.*too many.*bpf_log2l"),
]


@pytest.mark.parametrize(("keys", "scale", "words"), BAD_SLOTS)
def test_a_key_that_is_no_slot_says_so(keys: npt.NDArray[Any], scale: str, words: str) -> None:
    counts = np.arange(1, len(keys) + 1)
    with pytest.raises(TableError, match=words):
        histograms.histogram(keys, counts, scale)
    with pytest.raises(TableError, match=words):
        histograms.grouped_histogram(pd.DataFrame({"disk": ["a"] * len(keys)}), keys, counts, scale)
    good = np.array([1, 3], keys.dtype)
    assert list(histograms.histogram(good, np.array([7, 1]), scale)["count"])[-1] == 1


def test_a_slot_that_nothing_was_counted_in_is_no_bucket() -> None:
    found = histograms.histogram(np.array([-2, 2, 2**40]), np.array([0, 3, 0]), "linear")
    assert list(found["count"]) == [0, 0, 3]


def test_so_many_histograms_of_so_many_buckets_are_refused() -> None:
    groups, slots = pd.DataFrame({"pid": range(2000)}), np.full(2000, 2000)
    with pytest.raises(TableError, match=r"2,000 histograms of 2,001 buckets each.*bpf_log2l"):
        histograms.grouped_histogram(groups, slots, np.ones(2000, "i8"), "linear")
