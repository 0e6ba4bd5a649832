"""What a live view counts of records that are not all alike."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from ebpflab.decode import frames, spans
from ebpflab.decode.btf import Column
from ebpflab.decode.records import RecordType, RecordTypes, decode, numbers
from ebpflab.protocol import framing

LAYOUT = frames.layout_of([Column("n", 0, np.dtype("u4")), Column("m", 4, np.dtype("u8"))], 12, "")


def span(*lengths: int) -> bytes:
    """Records whose bytes are their place, from 1 on."""
    return b"".join(
        (struct.pack("<II", length, 0) + bytes([place] * length)).ljust(
            framing.stride(length), b"!"
        )
        for place, length in enumerate(lengths, start=1)
    )


@pytest.mark.parametrize(
    ("filled", "exact", "firsts", "seconds"),
    [(0, True, [1, 2, 4], [1]), (7, True, [1, 4], [1]), (0, False, [1, 2, 4, 5], [1, 5])],
)
def test_numbers_are_those_of_records_that_have_them(
    filled: int, exact: bool, firsts: list[int], seconds: list[int]
) -> None:
    kind = RecordType("struct e", LAYOUT, 12, exact, filled)
    data, known = span(12, 4, 3, 11, 16), RecordTypes((kind,))
    found = [[int(n) & 0xFF for n in numbers(data, known, each)] for each in ("n", "m")]
    assert found == [firsts, seconds]
    frame, misfits = decode([data], 0, known, per_cpu=False)
    assert [int(n) & 0xFF for n in frame["n"].dropna()] == firsts
    assert [int(n) & 0xFF for n in frame["m"].dropna()] == seconds
    assert misfits == ([16] if exact else [])
    assert list(spans.lengths(data)) == [3, 4, 11, 12, 16]
