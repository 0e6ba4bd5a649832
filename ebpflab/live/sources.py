"""What is new in a stream or a table since the last look, counted by bucket.

A bucket is a power of two, as in BCC's ``bpf_log2l``: bucket 1 holds 0 and 1, bucket 2 holds 2
and 3, bucket 3 holds 4 to 7, and so on; bucket 0 holds what is negative. A table of scale
"linear" has a bucket for each value, and the last one, 255, for all above it as well.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from ebpflab.decode import frames, histograms, records
from ebpflab.decode.arrays import Array
from ebpflab.plots.units import amount, edge, unit_of

Counts = npt.NDArray[np.int64]

ROWS = 10
"""How many rows a live view shows."""
_LOG2_BUCKETS, _LINEAR_BUCKETS = 65, 256
_POWERS = 1 << np.arange(1, 64, dtype=np.uint64)
_MOMENTS_AND_IDS = ("time_ns", "at_ns", "start_ns", "ts", "pid", "tid", "ppid", "uid", "cpu")


class Look(NamedTuple):
    """What is new since the last look."""

    events: int
    lost: int
    counts: Counts
    """Events by bucket."""


class Arrivals(Protocol):
    """What a live view needs of a `Stream`."""

    name: str
    lost: int
    _known: records.RecordTypes

    def _since(self, row: int) -> tuple[int, list[tuple[int, bytes]]]: ...
    def _decode(self, batches: list[bytes], skip: int) -> pd.DataFrame: ...


class Counted(Protocol):
    """What a live view needs of a `Table`."""

    name: str

    @property
    def _layouts(self) -> tuple[frames.Layout, frames.Layout]: ...
    def _read(self) -> tuple[frames.Records, frames.Records, frames.Records | None]: ...


class StreamSource:
    """Records of a ring or perf buffer, as they arrive."""

    def __init__(self, stream: Arrivals, column: str | None) -> None:
        self.name, self._stream = stream.name, stream
        self.columns = numeric(stream._known.layout)
        self.column = column or _likely(self.columns)
        self.buckets = _LOG2_BUCKETS
        self._seen, _ = stream._since(0)
        self._seen_lost = stream.lost
        self._tail: list[tuple[int, bytes]] = []

    @property
    def subject(self) -> str:
        """What the buckets are buckets of."""
        return self.column or ""

    @property
    def totals(self) -> tuple[int, int | None]:
        """(events, lost) since the program was loaded."""
        return self._seen, self._stream.lost

    def look(self) -> Look:
        """Count what has arrived since the last look."""
        seen, batches = self._stream._since(self._seen)
        lost = self._stream.lost
        news = Look(seen - self._seen, lost - self._seen_lost, self._count(batches))
        self._seen, self._seen_lost = seen, lost
        # Ten batches have ten rows; the newest ones often have them alone.
        self._tail = (self._tail + batches)[-ROWS:]
        while sum(rows for rows, _ in self._tail[1:]) >= ROWS:
            del self._tail[0]
        return news

    def newest(self) -> pd.DataFrame:
        """The last rows, the newest first."""
        skip = max(sum(rows for rows, _ in self._tail) - ROWS, 0)
        return self._stream._decode([data for _, data in self._tail], skip)[::-1]

    def label(self, bucket: int) -> str:
        """The smallest value of a bucket, as a person would write it."""
        return log2_label(bucket, unit_of(self.column))

    def _count(self, batches: list[tuple[int, bytes]]) -> Counts:
        if not batches or self.column is None:
            return np.zeros(self.buckets, np.int64)
        known = self._stream._known
        parts = [records.numbers(data, known, self.column) for _, data in batches]
        return log2_counts(np.concatenate(parts))


class TableSource:
    """A map that the kernel counts in. What is new is the difference to the last look."""

    def __init__(self, table: Counted, scale: str | None, unit: str) -> None:
        self.name, self._table, self._scale, self._unit = table.name, table, scale, unit
        self._keys, self._values = table._layouts
        self.columns = numeric(self._values)
        self.column = self.columns[0] if self.columns else None
        self.buckets = _LINEAR_BUCKETS if scale == "linear" else _LOG2_BUCKETS
        self._rows = pd.DataFrame()
        self._total, self._counts = self._read()

    @property
    def subject(self) -> str:
        """What the buckets are buckets of: the table's name, whose column is only called value."""
        return self.name

    @property
    def totals(self) -> tuple[int, int | None]:
        """(sum of the counts, None: what is counted in the kernel is not sent and not lost)."""
        return self._total, None

    def look(self) -> Look:
        """Read the map, and tell what it has more of than at the last look."""
        total, counts = self._read()
        news = Look(max(total - self._total, 0), 0, np.maximum(counts - self._counts, 0))
        self._total, self._counts = total, counts
        return news

    def newest(self) -> pd.DataFrame:
        """The entries with the largest counts; none of a histogram, whose picture says it."""
        return self._rows

    def label(self, bucket: int) -> str:
        """The smallest value of a bucket, as a person would write it."""
        if self._scale == "linear" and bucket >= _LINEAR_BUCKETS - 1:  # has all above it as well
            return f"≥ {amount(_LINEAR_BUCKETS - 1, self._unit)}"
        if self._scale == "linear":
            return amount(bucket, self._unit)
        return log2_label(bucket, self._unit)

    def _read(self) -> tuple[int, Counts]:
        keys, values, _ = self._table._read()
        counts = np.zeros(self.buckets, np.int64)
        if self.column is None:
            return 0, counts
        numbers = _whole(values[self.column])
        if self._scale is None:
            self._rows = self._largest(keys, values, numbers)
        else:
            used = numbers > 0
            slots = histograms.slots(keys[self._keys.columns[0].name][used], self._scale)
            if self._scale == "log2":
                slots = np.maximum(slots, 1)  # bpf_log2l() gives 1 for both 0 and 1
            np.add.at(counts, np.minimum(slots, self.buckets - 1), numbers[used])
        # In two halves, whose sums have room.
        halves = int((numbers >> 32).sum()), int((numbers & 0xFFFF_FFFF).sum())
        return (halves[0] << 32) + halves[1], counts

    def _largest(
        self, keys: frames.Records, values: frames.Records, numbers: Counts
    ) -> pd.DataFrame:
        top = np.argsort(~numbers, kind="stable")[:ROWS]
        of_keys = frames.columns([keys[top]], self._keys)
        of_values = frames.columns([values[top]], self._values)
        return pd.DataFrame(frames.side_by_side(of_keys, None, of_values))


