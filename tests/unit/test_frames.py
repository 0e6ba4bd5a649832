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

from ebpflab.decode import frames, spans
from ebpflab.decode.btf import Bits, Column
from ebpflab.protocol import framing

EVENT = frames.layout_of(
    [Column("n", 0, np.dtype("u8")), Column("name", 8, np.dtype("S8"), "text")], 16, "data"
)
"""``struct event { u64 n; char name[8]; }``"""


def _record(data: bytes, flags: int = 0, word: int = 0) -> bytes:
    return (struct.pack("<II", len(data) | flags, word) + data).ljust(
        framing.stride(len(data)), b"\0"
    )


def _columns(data: npt.NDArray[Any]) -> dict[str, Any]:
    """The column ``comm`` of an array of strings."""
    layout = frames.layout_of([Column("comm", 0, data.dtype, "text")], data.dtype.itemsize, "data")
    return frames.columns([data.view(layout.dtype)], layout)


def _event(n: int, name: bytes = b"x") -> bytes:
    return struct.pack("<Q8s", n, name)


@given(st.lists(st.integers(0, 2**64 - 1), max_size=50), st.integers(0, 60))
def test_records_of_one_size(numbers: list[int], first: int) -> None:
    span = b"".join(_record(_event(n), word=n % 7) for n in numbers)
    assert spans.count_records(span) == len(numbers)
    data, words = spans.records(span, EVENT.dtype, first)
    assert list(data["n"]) == numbers[first:]
    assert list(words) == [n % 7 for n in numbers[first:]]


@given(st.lists(st.tuples(st.integers(0, 1000), st.booleans(), st.integers(8, 30)), max_size=30))
def test_mixed_sizes_and_discards(rows: list[tuple[int, bool, int]]) -> None:
    span = b"".join(
        _record(_event(n, b"abcdefgh").ljust(30, b"!")[:size], framing.DISCARD if gone else 0)
        for n, gone, size in rows
    )
    kept = [(n, size) for n, gone, size in rows if not gone]
    assert spans.count_records(span) == len(kept)
    data, _ = spans.records(span, EVENT.dtype)
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
        parts = [spans.records(batch, layout.dtype)[0] for batch in batches]
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
