"""Values into buckets, and what the buckets say: for `histogram` and `text_histogram`.

What a kernel has counted arrives as buckets (`Table.histogram`), and a column of a frame as values.
Both become one or several `Series` over the same buckets. Percentiles are by nearest rank: pN is
the smallest value that at least N % of the values do not exceed. Of values that is a value; of
buckets nobody knows more than the bucket in which it lies, so it is given as that range.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from ebpflab.decode.arrays import Array, Values
from ebpflab.errors import PlotError
from ebpflab.plots import canvas, units

PERCENTILES = (50, 90, 99)
_WIDE = 16  # the largest value is this many times the smallest: a case for log2
_ONE_EACH = 24  # whole numbers so close together get a bucket each
_MOST_LINEAR = 20
_SAME = 1e-12

Number = int | float


@dataclass(frozen=True)
class Mark:
    """A percentile: between ``low`` and ``high``, which are the same where it is exact."""

    percent: int
    low: Number
    high: Number
    place: float
    """Where it lies, in buckets from the middle of the first."""


@dataclass(frozen=True)
class Series:
    """One distribution over the buckets."""

    name: str
    counts: Array
    marks: list[Mark]
    rows: list[Array] | None = None
    """Of values: which rows are in each bucket."""

    @property
    def total(self) -> int:
        return int(self.counts.sum())


@dataclass(frozen=True)
class Buckets:
    """Edges, from the smallest value on, and one or more series. No edges where nothing is."""

    edges: list[Number]
    unit: str
    log2: bool
    series: list[Series]
    missing: int = 0
    """How many values were no numbers."""
    level: str = field(default="", compare=False)
    """What tells the series apart."""

    @property
    def pairs(self) -> list[tuple[Number, Number]]:
        return list(zip(self.edges[:-1], self.edges[1:], strict=True))


def of(
    values: pd.DataFrame | Values,
    unit: str | None,
    column: Hashable | None,
    by: Hashable | None,
    scale: str,
    count: str,
) -> Buckets:
    """Buckets of whatever `histogram` may be given."""
    if scale not in ("auto", "log2", "linear"):
        raise ValueError(f"scale is 'auto', 'log2' or 'linear', not {scale!r}")
    if isinstance(values, pd.DataFrame) and column is None:
        if not _has_buckets(values.index) and "bucket" not in values.index.names:
            have = ", ".join(map(str, values.columns))
            raise PlotError(
                "histogram() draws the buckets of Table.histogram(), or one column of a frame:"
                f" histogram(frame, column=...). The columns are: {have}."
            )
        return _counted(values, unit or "", count)
    frame = values if isinstance(values, pd.DataFrame) else values.to_frame(values.name or "value")
    chosen = canvas.column(frame, column if column is not None else frame.columns[0])
    labels = canvas.column(frame, by) if by is not None else None
    named = units.unit_of(chosen.name) if unit is None else unit
    return _sorted_in(chosen, labels, named, scale)


# -- counted in the kernel -------------------------------------------------------------------


def _has_buckets(index: pd.Index[Any]) -> bool:
    last = index.levels[-1] if isinstance(index, pd.MultiIndex) else index
    return isinstance(last, pd.IntervalIndex)


def _counted(frame: pd.DataFrame, unit: str, count: str) -> Buckets:
    index, counts = frame.index, canvas.column(frame, count)
    counts = counts[counts > 0]
    keyed = isinstance(index, pd.MultiIndex)
    groups: dict[str, Values] = {"": counts}
    if keyed:
        levels: list[Hashable] = [*range(index.nlevels - 1)]
        groups = {_label(key): part.droplevel(levels) for key, part in counts.groupby(level=levels)}
    level = ", ".join(str(name) for name in index.names[:-1]) if keyed else ""
    if counts.empty:
        return Buckets([], unit, True, [], level=level)
    known = index.get_level_values(-1).unique() if keyed else index
    low = min(part.index[0].left for part in groups.values())
    high = max(part.index[-1].right for part in groups.values())
    inside = sorted((_plain(each.left), _plain(each.right)) for each in known)
    inside = [pair for pair in inside if low <= pair[0] < high]
    log2 = any(right - left > 1 for left, right in inside)
    edges = _filled(inside, log2)
    place = {edge: number for number, edge in enumerate(edges)}
    series = []
    for name, part in groups.items():
        dense = np.zeros(len(edges) - 1, "i8")
        np.add.at(dense, [place[each.left] for each in part.index], part.to_numpy().astype("i8"))
        series.append(Series(name, dense, _ranges(dense, edges)))
    return Buckets(edges, unit, log2, _largest_first(series), level=level)


def _filled(pairs: list[tuple[Number, Number]], log2: bool) -> list[Number]:
    """The edges of all buckets; those between that a sparse table has left out, too."""
    edges = [pairs[0][0]]
    for left, right in pairs:
        while edges[-1] < left:
            edges.append(edges[-1] * 2 if log2 and edges[-1] else edges[-1] + 1 + log2)
        edges.append(right)
    return edges


def _ranges(counts: Array, edges: list[Number]) -> list[Mark]:
    marks, sums = [], np.cumsum(counts)
    for percent in PERCENTILES:
        rank = _rank(percent, int(sums[-1]))
        bucket = int(np.searchsorted(sums, rank))
        low, high = edges[bucket], edges[bucket + 1]
        one = isinstance(low, int) and high == low + 1  # the bucket is the value
        marks.append(Mark(percent, low, low if one else high, bucket))
    return marks


def _label(key: Any) -> str:
    return ", ".join(map(str, key)) if isinstance(key, tuple) else str(key)


# -- values ----------------------------------------------------------------------------------


def _sorted_in(column: Values, labels: Values | None, unit: str, scale: str) -> Buckets:
    numbers = _numbers(column)
    sound = np.isfinite(numbers) if numbers.dtype.kind == "f" else np.ones(len(numbers), bool)
    missing = int(len(numbers) - sound.sum())
    level = "" if labels is None else str(labels.name)
    if not sound.any():
        return Buckets([], unit, True, [], missing, level)
    good = numbers[sound]
    log2 = scale == "log2" or (scale == "auto" and _is_wide(good))
    edges = _powers(good) if log2 else _steps(good)
    # searchsorted on edges of the values' own type: a float cannot tell 2**60 from 2**60 - 1
    inner = np.array(edges[1:-1], numbers.dtype)
    buckets = np.full(len(numbers), -1)
    buckets[sound] = np.searchsorted(inner, good, side="right")
    if labels is None:
        groups = {"": np.flatnonzero(sound)}
    else:
        names = canvas.named(labels).to_numpy()
        groups = {str(name): np.flatnonzero(sound & (names == name)) for name in pd.unique(names)}
    series = [
        _series(name, rows, numbers, buckets, edges) for name, rows in groups.items() if len(rows)
    ]
    return Buckets(edges, unit, log2, _largest_first(series), missing, level)


def _numbers(column: Values) -> Array:
    if column.empty:
        return np.empty(0)
    if not pd.api.types.is_numeric_dtype(column) or pd.api.types.is_complex_dtype(column):
        raise PlotError(
            f"The column {column.name!r} holds {column.dtype}, and a histogram needs numbers."
            " How often each value occurs is drawn by plots.counts."
        )
    if pd.api.types.is_integer_dtype(column) and not column.isna().any():
        return np.asarray(column.to_numpy(np.dtype("u8" if column.max() >= 1 << 63 else "i8")))
    return np.asarray(column.to_numpy("f8", na_value=np.nan))


def _is_wide(numbers: Array) -> bool:
    low, high = numbers.min(), numbers.max()
    if low < 0 or (numbers.dtype.kind in "iu" and int(high) - int(low) <= _ONE_EACH):
        return False
    positive = numbers[numbers > 0]
    return bool(len(positive)) and float(high) >= _WIDE * float(positive.min())


def _powers(numbers: Array) -> list[Number]:
    """BCC's buckets: 0 and 1, 2 and 3, 4 to 7, ...; what is below zero has one of its own."""
    low, high = numbers.min(), numbers.max()
    positive = numbers[numbers > 0]
    fractions = numbers.dtype.kind == "f" and len(positive) and positive.min() < 1
    first = math.frexp(float(positive.min()))[1] - 1 if fractions else 1
    last = max(_exponent(high), first)
    if len(positive) == len(numbers) and not fractions:
        first = max(_exponent(low), 1)
    powers: list[Number] = [
        2**power if power >= 0 else 2.0**power for power in range(first, last + 2)
    ]
    if low < powers[0]:
        powers.insert(0, 0)
    return [_plain(low), *powers] if low < 0 else powers


