"""Record bytes become the right columns."""

from __future__ import annotations

import json
import struct

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebpflab import frames
from ebpflab.agent import wire

EVENT = ["ev", [["n", "unsigned long long"], ["name", "char", [8]]], "struct_packed"]
"""As BCC describes ``struct ev { u64 n; char name[8]; }``."""


def _record(data: bytes, flags: int = 0, word: int = 0) -> bytes:
    return (struct.pack("<II", len(data) | flags, word) + data).ljust(wire.stride(len(data)), b"\0")


def _event(n: int, name: bytes = b"x") -> bytes:
    return struct.pack("<Q8s", n, name)


def test_padding_and_nesting_keep_their_offsets() -> None:
    inner = [
        "inner",
        [["a", "unsigned char"], ["__pad_1", "char", [3]], ["b", "unsigned int"]],
        "struct_packed",
    ]
    dtype = frames.dtype_of(["e", [["ts", "unsigned long long"], ["in", inner]], "struct_packed"])
    assert dtype.itemsize == 16
    value = np.frombuffer(struct.pack("<QBxxxI", 5, 6, 7), dtype)
    assert (value["ts"][0], value["in"]["a"][0], value["in"]["b"][0]) == (5, 6, 7)


def test_unions_overlap_and_structs_align() -> None:
    union = ["u", [["small", "unsigned char"], ["wide", "unsigned int"]], "union"]
    dtype = frames.dtype_of(["e", [["flag", "unsigned char"], ["u", union]], "struct"])
    assert dtype.itemsize == 8
    value = np.frombuffer(struct.pack("<BxxxI", 1, 0x01020304), dtype)
    assert value["u"]["small"][0] == 4 and value["u"]["wide"][0] == 0x01020304


def test_a_type_that_cannot_be_described_is_raw_bytes() -> None:
    bits = json.dumps(["e", [["a", "unsigned int", 3]], "struct"])
    layout = frames.layout_of(bits, 4, "value")
    assert layout.dtype == np.dtype("V4") and layout.scalar == "value"


@given(st.lists(st.integers(0, 2**64 - 1), max_size=50), st.integers(0, 60))
def test_records_of_one_size(numbers: list[int], first: int) -> None:
    span = b"".join(_record(_event(n), word=n % 7) for n in numbers)
    assert frames.count_records(span) == len(numbers)
    data, words = frames.records(span, frames.dtype_of(EVENT), first)
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
    data, _ = frames.records(span, frames.dtype_of(EVENT))
    assert list(data["n"]) == [n for n, _ in kept]
    assert list(data["name"]) == [b"abcdefgh"[: min(size, 16) - 8] for _, size in kept]


def test_strings_end_at_the_first_nul_and_survive_bad_utf8() -> None:
    data = np.array([b"ls\0junk", b"", b"\xff\xfe", b"caf\xc3\xa9"], "S8")
    columns = frames.columns(data, frames.Layout(data.dtype, "comm"))
    assert list(columns["comm"]) == ["ls", "", "\ufffd\ufffd", "caf\u00e9"]


def test_long_string_columns_are_dictionary_encoded() -> None:
    data = np.array([b"ls\0a", b"ls\0b", b"cat"] * 4000, "S8")
    column = pd.Series(frames.columns(data, frames.Layout(data.dtype, "comm"))["comm"])
    assert isinstance(column.dtype, pd.CategoricalDtype)
    assert column.value_counts().to_dict() == {"ls": 8000, "cat": 4000}


def test_log2_buckets_hold_what_bpf_log2l_puts_there() -> None:
    def bpf_log2l(value: int) -> int:
        return max(value, 1).bit_length()

    values = pd.Series([0, 1, 2, 3, 4, 7, 8, 1000, 2**40])
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
