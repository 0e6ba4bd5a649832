"""When was it slow? Time to the right, the value upwards in powers of two, colour for how many.

Two ways to the same picture. From raw events each is put into its cell here. Or the kernel does
it: a map whose key is a slot of time and the ``bpf_log2l`` of the value costs the same for one
event and for a million, and only its cells travel.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, LogNorm, Normalize
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from ebpflab.decode.arrays import Array, Values
from ebpflab.errors import PlotError
from ebpflab.plots import canvas, units
from ebpflab.plots.buckets import bucket_numbers
from ebpflab.plots.histogram import bucket_name
from ebpflab.plots.picture import Positions, Spot

_ROW_INCHES, _TIME_SLOTS, _MOST_SLOTS = 0.24, 60, 240
_MOST_LABELS = 16


@dataclass(frozen=True)
class _Cells:
    """Sorted into a grid: a row for each power of two (0 and 1 are one), a column for each slot."""

    counts: npt.NDArray[np.int64]
    lowest: int
    slot_ns: float
    missing: int
    rows: dict[tuple[int, int], Positions] | None


def heatmap(
    frame: pd.DataFrame,
    column: Hashable = "latency_ns",
    title: str | None = None,
    *,
    time: Hashable = "time_ns",
    values: Hashable | None = None,
    slot_ns: int | None = None,
    unit: str | None = None,
    of: str = "events",
    ax: Axes | None = None,
) -> Axes:
    """Draw a cell for each slot of time and power of two of ``column``, darker where more are.

    Of raw events: ``time`` is nanoseconds or dates, ``column`` the value. Where the kernel counts,
    ``values`` names the column with the numbers, ``time`` holds the number of a slot, ``slot_ns``
    (nanoseconds) wide, and ``column`` the value's ``bpf_log2l``. Without ``slot_ns``, 60 slots.
    ``unit`` is that of the value, else taken from the column's name; ``of`` is what is counted.
    Time is counted from the first event. Rows without a value, and values below zero, which have no
    logarithm, are left out and counted on the axis.

    Returns the Axes. Raises UnknownName for a missing column; PlotError for ``values`` without
    ``slot_ns``.

    >>> plots.reading(heatmap(reads, of="reads"))
    '4 reads in 9 ms. The fullest cell: 1 of 256 ns to 512 ns, from 0 on. The slowest, ...'
    >>> ax = heatmap(cells, "slot", time="when", values="value", slot_ns=50_000_000, unit="ns")
    """
    unit = units.unit_of(column) if unit is None else unit
    times, amounts = (_finite(canvas.column(frame, name)) for name in (time, column))
    if values is None:
        cells = _of_events(times, amounts, slot_ns)
    elif slot_ns is None:
        raise PlotError("heatmap() of counted cells needs slot_ns: how wide a slot of time is.")
    else:
        cells = _of_counts(times, amounts, _finite(canvas.column(frame, values)), slot_ns)
    height = 1.7 + _ROW_INCHES * max(cells.counts.shape[0], 5 if cells.counts.size else 1)
    ax = canvas.sheet(height, ax)
    if not cells.counts.size:
        canvas.nothing_to_draw(ax, title)
        none = f"{units.counted(cells.missing, 'rows')}, and none can be drawn."
        canvas.tell(ax, none if cells.missing else f"No {of}.")
        return ax
    _draw(ax, cells, unit, of)
    canvas.caption(ax, title)
    canvas.tell(ax, _in_words(cells, unit, of))
    picture = canvas.picture_of(ax)
    if picture is not None and cells.rows is not None:
        picture.source = frame
    return ax


def _finite(column: Values) -> Array:
    if pd.api.types.is_datetime64_any_dtype(
        column
    ):  # made of nanoseconds; NaT is no number of them
        column = (column - column.min()) / pd.Timedelta(1, "ns")
    if pd.api.types.is_integer_dtype(column) and not column.isna().any():
        return np.asarray(column.to_numpy())
    return np.asarray(pd.to_numeric(column, errors="coerce").to_numpy("f8", na_value=np.nan))


def _of_events(times: Array, amounts: Array, slot_ns: float | None) -> _Cells:
    sound = np.isfinite(times) & np.isfinite(amounts) & (amounts >= 0)
    where = np.flatnonzero(sound)
    if not len(where):
        return _Cells(np.empty((0, 0), "i8"), 0, 1, len(times), None)
    # subtract before anything becomes a float: nanoseconds since the start of a machine are long
    since = (times[where] - times[where].min()).astype("f8")
    slot_ns = slot_ns or max(float(since.max()) / _TIME_SLOTS, 1.0)
    slots = (since // slot_ns).astype("i8")
    slots[slots == _TIME_SLOTS] -= _TIME_SLOTS * slot_ns == since.max()  # the last, on the edge
    return _grid(slots, bucket_numbers(amounts[where]), None, where, slot_ns, len(times))


def _of_counts(times: Array, logs: Array, counts: Array, slot_ns: int) -> _Cells:
    sound = np.isfinite(times) & np.isfinite(logs) & np.isfinite(counts) & (counts > 0)
    where = np.flatnonzero(sound)
    if not len(where):
        return _Cells(np.empty((0, 0), "i8"), 0, slot_ns, len(times), None)
    slots = (times[where] - times[where].min()).astype("i8")
    numbers = np.maximum(logs[where].astype("i8"), 1)  # bpf_log2l() gives 1 for both 0 and 1
    cells = _grid(slots, numbers, counts[where].astype("i8"), where, slot_ns, len(where))
    return replace(cells, rows=None)


def _grid(
    slots: Array,
    numbers: Array,
    counts: Array | None,
    where: Positions,
    slot_ns: float,
    total: int,
) -> _Cells:
    merged = -(-(int(slots.max()) + 1) // _MOST_SLOTS)  # more would be narrower than a line
    slots, slot_ns = slots // merged, slot_ns * merged
    lowest = int(numbers.min())
    shape = (int(numbers.max()) - lowest + 1, int(slots.max()) + 1)
    grid = np.zeros(shape, "i8")
    np.add.at(grid, (numbers - lowest, slots), 1 if counts is None else counts)
    flat = (numbers - lowest) * shape[1] + slots
    order = np.argsort(flat, kind="stable")
    found, starts = np.unique(flat[order], return_index=True)
    parts = np.split(where[order], starts[1:])
    rows = {
        (int(cell) // shape[1], int(cell) % shape[1]): part
        for cell, part in zip(found, parts, strict=True)
    }
    return _Cells(grid, lowest, slot_ns, total - len(where), rows)


def _draw(ax: Axes, cells: _Cells, unit: str, of: str) -> None:
    high, wide = cells.counts.shape
    scale, name = units.time_scale(cells.slot_ns * wide)
    step = cells.slot_ns / scale
    most = int(cells.counts.max())
    norm = LogNorm(1, most) if most >= 100 else Normalize(0, most)
    drawn = np.ma.masked_equal(cells.counts, 0)
    x, y = np.arange(wide + 1) * step, np.arange(high + 1) - 0.5
    mesh = ax.pcolormesh(x, y, drawn, cmap=_colours(), norm=norm)
    mesh.set_edgecolor("face")
    figure = ax.get_figure(root=True)
    assert figure is not None
    bar = figure.colorbar(mesh, ax=ax, pad=0.02, fraction=0.05)
    bar.set_label(f"number of {of}", color=canvas.INK, fontsize=canvas.TEXT_POINTS)
    bar.ax.tick_params(colors=canvas.INK, labelsize=canvas.TEXT_POINTS)
    bar.ax.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    bar.ax.minorticks_off()
    if most < 100:
        bar.ax.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    bar.outline.set_visible(False)
    names = [bucket_name(*_edges(cells.lowest + row), unit) for row in range(high)]
    every = -(-high // _MOST_LABELS)
    ax.set_yticks(range(0, high, every), names[::every])
    ax.tick_params(axis="y", length=0)
    note = f"   ({units.counted(cells.missing, 'rows')} left out)" if cells.missing else ""
    ax.set_xlabel(f"{name} since the first{note}")
    if unit and not units.is_scaled(unit):
        ax.set_ylabel(unit)
    picture = canvas.picture_of(ax)
    if picture is None:
        return
    for row, slot in zip(*np.nonzero(cells.counts), strict=True):
        begin, end = (units.amount(float(x[at]) * scale, "ns") for at in (slot, slot + 1))
        text = f"{begin} to {end}, {names[row]}: {units.counted(cells.counts[row, slot], of)}"
        rows = cells.rows[int(row), int(slot)] if cells.rows is not None else None
        picture.spots.append(Spot(ax, (x[slot], x[slot + 1]), (row - 0.5, row + 0.5), text, rows))


def _edges(number: int) -> tuple[int, int]:
    """The bucket whose ``bpf_log2l`` is ``number``: 1 is 0 and 1, 2 is 2 and 3, 3 is 4 to 7."""
    return (0 if number <= 1 else 1 << (number - 1)), 1 << number


def _in_words(cells: _Cells, unit: str, of: str) -> str:
    total, wide = int(cells.counts.sum()), cells.counts.shape[1]
    row, slot = np.unravel_index(int(cells.counts.argmax()), cells.counts.shape)
    name = bucket_name(*_edges(cells.lowest + int(row)), unit)
    top = bucket_name(*_edges(cells.lowest + cells.counts.shape[0] - 1), unit)
    last = int(np.flatnonzero(cells.counts[-1])[0])
    begin = units.amount(cells.slot_ns * last, "ns")
    largest = "slowest" if units.nanoseconds_in(unit) else "largest"
    return (
        f"{units.counted(total, of)} in {units.amount(cells.slot_ns * wide, 'ns')}."
        f" The fullest cell: {int(cells.counts.max()):,} of {name}, from"
        f" {units.amount(cells.slot_ns * int(slot), 'ns')} on. The {largest}, {top}, came first"
        f" from {begin} on."
    )


def _colours() -> Any:
    """matplotlib's viridis, turned round and without its lightest part: white is for no events."""
    return ListedColormap(colormaps["viridis_r"](np.linspace(0.06, 1, 256)))
