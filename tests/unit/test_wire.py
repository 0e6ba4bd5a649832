"""The wire: frames survive any cutting of the stream; garbage is refused."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebpflab.agent import wire

FRAMES = st.lists(
    st.tuples(st.sampled_from([wire.CONTROL, wire.BLOB, wire.BATCH]), st.binary(max_size=300)),
    max_size=8,
)


def _joined(frame: list[wire.Buffer]) -> bytes:
    return b"".join(bytes(part) for part in frame)


@given(FRAMES, st.lists(st.integers(1, 40), min_size=1))
def test_frames_survive_any_cutting(frames: list[tuple[int, bytes]], cuts: list[int]) -> None:
    stream = b"".join(_joined(wire.encode(kind, payload)) for kind, payload in frames)
    decoder, found, at, turn = wire.Decoder(), [], 0, 0
    while at < len(stream):
        step = cuts[turn % len(cuts)]
        decoder.feed(stream[at : at + step])
        found += [(kind, bytes(payload)) for kind, payload in decoder.frames()]
        at, turn = at + step, turn + 1
    assert found == frames


@given(st.binary(max_size=200))
def test_garbage_is_refused_or_waits_for_more(data: bytes) -> None:
    decoder = wire.Decoder()
    decoder.feed(data)
    try:
        for kind, payload in decoder.frames():
            assert kind in (wire.CONTROL, wire.BLOB, wire.BATCH)
            assert len(payload) <= wire.MAX_FRAME_BYTES
    except wire.BadFrame:
        pass


def test_a_giant_length_is_refused_before_anything_is_kept_for_it() -> None:
    decoder = wire.Decoder()
    decoder.feed(wire.HEADER.pack(0xFFFFFFFF, wire.BATCH))
    with pytest.raises(wire.BadFrame, match="4,294,967,295 bytes"):
        list(decoder.frames())


def test_a_frame_over_the_limit_is_not_sent() -> None:
    with pytest.raises(wire.BadFrame, match="over the limit"):
        wire.encode(wire.BATCH, bytes(wire.MAX_FRAME_BYTES + 1))


@pytest.mark.parametrize("payload", [b"", b"[1]", b"\xff", b'"text"', b"[" * 100_000])
def test_a_control_message_is_an_object(payload: bytes) -> None:
    with pytest.raises(wire.BadFrame):
        wire.parse_control(payload)


def test_partial_writes_are_continued() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, True)
    payload = os.urandom(40_000)
    wire.write_frame(writer, wire.encode(wire.BATCH, payload[:10], payload[10:]))
    decoder = wire.Decoder()
    decoder.feed(os.read(reader, 1 << 20))
    assert [bytes(found) for _, found in decoder.frames()] == [payload]
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize(("length", "expected"), [(0, 8), (1, 16), (8, 16), (9, 24), (40, 48)])
def test_stride(length: int, expected: int) -> None:
    assert wire.stride(length) == expected
