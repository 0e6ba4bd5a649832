"""The wire: length-prefixed frames between a notebook and the agent.

Both directions are byte streams (pipes, a virtio-serial port, ssh). A frame is

    u32 length of the payload | u8 kind | payload                  (little-endian)

    CONTROL   a JSON object: a request, a response, or the agent's hello
    BLOB      u32 request id | bytes: belongs to the response that follows it
    BATCH     u32 stream id | u64 records lost so far | bytes: a span of event records

Requests are ``{"id", "op", ...}``; a response is ``{"id", "ok": {...}}`` or
``{"id", "fault": {"type", "message", "detail"}}``. The agent speaks first: its hello carries
``{"hello": {"protocol", "kernel", "arch", "bcc", "clock_offset_ns", ...}}``.

Inside a BATCH, records stand as the kernel's ring buffer lays them out: u32 length (bit 31
BUSY, never sent; bit 30 DISCARD), u32 of the writer's own, data padded to 8 bytes.

This file is used by both sides: standard library only, Python 3.9.
"""

import json
import os
import struct
from typing import BinaryIO, Dict, Iterator, List, Tuple, Union

PROTOCOL = 1
CONTROL, BLOB, BATCH = 1, 2, 3
HEADER = struct.Struct("<IB")
BLOB_HEADER = struct.Struct("<I")
BATCH_HEADER = struct.Struct("<IQ")

MAX_FRAME_BYTES = 8 << 20  # the largest payload either side sends or accepts
CHUNK_BYTES = 1 << 20  # how senders cut what is larger

BUSY, DISCARD = 1 << 31, 1 << 30  # flags in a record's length
RECORD_HEADER_BYTES = 8

Buffer = Union[bytes, bytearray, memoryview]
Message = Dict[str, object]


class BadFrame(Exception):
    """The bytes received are not a frame of this protocol."""


def stride(length: int) -> int:
    """Bytes from one record's header to the next, for a record of ``length`` data bytes."""
    return (length + RECORD_HEADER_BYTES + 7) & ~7


def encode(kind: int, *parts: Buffer) -> List[Buffer]:
    """A frame as a list of buffers for ``os.writev``; nothing is copied."""
    length = sum(len(part) for part in parts)
    if length > MAX_FRAME_BYTES:
        raise BadFrame(f"a frame of {length:,} bytes is over the limit of {MAX_FRAME_BYTES:,}")
    return [HEADER.pack(length, kind), *parts]


def control(message: Message) -> List[Buffer]:
    """A CONTROL frame."""
    return encode(CONTROL, json.dumps(message, separators=(",", ":")).encode())


def write_frame(fd: int, frame: List[Buffer]) -> None:
    """Write a whole frame. A virtio-serial port accepts part of a write, so this loops."""
    left = [memoryview(part).cast("B") for part in frame if len(part)]
    while left:
        written = os.writev(fd, left)
        while left and written >= len(left[0]):
            written -= len(left.pop(0))
        if written:
            left[0] = left[0][written:]


def read_frames(file: BinaryIO) -> Iterator[Tuple[int, bytes]]:
    """Each frame of a buffered file, as (kind, payload), until its end. Raises BadFrame.

    The file reads what is longer than its buffer to where it stays: a batch is not copied.

    >>> import io
    >>> list(read_frames(io.BytesIO(b"".join(control({"id": 1})))))
    [(1, b'{"id":1}')]
    """
    while True:
        header = file.read(HEADER.size)
        if len(header) < HEADER.size:
            return
        length, kind = HEADER.unpack(header)
        if kind not in (CONTROL, BLOB, BATCH) or length > MAX_FRAME_BYTES:
            raise BadFrame(f"frame header says kind {kind}, {length:,} bytes")
        payload = file.read(length)
        if len(payload) < length:
            return  # cut off
        yield kind, payload


def parse_control(payload: Buffer) -> Message:
    """The JSON object of a CONTROL frame. Raises BadFrame when it is anything else."""
    try:
        message = json.loads(bytes(payload))
    except (ValueError, RecursionError) as error:
        raise BadFrame(f"a control message is not JSON: {error}") from None
    if not isinstance(message, dict):
        raise BadFrame(f"a control message is a {type(message).__name__}, not an object")
    return message
