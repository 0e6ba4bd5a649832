"""Record bytes become the right columns."""

from __future__ import annotations

import struct
import tracemalloc
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebpflab import frames
from ebpflab.agent import wire
from ebpflab.btf import Bits, Column
from ebpflab.errors import TableError

EVENT = frames.layout_of(
    [Column("n", 0, np.dtype("u8")), Column("name", 8, np.dtype("S8"), "text")], 16, "data"
)
"""``struct event { u64 n; char name[8]; }``"""


def _record(data: bytes, flags: int = 0, word: int = 0) -> bytes:
    return (struct.pack("<II", len(data) | flags, word) + data).ljust(wire.stride(len(data)), b"\0")


def _columns(data: npt.NDArray[Any]) -> dict[str, Any]:
    """The column ``comm`` of an array of strings."""
    layout = frames.layout_of([Column("comm", 0, data.dtype, "text")], data.dtype.itemsize, "data")
    return frames.columns([data.view(layout.dtype)], layout)


def _event(n: int, name: bytes = b"x") -> bytes:
    return struct.pack("<Q8s", n, name)


@given(st.lists(st.integers(0, 2**64 - 1), max_size=50), st.integers(0, 60))
def test_records_of_one_size(numbers: list[int], first: int) -> None:
    span = b"".join(_record(_event(n), word=n % 7) for n in numbers)
    assert frames.count_records(span) == len(numbers)
    data, words = frames.records(span, EVENT.dtype, first)
    assert list(data["n"]) == numbers[first:]
    assert list(words) == [n % 7 for n in numbers[first:]]


@given(st.lists(st.tuples(st.integers(0, 1000), st.booleans(), st.integers(8, 30)), max_size=30))
def test_mixed_sizes_and_discards(rows: list[tuple[int, bool, int]]) -> None:
    span = b"".join(
        _record(_event(n, b"abcdefgh").ljust(30, b"!")[:size], wire.DISCARD if gone else 0)
        for n, gone, size in rows
    )
    kept = [(n, size) for n, gone, size in rows if not gone]
    assert frames.count_records(span) == len(kept)
    data, _ = frames.records(span, EVENT.dtype)
    assert list(data["n"]) == [n for n, _ in kept]
    assert list(data["name"]) == [b"abcdefgh"[: min(size, 16) - 8] for _, size in kept]


def test_strings_end_at_the_first_nul_and_survive_bad_utf8() -> None:
    data = np.array([b"ls\0junk", b"", b"\xff\xfe", b"caf\xc3\xa9"], "S8")
    columns = _columns(data)
    assert list(columns["comm"]) == ["ls", "", "\ufffd\ufffd", "caf\u00e9"]


def test_many_records_take_little_more_memory_than_they_are() -> None:
    """At most 2.5 times their size, at the peak, beside the bytes from the wire."""
    comm = Column("comm", 16, np.dtype("S16"), "text")
    numbers = [Column(f"n{at}", at, np.dtype("u8")) for at in (0, 8, 32)]
    layout = frames.layout_of([*numbers, comm], 40, "data")
    names = [b"bash", b"python3", b"systemd-journal"]
    span = b"".join(_record(struct.pack("<QQ16sQ", n, n, names[n % 3], n)) for n in range(50_000))
    batches = [span[at : at + 48_000] for at in range(0, len(span), 48_000)]
    tracemalloc.start()
    try:
        parts = [frames.records(batch, layout.dtype)[0] for batch in batches]
        frame = pd.DataFrame(frames.columns(parts, layout), copy=False)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert list(frame["n32"]) == list(range(50_000))
    assert list(frame["comm"][:4]) == ["bash", "python3", "systemd-journal", "bash"]
    assert peak < 2.5 * 40 * 50_000


def test_long_string_columns_are_dictionary_encoded() -> None:
    data = np.array([b"ls\0a", b"ls\0b", b"cat"] * 4000, "S8")
    column = pd.Series(_columns(data)["comm"])
    assert isinstance(column.dtype, pd.CategoricalDtype)
    assert column.value_counts().to_dict() == {"ls": 8000, "cat": 4000}


@given(st.lists(st.binary(max_size=11), max_size=60), st.integers(1, 11))
def test_equal_strings_get_one_code(texts: list[bytes], size: int) -> None:
    data = np.array(texts, f"S{size}")
    codes, first = frames._alike(data)
    assert [data[first[code]] for code in codes] == list(data)
    assert len(first) == len(set(data.tolist()))


