"""The wire: frames survive any cutting of the stream; garbage is refused."""

from __future__ import annotations

import io
import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebpflab.protocol import framing

FRAMES = st.lists(
    st.tuples(
        st.sampled_from([framing.CONTROL, framing.BLOB, framing.BATCH]), st.binary(max_size=300)
    ),
    max_size=8,
)


class Dripping(io.RawIOBase):
    """A stream of which each read gets the next few bytes."""

    def __init__(self, stream: bytes, cuts: list[int]) -> None:
        self._stream, self._cuts, self._turn = stream, cuts, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        size = min(self._cuts[self._turn % len(self._cuts)], len(buffer), len(self._stream))
        buffer[:size], self._stream = self._stream[:size], self._stream[size:]
        self._turn += 1
        return size


def _joined(frame: list[framing.Buffer]) -> bytes:
    return b"".join(bytes(part) for part in frame)


@given(FRAMES, st.lists(st.integers(1, 40), min_size=1))
def test_frames_survive_any_cutting(frames: list[tuple[int, bytes]], cuts: list[int]) -> None:
    stream = b"".join(_joined(framing.encode(kind, payload)) for kind, payload in frames)
    for buffer_bytes in (16, 8192):
        file = io.BufferedReader(Dripping(stream, cuts), buffer_bytes)
        assert list(framing.read_frames(file)) == frames


@given(FRAMES, st.integers(1, 300))
def test_a_stream_that_is_cut_off_gives_its_whole_frames(
    frames: list[tuple[int, bytes]], missing: int
) -> None:
    whole = [_joined(framing.encode(kind, payload)) for kind, payload in frames]
    stream = b"".join(whole)[:-missing]
    found = list(framing.read_frames(io.BytesIO(stream)))
    assert found == frames[: len(found)]
    assert len(b"".join(whole[: len(found) + 1])) > len(stream) or not frames


@given(st.binary(max_size=200))
def test_garbage_is_refused_or_waits_for_more(data: bytes) -> None:
    try:
        for kind, payload in framing.read_frames(io.BytesIO(data)):
            assert kind in (framing.CONTROL, framing.BLOB, framing.BATCH)
            assert len(payload) <= framing.MAX_FRAME_BYTES
    except framing.BadFrame:
        pass


def test_a_giant_length_is_refused_before_anything_is_kept_for_it() -> None:
    giant = io.BytesIO(framing.HEADER.pack(0xFFFFFFFF, framing.BATCH))
    with pytest.raises(framing.BadFrame, match="4,294,967,295 bytes"):
        list(framing.read_frames(giant))


def test_a_frame_over_the_limit_is_not_sent() -> None:
    with pytest.raises(framing.BadFrame, match="over the limit"):
        framing.encode(framing.BATCH, bytes(framing.MAX_FRAME_BYTES + 1))


@pytest.mark.parametrize("payload", [b"", b"[1]", b"\xff", b'"text"', b"[" * 100_000])
def test_a_control_message_is_an_object(payload: bytes) -> None:
    with pytest.raises(framing.BadFrame):
        framing.parse_control(payload)


def test_partial_writes_are_continued() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, True)
    payload = os.urandom(40_000)
    framing.write_frame(writer, framing.encode(framing.BATCH, payload[:10], payload[10:]))
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        assert [found for _, found in framing.read_frames(file)] == [payload]


@pytest.mark.parametrize(("length", "expected"), [(0, 8), (1, 16), (8, 16), (9, 24), (40, 48)])
def test_stride(length: int, expected: int) -> None:
    assert framing.stride(length) == expected
