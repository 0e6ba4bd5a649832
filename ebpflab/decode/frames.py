"""From record bytes to DataFrames.

A `Layout` says how the bytes of a record, key or value are read: the columns of `btf`, as one
numpy dtype in which each column is a field at its place (those of a union overlap). Records are
read where they lie, as a strided array, and copied once, into the columns.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Container, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ebpflab.decode.arrays import Array, Dtype
from ebpflab.decode.btf import Bits, Column, NoSuchType, Types

_CATEGORICAL_FROM_ROWS = 10_000

Records = Array


class Layout(NamedTuple):
    """How the bytes of a record, key or value are read."""

    dtype: Dtype
    columns: tuple[Column, ...]
    described: bool = True
    """False when the bytes are shown as they are."""


def layout_of(columns: Sequence[Column], size_bytes: int, name: str) -> Layout:
    """The layout of ``columns`` in ``size_bytes``; without any, raw bytes in a column ``name``."""
    described = bool(columns)
    # A struct that is one address, struct in6_addr, has no field to be called after.
    columns = [each if each.name else each._replace(name=name) for each in columns]
    if not described:
        columns = [Column(name, 0, np.dtype(f"V{size_bytes}"), "bytes")]
    dtype = np.dtype(
        {
            "names": [column.name for column in columns],
            "formats": [_stored(column) for column in columns],
            "offsets": [column.offset for column in columns],
            "itemsize": size_bytes,
        }
    )
    return Layout(dtype, tuple(columns), described)


def layout_in(types: Types | None, table: str, part: str, size_bytes: int) -> Layout:
    """The layout of a map's ``part``, "key" or "value".

    Where clang's table of types does not tell it, a number of 4 or 8 bytes, or else raw bytes.
    """
    columns: list[Column] = []
    if types is not None:
        try:
            number = types.map_types(table)[part]
            if types.size_of(number) == size_bytes:
                columns = types.columns_of(number, "" if types.is_struct(number) else part)
        except (NoSuchType, KeyError):
            pass
    if not columns and size_bytes in (4, 8):
        columns = [Column(part, 0, np.dtype(f"u{size_bytes}"))]
    return layout_of(columns, size_bytes, part)


def _stored(column: Column) -> Dtype:
    """What of a record a column is made from: of a bit field, all bytes that hold some of it."""
    if column.bits is None:
        return column.dtype
    return np.dtype((np.uint8, (-(-sum(column.bits) // 8),)))


def columns(parts: Sequence[Records], layout: Layout) -> dict[str, Any]:
    """The columns of arrays of records, one array after the other."""
    found: dict[str, Any] = {}
    for column in layout.columns:
        pieces = [part[column.name] for part in parts]
        whole = np.concatenate(pieces) if len(pieces) > 1 else np.array(pieces[0])
        found[column.name] = _values(column, whole)
    return found


def side_by_side(
    keys: dict[str, Any], cpus: Array | None, values: dict[str, Any]
) -> dict[str, Any]:
    """The columns of a map. None is lost: the later one of two that share a name gets another.

    >>> side_by_side({"cpu": 1, "value": 2}, 3, {"value": 4, "value_value": 5})
    {'cpu': 1, 'value': 2, 'cpu_': 3, 'value_value_': 4, 'value_value': 5}
    """
    names = {*keys, *values}
    found = dict(keys)
    if cpus is not None:
        found[free("cpu", names)] = cpus
    for name, column in values.items():
        found[free(f"{name}_value", names | {*found}) if name in found else name] = column
    return found


def free(name: str, taken: Container[str]) -> str:
    """A name for a column of ours: ``name``, with as many underscores as make it another's not."""
    while name in taken:
        name += "_"
    return name


def now() -> str:
    """This moment, as text: what is in ``attrs`` must fit into JSON, for a file of a DataFrame."""
    return pd.Timestamp.now(tz="UTC").isoformat()


def _values(column: Column, data: Records) -> Any:
    if column.bits is not None:
        data = _bit_field(data, column.bits, column.dtype)
    if data.ndim > 1:
        return _rows_of_arrays(column, data)
    if column.enumerators is not None:
        return _names(data, column.enumerators)
    if column.kind == "text":
        return _strings(data)
    if column.kind == "bytes":
        return [row.tobytes() for row in data]
    if column.kind == "ipv6":
        return _for_each_kind(data, lambda raw: str(ipaddress.IPv6Address(raw)))
    if column.kind == "int128":
        return _for_each_kind(data, lambda raw: int.from_bytes(raw, "little", signed=True))
    return data


def _rows_of_arrays(column: Column, data: Records) -> list[Any]:
    """An array that is too long for a column each: an array a row."""
    if column.kind != "text":
        return list(data)
    texts = np.array(_strings(data.reshape(-1)), object).reshape(data.shape)
    return [row.tolist() for row in texts]