def test_strings_whose_hashes_are_equal_stay_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames.pd, "factorize", lambda hashes: (np.zeros(len(hashes), "i8"), [0]))
    codes, first = frames._alike(np.array([b"ls", b"cat", b"ls"], "S4"))
    assert codes[0] == codes[2] != codes[1] and len(first) == 2


@given(st.integers(0, 7), st.integers(1, 64), st.lists(st.integers(0, 2**72 - 1), min_size=1))
def test_bit_fields(shift: int, width: int, numbers: list[int]) -> None:
    stored = b"".join(number.to_bytes(9, "little") for number in numbers)
    for dtype in (np.dtype("u8"), np.dtype("i8")):
        column = Column("bits", 0, dtype, bits=Bits(shift, width))
        layout = frames.layout_of([column], 9, "data")
        found = frames.columns([np.frombuffer(stored, layout.dtype)], layout)["bits"]
        sign = 1 << (width - 1) if dtype.kind == "i" else 0
        truth = [(number >> shift & (1 << width) - 1 ^ sign) - sign for number in numbers]
        assert found.tolist() == truth


@pytest.mark.parametrize("largest", [2**61, 2**62, 2**63, 2**64 - 2048])
def test_log2_buckets_hold_what_bpf_log2l_puts_there(largest: int) -> None:
    def bpf_log2l(value: int) -> int:
        return max(value, 1).bit_length()

    values = pd.Series([0, 1, 2, 3, 4, 7, 8, 1000, 2**40, largest], dtype="u8")
    slots = values.map(bpf_log2l).value_counts()
    found = frames.histogram(slots.index.to_numpy(), slots.to_numpy(), "log2")
    for bucket, count in found["count"].items():
        assert count == values.between(bucket.left, bucket.right, inclusive="left").sum()
    assert found["count"].sum() == len(values)


def test_an_empty_histogram_has_no_rows() -> None:
    empty = np.zeros(0, "i8")
    assert frames.histogram(empty, empty, "log2").empty
    with pytest.raises(ValueError, match="'log2' or 'linear'"):
        frames.histogram(empty, empty, "log10")


@pytest.mark.parametrize("scale", ["log2", "linear"])
def test_a_histogram_for_each_key(scale: str) -> None:
    groups = pd.DataFrame({"disk": ["a", "b", "a", "b"], "op": [1, 1, 1, 2]})
    slots, counts = np.array([1, 4, 3, 2]), np.array([10, 20, 30, 0])
    found = frames.grouped_histogram(groups, slots, counts, scale)
    assert found.index.names == ["disk", "op", "bucket"]
    for (disk, op), part in found.groupby(["disk", "op"]):
        mine = (groups["disk"] == disk) & (groups["op"] == op)
        alone = frames.histogram(slots[mine], counts[mine], scale)
        part = part.droplevel(["disk", "op"])
        assert list(part["count"])[: len(alone)] == list(alone["count"])
        assert part["count"].sum() == counts[mine].sum()
    assert set(found.groupby(["disk", "op"]).size()) == {len(found) // 2}, "the same buckets"
    assert ("b", 2) not in found.index, "of nothing but zeros there is no histogram"


def test_no_key_has_no_histogram() -> None:
    empty = np.zeros(0, "i8")
    found = frames.grouped_histogram(pd.DataFrame({"disk": []}), empty, empty, "log2")
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
        frames.histogram(keys, counts, scale)
    with pytest.raises(TableError, match=words):
        frames.grouped_histogram(pd.DataFrame({"disk": ["a"] * len(keys)}), keys, counts, scale)
    good = np.array([1, 3], keys.dtype)
    assert list(frames.histogram(good, np.array([7, 1]), scale)["count"])[-1] == 1


def test_a_slot_that_nothing_was_counted_in_is_no_bucket() -> None:
    found = frames.histogram(np.array([-2, 2, 2**40]), np.array([0, 3, 0]), "linear")
    assert list(found["count"]) == [0, 0, 3]


def test_so_many_histograms_of_so_many_buckets_are_refused() -> None:
    groups, slots = pd.DataFrame({"pid": range(2000)}), np.full(2000, 2000)
    with pytest.raises(TableError, match=r"2,000 histograms of 2,001 buckets each.*bpf_log2l"):
        frames.grouped_histogram(groups, slots, np.ones(2000, "i8"), "linear")
