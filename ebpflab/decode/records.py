"""Records of a buffer: of which type each is, and its columns.

clang says of which type the argument of each call is that sends a record (`agent/programs/
instrument.py`). Several types through one buffer are told apart by the length of their records, or
by a field that the reader names. A record may be the beginning of its type, where a program sends
as much of it as there is: what is not in it is NA. What fits no type stays bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from ebpflab.decode import frames, spans
from ebpflab.decode.arrays import Array
from ebpflab.decode.btf import NoSuchType, Types
from ebpflab.decode.frames import Layout

TYPE = "struct"
"""The column that names a row's type where there are several: no C field can be called so."""
_BYTES = "data"
_MOST_FILLED = 7  # of a perf buffer: perf_prepare_sample

Mask = npt.NDArray[np.bool_]


class RecordType(NamedTuple):
    """One type that records of a buffer have."""

    name: str
    layout: Layout
    length: int
    """Of its records as they arrive, in bytes: a perf buffer fills them up."""
    exact: bool = True
    """False when the reader says that it is the type: longer records begin with it."""
    filled: int = 0
    """By how many bytes, at most, they may have been filled up with whatever was there."""
    value: int | None = None
    """What the tag field holds in records of this type."""

    def fits(self, lengths: npt.NDArray[np.uint32]) -> Mask:
        """Which records, by their lengths, may be of this type."""
        if self.exact:
            return np.equal(lengths, self.length)
        return np.greater_equal(lengths, self.layout.dtype.itemsize)

    def has(self, until: int, lengths: npt.NDArray[np.uint32]) -> Mask:
        """Which records, though they may end before their type does, have its first bytes."""
        return self.fits(lengths) | (lengths < self.length) & (lengths >= until + self.filled)


class RecordTypes(NamedTuple):
    """The types of a buffer's records. Without any, records are shown as bytes."""

    kinds: tuple[RecordType, ...] = ()
    tag: str | None = None
    why_bytes: str = ""
    """Why records have no type; empty where no call sends one."""

    @property
    def only(self) -> RecordType | None:
        """The one type of all records, where there is one."""
        return self.kinds[0] if len(self.kinds) == 1 and self.tag is None else None

    @property
    def layout(self) -> Layout:
        """The layout of all records; that of bytes where there is not one for all."""
        return self.only.layout if self.only else frames.layout_of([], 0, _BYTES)


def sent(types: Types | None, table: str | None, per_cpu: bool) -> RecordTypes:
    """What clang says of the records of the buffer that ``table`` describes."""
    if table is None:
        return RecordTypes(why_bytes="clang did not take what asks it for their type.")
    if types is None:
        return RecordTypes(
            why_bytes="the kernel has refused clang's description of this program's types. Does"
            " it use float or double?"
        )
    kinds: list[RecordType] = []
    try:
        described = types.sent(table)
    except NoSuchType as error:
        return RecordTypes(why_bytes=f"the agent's description of them is wrong: {error}.")
    for number, name in described:
        kind = record_type(types, number, per_cpu, name)
        if not kind.layout.described:
            return RecordTypes(
                why_bytes="a call that sends them does not tell of which type they are. Where you"
                " know it, say it: .typed('struct event')."
            )
        if all(kind.layout != other.layout for other in kinds):
            kinds.append(kind)
    if len({kind.length for kind in kinds}) < len(kinds):
        names = ", ".join(kind.name for kind in kinds)
        return RecordTypes(
            why_bytes=f"several types go through it ({names}), and records of one length have more"
            " than one. Give each a field that tells which it is, and name it:"
            " .typed({0: 'struct start', 1: 'struct end'}, tag='kind')."
        )
    return RecordTypes(tuple(kinds))