def _exponent(value: Any) -> int:
    """The largest n for which 2**n is not above ``value``; 0 below 1."""
    return max(int(value).bit_length() - 1, 0)


def _steps(numbers: Array) -> list[Number]:
    """A bucket for each whole number, or up to twenty of a round width."""
    low, high = _plain(numbers.min()), _plain(numbers.max())
    if isinstance(low, int) and high - low <= _ONE_EACH:
        return list(range(low, int(high) + 2))
    if high - low <= _SAME * max(abs(low), abs(high)):  # a float could not tell the edges apart
        return [low, math.nextafter(high, math.inf)]
    rough = float(high - low) / _MOST_LINEAR
    power = 10.0 ** math.floor(math.log10(rough))
    width: Number = power * next(step for step in (1, 2, 5, 10) if power * step >= rough)
    if isinstance(low, int):
        width = max(round(width), 1)
    first, last = int(low // width), int(high // width)
    return [min(first * width, low), *(step * width for step in range(first + 1, last + 2))]


def _series(name: str, rows: Array, numbers: Array, buckets: Array, edges: list[Number]) -> Series:
    mine = buckets[rows]
    counts = np.bincount(mine, minlength=len(edges) - 1)
    split = np.split(rows[np.argsort(mine, kind="stable")], np.cumsum(counts)[:-1])
    ordered, marks = np.sort(numbers[rows]), []
    for percent in PERCENTILES:
        value = _plain(ordered[_rank(percent, len(ordered)) - 1])
        bucket = int(np.searchsorted(np.array(edges[1:-1], numbers.dtype), value, side="right"))
        low, high = edges[bucket], edges[bucket + 1]
        share = float(value - low) / float(high - low)
        marks.append(Mark(percent, value, value, bucket - 0.5 + share))
    return Series(name, counts, marks, split)


def _rank(percent: int, total: int) -> int:
    return max(-(-percent * total // 100), 1)


def _plain(value: Any) -> Number:
    return int(value) if isinstance(value, int | np.integer) else float(value)


def _largest_first(series: list[Series]) -> list[Series]:
    return sorted(series, key=lambda each: (-each.total, each.name))


def bucket_numbers(numbers: Array) -> Array:
    """``bpf_log2l`` of each number that is not negative: 1 for 0 and 1, 2 for 2 and 3, ..."""
    numbers = numbers if numbers.dtype.kind == "f" else numbers.astype("u8")
    powers = np.array([2**power for power in range(1, 64)], numbers.dtype)
    return np.searchsorted(powers, numbers, side="right") + 1