def _bit_field(data: Records, bits: Bits, dtype: Dtype) -> Records:
    """The numbers in bit fields, from the bytes that hold them."""
    shift, width = bits
    words = np.zeros((len(data), 16), "u1")
    words[:, : data.shape[1]] = data
    low, high = words.view("<u8").T
    number = low >> np.uint64(shift)
    if shift + width > 64:
        number |= high << np.uint64(64 - shift)
    unused = np.uint64(64 - width)
    number = number << unused  # the sign, where there is one, is now the highest bit
    if dtype.kind == "i":
        return (number.view("i8") >> np.int64(64 - width)).astype(dtype)
    return (number >> unused).astype(dtype)


def _names(data: Records, enumerators: dict[int, str]) -> Any:
    """Values of an enum by their C names; a value that has none is its number."""
    known = np.array(list(enumerators), data.dtype)
    unknown = np.setdiff1d(np.unique(data), known)
    values = np.concatenate([known, unknown])
    order = np.argsort(values)
    codes = order[np.searchsorted(values[order], data)]
    names = [*enumerators.values(), *(str(value) for value in unknown)]
    return pd.Categorical.from_codes(codes, dtype=pd.CategoricalDtype(names))


def _for_each_kind(data: Records, make: Any) -> Records:
    """``make(bytes)`` of each item, called once for those that are alike."""
    codes, first = _alike(data)
    made = np.empty(len(first), object)
    made[:] = [make(data[index].tobytes()) for index in first]
    return made[codes]


def _strings(data: Records) -> Any:
    """C strings: each ends at its first NUL; what is not UTF-8 is shown as U+FFFD.

    Dictionary-encoded from 10,000 rows on, where the same few names repeat.
    """
    codes, first = _alike(data)
    texts = [bytes(data[index]).split(b"\0", 1)[0].decode(errors="replace") for index in first]
    if len(data) < _CATEGORICAL_FROM_ROWS or len(texts) > len(data) // 2:
        return pd.array(np.array(texts, object)[codes] if texts else [], dtype="str")
    recoded, categories = pd.factorize(np.array(texts, object))  # what follows a NUL is gone now
    kinds = pd.CategoricalDtype(list(categories))
    return pd.Categorical.from_codes(recoded.astype("i4")[codes], dtype=kinds)


def _alike(data: Records) -> tuple[Records, Records]:
    """Which of the different items each is, by number, and where each first appears.

    Items are compared by a hash of their bytes, 8 at a time; that no two different ones share a
    hash is then checked, and where they do, the items are sorted, which is slow and exact.
    """
    if not len(data):
        return np.zeros(0, "i8"), np.zeros(0, "i8")
    words = _as_words(data)
    hashes = np.zeros(len(data), "u8")
    for index in range(words.shape[1]):
        hashes ^= words[:, index]
        hashes *= np.uint64(0x9E3779B97F4A7C15)
        hashes ^= hashes >> np.uint64(29)
    codes, unique = pd.factorize(hashes)
    first = np.empty(len(unique), "i8")
    first[codes[::-1]] = np.arange(len(data) - 1, -1, -1)
    if not all((words[:, i] == words[first, i][codes]).all() for i in range(words.shape[1])):
        _, first, codes = np.unique(
            np.ascontiguousarray(words).view(f"V{words.shape[1] * 8}").ravel(),
            return_index=True,
            return_inverse=True,
        )
    return codes, first


def _as_words(data: Records) -> Records:
    """The bytes of each item as u64, filled up with zeros; a view where that fits."""
    size = data.dtype.itemsize
    data = np.ascontiguousarray(data)
    if size % 8 == 0:
        return data.view("u8").reshape(len(data), size // 8)
    padded = np.zeros((len(data), -(-size // 8) * 8), "u1")
    padded[:, :size] = data.view("u1").reshape(len(data), size)
    return padded.view("u8")


def run_stats(
    probes: dict[str, list[str]],
    counted: Mapping[str, Mapping[str, object]],
    attrs: dict[str, object],
) -> pd.DataFrame:
    """The kernel's run statistics, a row for each function; what was not counted is NA."""
    rows = [
        {"function": function, "probe": ", ".join(places), **counted.get(function, {})}
        for function, places in probes.items()
    ]
    names = ["function", "probe", "hits", "ns_per_hit", "total_ns", "misses"]
    frame = pd.DataFrame(rows, columns=names).astype(
        {"function": "str", "probe": "str", "hits": "Int64", "total_ns": "Int64", "misses": "Int64"}
    )
    frame["ns_per_hit"] = frame["total_ns"] / frame["hits"].mask(frame["hits"] == 0)
    frame.attrs.update(attrs, end=now())
    return frame
