"""Where the records lie in a span of bytes from the wire, laid out as in a ring buffer."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ebpflab.decode.arrays import Array, Dtype
from ebpflab.protocol.framing import BUSY, DISCARD, RECORD_HEADER_BYTES, BadFrame, stride


def count_records(span: bytes) -> int:
    """How many records, DISCARDs left out, a span from the wire holds."""
    step = _uniform_stride(span)
    return len(span) // step if step else len(walk(span)[0])


def end_of(span: bytes, count: int) -> int:
    """Where the first ``count`` records of a span end; of all, with the DISCARDs behind them."""
    step = _uniform_stride(span)
    if step:
        return min(count * step, len(span))
    places, _ = walk(span)
    return int(places[count]) if count < len(places) else len(span)


def _uniform_stride(span: bytes) -> int:
    """The distance of the records of a span when all are alike and none discarded, else 0."""
    if len(span) < RECORD_HEADER_BYTES:
        return 0
    length = int.from_bytes(span[:4], "little")
    step = stride(length)
    if length & (BUSY | DISCARD) or len(span) % step:
        return 0
    headers = np.frombuffer(span, "<u4")[:: step // 4]
    return step if bool((headers == length).all()) else 0


def walk(span: bytes) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint32]]:
    """Where the header of each record that is not a DISCARD stands, and how long its data is.

    Raises BadFrame when the records do not end where the span ends.
    """
    if len(span) % 8:
        raise BadFrame(f"a batch of {len(span):,} bytes is not made of records")
    found, at = [], 0
    words = memoryview(span).cast("I")
    while at < len(words):
        found.append(at)
        at += stride(words[at] & ~DISCARD) // 4
    if at != len(words):
        raise BadFrame("the last record of a batch is longer than what there is of it")
    places = np.array(found, np.int64)
    lengths = np.frombuffer(span, "<u4")[places]
    kept = lengths & DISCARD == 0
    return places[kept] * 4, lengths[kept]


def records(span: bytes, dtype: Dtype, first: int = 0) -> tuple[Array, Array]:
    """The records of a span from number ``first`` on, and the second word of their headers.

    Records of one size are viewed in place. Others are copied, all of a length at once, cut or
    filled with zeros to the size of ``dtype``.
    """
    if not span:
        return np.empty(0, dtype), np.empty(0, "u4")
    step = _uniform_stride(span)
    if step and step - RECORD_HEADER_BYTES >= dtype.itemsize:
        framed = np.dtype(
            {
                "names": ["cpu", "data"],
                "formats": ["<u4", dtype],
                "offsets": [4, 8],
                "itemsize": step,
            }
        )
        view = np.frombuffer(span, framed)[first:]
        return view["data"], view["cpu"]
    places, sizes = (each[first:] for each in walk(span))
    return gathered(span, places, sizes, dtype), second_words(span, places)


def second_words(span: bytes, places: Array) -> Array:
    """The second words of the headers at ``places``: in a perf buffer's records, their CPUs."""
    words: Array = np.frombuffer(span, "<u4")[places // 4 + 1]
    return words


def gathered(span: bytes, places: Array, sizes: Array, dtype: Dtype) -> Array:
    """The records at ``places``, copied, cut or filled with zeros to the size of ``dtype``."""
    raw, copied = np.frombuffer(span, "u1"), np.zeros((len(places), dtype.itemsize), "u1")
    for length in np.unique(sizes):
        alike, size = sizes == length, min(int(length), dtype.itemsize)
        data = places[alike] + RECORD_HEADER_BYTES
        copied[alike, :size] = raw[data[:, None] + np.arange(size)]
    return copied.view(dtype).ravel()


def lengths(span: bytes) -> npt.NDArray[np.uint32]:
    """The different lengths of a span's records."""
    if _uniform_stride(span):
        return np.frombuffer(span, "<u4", 1)
    return np.unique(walk(span)[1])


def raw_records(span: bytes, first: int = 0) -> list[bytes]:
    """The bytes of each record of a span from number ``first`` on."""
    places, sizes = (each[first:] for each in walk(span))
    return bytes_of(span, places, sizes)


def bytes_of(span: bytes, places: Array, sizes: Array) -> list[bytes]:
    """The bytes of the records at ``places``."""
    starts = (places + RECORD_HEADER_BYTES).tolist()
    return [span[at : at + size] for at, size in zip(starts, sizes.tolist(), strict=True)]