Source = StreamSource | TableSource


def numeric(layout: frames.Layout) -> list[str]:
    """The columns of numbers that can be counted by size: no enum, no bit field, no long array."""
    return [
        column.name
        for column in layout.columns
        if column.kind == "number"
        and column.enumerators is None
        and column.bits is None
        and column.dtype.kind in "iuf"
    ]


def _whole(values: Array) -> Counts:
    """Signed numbers; the largest of them for what has no room there, such as a u64 of -1."""
    if values.dtype.kind == "u":
        values = np.minimum(values, np.iinfo(np.int64).max)
    return values.astype(np.int64)


def _likely(columns: list[str]) -> str | None:
    """A column that one wants to see spread: a duration or a size before a number of another kind.

    A moment (``time_ns``) or an id is seldom worth a histogram.
    """

    def rank(name: str) -> int:
        if name.rpartition(".")[2] in _MOMENTS_AND_IDS:
            return 2
        return 0 if unit_of(name) else 1

    return min(columns, key=rank, default=None)


def log2_counts(values: Array) -> Counts:
    """How many values fall into each power-of-two bucket."""
    if values.dtype.kind == "f":
        values = np.floor(values[~np.isnan(values)]).clip(-1, 2.0**62)
    slots = np.searchsorted(_POWERS, values.astype(np.uint64), side="right") + 1
    if values.dtype.kind in "if":
        slots[values < 0] = 0
    return np.bincount(slots, minlength=_LOG2_BUCKETS)


def log2_label(bucket: int, unit: str) -> str:
    """The lower edge of a bucket.

    >>> [log2_label(bucket, "ns") for bucket in (0, 1, 2, 11)], log2_label(64, "")
    (['< 0', '0', '2 ns', '1.02 µs'], '2⁶³')
    """
    return "< 0" if bucket == 0 else "0" if bucket == 1 else edge(1 << (bucket - 1), unit)
