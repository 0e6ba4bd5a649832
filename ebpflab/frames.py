"""From record bytes to DataFrames.

BCC describes a C type as JSON: a scalar is its name, a struct is ``[name, [[field, type], ...],
"struct" | "struct_packed" | "union"]``, an array field has a third element ``[n]``, and padding
is spelt out as fields named ``__pad_N``. `dtype_of` turns that into a numpy dtype; records are
then read where they lie, as a strided array, and copied once, into the columns.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from ebpflab.agent.wire import BUSY, DISCARD, RECORD_HEADER_BYTES, stride

_SCALARS = {
    "_Bool": "?",
    "char": "S1",
    "signed char": "i1",
    "unsigned char": "u1",
    "short": "i2",
    "unsigned short": "u2",
    "int": "i4",
    "unsigned int": "u4",
    "long": "i8",
    "unsigned long": "u8",
    "long long": "i8",
    "unsigned long long": "u8",
    "float": "f4",
    "double": "f8",
}
_CATEGORICAL_FROM_ROWS = 10_000
_MAX_ELEMENT_COLUMNS = 16

Records = npt.NDArray[Any]


class UndescribedType(Exception):
    """A C type that is not turned into columns: bit fields, __int128."""


class Layout(NamedTuple):
    """How the bytes of a record, key or value are read."""

    dtype: np.dtype[Any]
    scalar: str | None = None
    """Column name when the type is not a struct."""
    described: bool = True
    """False when the bytes are shown as they are."""


def layout_of(description: str | None, size_bytes: int, name: str) -> Layout:
    """The layout for BCC's JSON ``description`` of a type of ``size_bytes``.

    Raw bytes in a column ``name`` where there is no description, or one that is not the whole
    truth: of ``char args[4][32]`` BCC tells the 4 alone, and all that follows would be misread.
    """
    raw = Layout(np.dtype(f"V{size_bytes}"), name, described=False)
    if not description:
        return raw
    try:
        dtype = dtype_of(json.loads(description))
    except UndescribedType:
        return raw
    if dtype.itemsize != size_bytes:
        return raw
    if dtype.names and len(dtype.names) == 1:  # the struct that only names a record
        name, inner = dtype.names[0], dtype.fields[dtype.names[0]][0]  # type: ignore[index]
        dtype = inner
    return Layout(dtype, None if dtype.names else name)


def dtype_of(description: Any) -> np.dtype[Any]:
    """The numpy dtype of a C type described by BCC.

    >>> dtype_of(["e", [["pid", "unsigned int"], ["comm", "char", [4]]], "struct_packed"])
    dtype([('pid', '<u4'), ('comm', 'S4')])
    """
    if isinstance(description, str):
        if description.endswith("*"):
            return np.dtype("u8")
        if description not in _SCALARS:
            raise UndescribedType(description)
        return np.dtype(_SCALARS[description])
    kind = description[2] if len(description) > 2 else "struct"
    names, formats, offsets, end, widest = [], [], [], 0, 1
    for index, field in enumerate(description[1]):
        name, dtype = field[0] or f"anon{index}", _field_dtype(field)
        align = 1 if kind == "struct_packed" else _alignment(dtype)
        start = 0 if kind == "union" else -(-end // align) * align
        end, widest = max(end, start + dtype.itemsize), max(widest, align)
        names.append(name)
        formats.append(dtype)
        offsets.append(start)
    size = -(-end // widest) * widest
    if not any(name.startswith("__pad_") for name in names) and _is_plain(formats, offsets, size):
        return np.dtype(list(zip(names, formats, strict=True)))
    kept = [i for i, name in enumerate(names) if not name.startswith("__pad_")]
    return np.dtype(
        {
            "names": [names[i] for i in kept],
            "formats": [formats[i] for i in kept],
            "offsets": [offsets[i] for i in kept],
            "itemsize": size,
        }
    )


def _is_plain(formats: list[np.dtype[Any]], offsets: list[int], size: int) -> bool:
    ends = np.cumsum([0, *(dtype.itemsize for dtype in formats)])
    return offsets == list(ends[:-1]) and size == ends[-1]


def _field_dtype(field: list[Any]) -> np.dtype[Any]:
    if len(field) == 2:
        return dtype_of(field[1])
    extra = field[2]
    if isinstance(extra, list):
        if field[1] == "char":
            return np.dtype(f"S{extra[0]}")
        return np.dtype((dtype_of(field[1]), (extra[0],)))
    if isinstance(extra, int):
        raise UndescribedType(f"bit field {field[0]}")
    return dtype_of(field)  # an anonymous struct or union: the field itself is its description


def _alignment(dtype: np.dtype[Any]) -> int:
    if dtype.subdtype is not None:
        return _alignment(dtype.subdtype[0])
    if dtype.fields:
        return max(_alignment(inner[0]) for inner in dtype.fields.values())
    return 1 if dtype.kind in "SV" else dtype.itemsize


def count_records(span: bytes) -> int:
    """How many records, DISCARDs left out, a span from the wire holds."""
    step = _uniform_stride(span)
    return len(span) // step if step else len(_walk(span))


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


def _walk(span: bytes) -> list[tuple[int, int]]:
    """(offset of the header, length of the data) of each record that is not a DISCARD."""
    found, offset = [], 0
    words = np.frombuffer(span, "<u4")
    while offset < len(span):
        length = int(words[offset // 4])
        if not length & DISCARD:
            found.append((offset, length))
        offset += stride(length & ~DISCARD)
    return found


def records(span: bytes, dtype: np.dtype[Any], first: int = 0) -> tuple[Records, Records]:
    """The records of a span from number ``first`` on, and the second word of their headers.

    Records of one size are viewed in place. Others are copied one by one, cut or filled with
    zeros to the size of ``dtype``.
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
    places = _walk(span)[first:]
    size = dtype.itemsize
    copied = b"".join(span[at + 8 : at + 8 + min(n, size)].ljust(size, b"\0") for at, n in places)
    cpus = np.array([int.from_bytes(span[at + 4 : at + 8], "little") for at, _ in places], "u4")
    return np.frombuffer(copied, dtype), cpus