def record_type(types: Types, number: int, per_cpu: bool, name: str = _BYTES) -> RecordType:
    """A type of the program, as that of records; ``name`` is the column of what is no struct."""
    try:
        size = types.size_of(number)
        columns = types.columns_of(number, "" if types.is_struct(number) else name)
    except NoSuchType:
        size, columns = 0, []
    # perf_prepare_sample: a u32, the length, and the record fill a multiple of 8 bytes.
    length = -(-(size + 4) // 8) * 8 - 4 if per_cpu else size
    layout = frames.layout_of(columns, size, _BYTES)
    return RecordType(types.name_of(number), layout, length, filled=_MOST_FILLED if per_cpu else 0)


def decode(
    batches: Sequence[bytes], skip: int, known: RecordTypes, per_cpu: bool
) -> tuple[pd.DataFrame, list[int]]:
    """The rows of ``batches``, without the first ``skip``; and the lengths of those that are of no
    type and shown as bytes."""
    if not known.kinds:
        return pd.DataFrame({_BYTES: spans.raw_records(b"".join(batches), skip)}), []
    kind = known.only
    if kind is not None and all(kind.fits(spans.lengths(each)).all() for each in batches):
        return _alike(batches or [b""], skip, kind.layout, per_cpu), []
    return _mixed(b"".join(batches), skip, known, per_cpu)


def numbers(span: bytes, known: RecordTypes, column: str) -> Array:
    """A column of numbers, of the records of a span that have it; all are of one type."""
    kind = known.only
    assert kind is not None, "there is no column of all"
    data, _ = spans.records(span, kind.layout.dtype)
    if kind.fits(spans.lengths(span)).all():
        return data[column]
    _, lengths = spans.walk(span)
    [wanted] = [each for each in kind.layout.columns if each.name == column]
    return data[column][kind.has(wanted.offset + wanted.dtype.itemsize, lengths)]


def _alike(batches: Sequence[bytes], skip: int, layout: Layout, per_cpu: bool) -> pd.DataFrame:
    parts = [spans.records(batch, layout.dtype) for batch in batches]
    data, cpus = [data for data, _ in parts], [cpus for _, cpus in parts]
    data[0], cpus[0] = data[0][skip:], cpus[0][skip:]  # rows of one batch, at most
    columns = frames.columns(data, layout)
    if per_cpu and "cpu" not in columns:
        columns["cpu"] = np.concatenate(cpus)
    return pd.DataFrame(columns, copy=False)


def _mixed(
    span: bytes, skip: int, known: RecordTypes, per_cpu: bool
) -> tuple[pd.DataFrame, list[int]]:
    """Rows of several types: each has the columns of its own type, and NA in the others."""
    places, lengths = spans.walk(span)
    places, lengths = places[skip:], lengths[skip:]
    left = np.ones(len(places), np.bool_)
    parts = []
    for kind, mask in _told_apart(span, places, lengths, known):
        left &= ~mask
        data = spans.gathered(span, places[mask], lengths[mask], kind.layout.dtype)
        part = pd.DataFrame(frames.columns([data], kind.layout), np.flatnonzero(mask))
        part = part.astype({name: _nullable(part[name]) for name in part})
        _leave_out(part, kind, lengths[mask])
        if known.only is None:
            part.insert(0, TYPE, kind.name)
        parts.append(part)
    if left.any():
        column = frames.free(_BYTES, [str(name) for part in parts for name in part])
        raw = spans.bytes_of(span, places[left], lengths[left])
        parts.append(pd.DataFrame({column: pd.Series(raw, np.flatnonzero(left), object)}))
    frame = pd.concat(parts).sort_index()
    if per_cpu and "cpu" not in frame:
        frame["cpu"] = spans.second_words(span, places)[frame.index]
    return frame, np.unique(lengths[left]).tolist()


def _told_apart(
    span: bytes, places: Array, lengths: Array, known: RecordTypes
) -> Iterator[tuple[RecordType, Mask]]:
    for kind in known.kinds:
        mask = kind.fits(lengths)
        if known.only:
            mask |= lengths < kind.length
        if known.tag is not None:
            layout = kind.layout
            data = spans.gathered(span, places, lengths, layout.dtype)
            mask &= np.asarray(data[known.tag] == kind.value)
        yield kind, mask


def _leave_out(part: pd.DataFrame, kind: RecordType, lengths: npt.NDArray[np.uint32]) -> None:
    """Make NA what is not in records that end before their type does; cut text and bytes."""
    for column in kind.layout.columns:
        size = column.dtype.itemsize if column.bits is None else -(-sum(column.bits) // 8)
        open_ended = column.kind in ("text", "bytes") and column.dtype.subdtype is None
        some = kind.has(column.offset + (1 if open_ended else size), lengths)
        part.loc[part.index[~some], column.name] = None
        if column.kind == "bytes" and open_ended:
            values = part[column.name].tolist()
            for at in np.flatnonzero(some & ~kind.has(column.offset + size, lengths)):
                values[at] = values[at][: int(lengths[at]) - kind.filled - column.offset]
            part[column.name] = pd.Series(values, part.index, object)


def _nullable(column: pd.Series[Any]) -> Any:
    """A type of the same numbers that has NA."""
    if column.dtype.kind in "iu" and isinstance(column.dtype, np.dtype):
        return ("UInt" if column.dtype.kind == "u" else "Int") + str(column.dtype.itemsize * 8)
    return "boolean" if column.dtype == bool else column.dtype


def tagged(types: Mapping[int, RecordType], tag: str) -> RecordTypes:
    """Types that are told apart by the number in the field ``tag``, which all have at one place.

    Raises ValueError, in words, where they have not.
    """
    found = set()
    for kind in types.values():
        columns = {each.name: each for each in kind.layout.columns}
        if tag not in columns or columns[tag].dtype.kind not in "iu" or columns[tag].bits:
            raise ValueError(f"{kind.name} has no field {tag!r} that is a whole number")
        found.add((columns[tag].offset, columns[tag].dtype))
    if len(found) > 1:
        raise ValueError(f"the field {tag!r} does not lie at the same place in each type")
    kinds = (kind._replace(value=value) for value, kind in types.items())
    return RecordTypes(tuple(kinds), tag)