def raw_records(span: bytes, first: int = 0) -> list[bytes]:
    """The bytes of each record of a span from number ``first`` on."""
    start = RECORD_HEADER_BYTES
    return [span[at + start : at + start + length] for at, length in _walk(span)[first:]]


def columns(data: Records, layout: Layout) -> dict[str, Any]:
    """The columns of an array of records: nested fields are named ``outer.inner``."""
    if layout.scalar is not None:
        return _column(layout.scalar, data)
    found: dict[str, Any] = {}
    for name in data.dtype.names or ():
        found.update(_column(name, data[name]))
    return found


def _column(name: str, data: Records) -> dict[str, Any]:
    if data.dtype.names:
        nested = columns(data, Layout(data.dtype))
        return {f"{name}.{inner}": column for inner, column in nested.items()}
    if data.ndim > 1:
        if data.shape[1] > _MAX_ELEMENT_COLUMNS or data.dtype.kind in "SV":
            return {name: [row.tobytes() for row in data]}
        return {f"{name}[{i}]": np.ascontiguousarray(data[:, i]) for i in range(data.shape[1])}
    if data.dtype.kind == "S":
        return {name: _strings(np.ascontiguousarray(data))}
    if data.dtype.kind == "V":
        return {name: [row.tobytes() for row in data]}
    return {name: np.ascontiguousarray(data)}


def _strings(data: Records) -> Any:
    """C strings: each ends at its first NUL; what is not UTF-8 is shown as U+FFFD.

    Dictionary-encoded from 10,000 rows on, where the same few names repeat.
    """
    codes, values = pd.factorize(data.astype(object))
    texts = [bytes(value).split(b"\0", 1)[0].decode(errors="replace") for value in values]
    if len(data) < _CATEGORICAL_FROM_ROWS:
        return pd.array(np.array(texts, object)[codes] if texts else [], dtype="str")
    recoded, categories = pd.factorize(np.array(texts, object))
    kinds: pd.CategoricalDtype[str] = pd.CategoricalDtype(list(categories))
    return pd.Categorical.from_codes(recoded[codes], dtype=kinds)


def histogram(keys: npt.NDArray[Any], counts: npt.NDArray[Any], scale: str) -> pd.DataFrame:
    """Buckets of BCC's ``BPF_HISTOGRAM`` as an IntervalIndex, from the first to the last used.

    ``log2``: slot n holds the values whose bpf_log2l() is n: 0 and 1, 2 and 3, 4 to 7, ...
    ``linear``: slot n holds the value n. Buckets are closed on the left: [4, 8) is 4 to 7.
    """
    if scale not in ("log2", "linear"):
        raise ValueError(f"scale is 'log2' or 'linear', not {scale!r}")
    used = keys[counts > 0].astype("i8")
    slots = max(int(used.max()) + 1, 2) if len(used) else 0
    dense = np.zeros(slots, "i8")
    np.add.at(dense, keys[counts > 0].astype("i8"), counts[counts > 0].astype("i8"))
    edges = np.arange(len(dense) + 1, dtype="i8")
    if scale == "log2" and len(dense):
        dense[1] += dense[0]  # bpf_log2l() gives 1 for both 0 and 1
        dense = dense[1:]
        edges = np.concatenate([[0], 1 << np.arange(1, len(dense) + 1, dtype="i8")])
    buckets = pd.IntervalIndex.from_breaks(edges, closed="left", name="bucket")
    return pd.DataFrame({"count": dense}, index=buckets)
