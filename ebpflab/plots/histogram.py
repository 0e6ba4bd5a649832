"""How are the values spread? Horizontal bars, a bucket each, the smallest values on top."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ebpflab.decode.arrays import Values
from ebpflab.plots import buckets as bucketing
from ebpflab.plots import canvas, units
from ebpflab.plots.buckets import Buckets, Mark, Number, Series
from ebpflab.plots.picture import Spot

_BAR_INCHES = 0.32
_PANELS, _PANEL_COLUMNS, _TOLD = 9, 3, 4


def histogram(
    values: pd.DataFrame | pd.Series[Any],
    unit: str | None = None,
    title: str | None = None,
    *,
    column: Hashable | None = None,
    by: Hashable | None = None,
    scale: str = "auto",
    overlay: bool = False,
    count: str = "count",
    of: str = "events",
    ax: Axes | None = None,
) -> Axes:
    """Draw a bar for each bucket, in numbers of ``of``, and marks at percentiles 50, 90 and 99.

    ``values`` is what `Table.histogram` gives (an IntervalIndex, after the key's levels where there
    is a key, and a column ``count``), a column of a frame, or a frame with ``column``. With a key,
    or ``by`` of a frame, each of the nine largest gets a panel; with ``overlay``, or on an ``ax``
    of your own, the seven largest share one. A column is put into buckets of powers of two where
    its values span a wide range, else of a round width; ``scale`` "log2" or "linear" decides.
    ``unit`` is that of the values, taken from the column's name where it ends in one: "ns", "us",
    "ms", "s" and "bytes" are written as a person would, 1.02 µs, 4 KiB.

    Percentiles of a column are exact (nearest rank); of buckets, the bucket in which they lie.
    Values that are not numbers are left out, and counted on the axis.

    Returns the (first) Axes. Raises PlotError where there is nothing to measure, UnknownName for a
    missing column, ValueError for another ``scale``.

    >>> plots.reading(histogram(reads["latency_ns"], of="reads"))
    'Half of the 4 reads took at most 700 ns, 99 % at most 40 µs.'
    """
    drawn = bucketing.of(values, unit, column, by, scale, count)
    panels = len(drawn.series) > 1 and not overlay and ax is None
    most = _PANELS if panels else len(canvas.COLOURS)
    shown = drawn.series[:most]
    axes = _sheets(drawn, len(shown) if panels else 1, ax)
    if not shown:
        return _nothing(axes[0], drawn, title, of)
    if len(drawn.series) == 1:
        _bars(axes[0], drawn, shown[0], of, canvas.BLUE)
        _percentiles(axes[0], drawn, shown[0], written=True)
    elif panels:
        for each, series in zip(axes, shown, strict=True):
            _bars(each, drawn, series, of, canvas.BLUE)
            _percentiles(each, drawn, series, written=False)
            name = canvas.literal(canvas.shortened(series.name or "(empty)", 22))
            label = f"{name}\n{units.counted(series.total, of)}"
            each.set_title(label, fontsize=canvas.TEXT_POINTS, color=canvas.INK)
    else:
        _overlaid(axes[0], drawn, shown, of)
    _dress(axes, drawn, of, len(shown))
    if panels and title:
        picture = canvas.picture_of(axes[0])
        assert picture is not None
        picture.suptitle(title, x=0.016, ha="left", color=canvas.INK, fontsize=canvas.TITLE_POINTS)
    else:
        canvas.caption(axes[0], title)
    canvas.tell(axes[0], _in_words(drawn, of))
    _remember(axes[0], values, column)
    return axes[0]


def bucket_name(low: Number, high: Number, unit: str) -> str:
    """``4 to 7`` for whole numbers, else the two edges of the bucket."""
    first, last = units.edge(low, unit), units.edge(high, unit)
    if isinstance(low, int) and isinstance(high, int):
        if high - low == 1:
            return first
        if not units.is_scaled(unit):
            large = first != units.amount(low, unit)
            last = f"{last} - 1" if large else units.amount(high - 1, unit)
    return first if first == last else f"{first} to {last}"


def _sheets(drawn: Buckets, panels: int, ax: Axes | None) -> list[Axes]:
    height = _BAR_INCHES * max(len(drawn.pairs), 1)
    if panels <= 1:
        return [canvas.sheet(1.4 + height, ax)]
    height = max(height * 0.8, 1.2) + 0.6
    columns = _columns(panels)
    return canvas.sheets(1.0 + height * -(-panels // columns), panels, columns)


def _columns(panels: int) -> int:
    return 2 if panels == 4 else min(panels, _PANEL_COLUMNS)


def _nothing(ax: Axes, drawn: Buckets, title: str | None, of: str) -> Axes:
    canvas.nothing_to_draw(ax, title)
    told = f"{drawn.missing:,} values, and none is a number." if drawn.missing else f"No {of}."
    canvas.tell(ax, told)
    return ax


def _bars(ax: Axes, drawn: Buckets, series: Series, of: str, colour: str) -> None:
    places = range(len(drawn.pairs))
    bars = ax.barh(places, series.counts, color=colour, height=0.94)
    labels = [f"{number:,}" if number else "" for number in series.counts]
    over = {"boxstyle": "square,pad=0.1", "facecolor": canvas.PAPER, "edgecolor": "none"}
    points = canvas.TEXT_POINTS
    ax.bar_label(bars, labels, padding=4, color=canvas.INK, fontsize=points, bbox=over)
    ax.margins(x=0.18 if len(drawn.series) == 1 else 0.8)
    picture = canvas.picture_of(ax)
    for place, (low, high) in zip(places, drawn.pairs, strict=True):
        if picture is None or not series.counts[place]:
            continue
        name = f"{series.name or '(empty)'}, " if len(drawn.series) > 1 else ""
        share = units.percent(series.counts[place], series.total)
        number = units.counted(series.counts[place], of)
        text = f"{name}{_range(low, high, drawn.unit)}: {number} ({share})"
        rows = series.rows[place] if series.rows else None
        picture.spots.append(Spot(ax, None, (place - 0.5, place + 0.5), text, rows))


def _percentiles(ax: Axes, drawn: Buckets, series: Series, *, written: bool) -> None:
    """A thin line at each percentile, named at the right edge; those at one place together."""
    named: list[tuple[float, list[str], str]] = []
    for mark in series.marks:
        text = f"p{mark.percent}"
        exact = mark.low == mark.high
        if exact:
            value = units.amount(mark.low, drawn.unit)
        else:
            value = bucket_name(mark.low, mark.high, drawn.unit)
        ax.axhline(mark.place, color=canvas.ORANGE, linewidth=1, linestyle=(0, (5, 4)), zorder=0.6)
        if named and (named[-1][2] == value or (not written and mark.place - named[-1][0] < 0.9)):
            named[-1][1].append(text)
        else:
            named.append((mark.place, [text], value))
    level = -np.inf
    for place, texts, value in named:
        level = max(place, level + (0.72 if written else 0.9))  # one below the other
        text = ", ".join(texts) + (f": {value}" if written else "")
        ax.annotate(
            text,
            (1.0, place),
            xytext=(1.02, level),
            xycoords=ax.get_yaxis_transform(),
            textcoords=ax.get_yaxis_transform(),
            va="center",
            color=canvas.INK,
            fontsize=10,
            annotation_clip=False,
        )


def _overlaid(ax: Axes, drawn: Buckets, shown: list[Series], of: str) -> None:
    edges = np.arange(len(drawn.edges)) - 0.5
    for series, colour in zip(shown, canvas.COLOURS, strict=False):
        name = canvas.literal(canvas.shortened(series.name or "(empty)", 30))
        label = f"{name}: {units.counted(series.total, of)}"
        ax.stairs(
            series.counts, edges, fill=True, alpha=0.22, color=colour, orientation="horizontal"
        )
        ax.stairs(
            series.counts, edges, linewidth=2, color=colour, label=label, orientation="horizontal"
        )
    ax.margins(x=0.05)
    ax.legend(frameon=False, labelcolor=canvas.INK, fontsize=canvas.TEXT_POINTS)
    picture = canvas.picture_of(ax)
    for place, (low, high) in enumerate(drawn.pairs):
        counted = [each for each in shown if each.counts[place]]
        parts = [f"{each.name or '(empty)'} {each.counts[place]:,}" for each in counted]
        if picture is not None and parts:
            text = f"{_range(low, high, drawn.unit)}: {', '.join(parts)}"
            rows = [each.rows[place] for each in shown if each.rows]
            found = np.sort(np.concatenate(rows)) if rows else None
            picture.spots.append(Spot(ax, None, (place - 0.5, place + 0.5), text, found))


def _dress(axes: list[Axes], drawn: Buckets, of: str, shown: int) -> None:
    names = [bucket_name(low, high, drawn.unit) for low, high in drawn.pairs]
    axes[0].set_yticks(range(len(names)), names)
    axes[0].set_ylim(len(names) - 0.45, -0.55)
    for ax in axes:
        ax.set_xlim(left=0)
        ax.xaxis.set_major_locator(MaxNLocator(nbins=9 if len(axes) == 1 else 3, integer=True))
        ax.grid(axis="x", color=canvas.FAINT, linewidth=0.8)
        ax.tick_params(axis="y", length=0)
    left_out = drawn.series[shown:]
    notes = []
    if left_out:
        notes.append(f"{len(left_out)} more not shown: {sum(s.total for s in left_out):,} {of}")
    if drawn.missing:
        notes.append(f"{drawn.missing:,} without a value left out")
    note = f"   ({'; '.join(notes)})" if notes else ""
    columns = _columns(len(axes))
    for ax in axes[-columns:]:  # nothing is below these
        ax.tick_params(labelbottom=True)
    bottom_left = axes[(len(axes) - 1) // columns * columns]
    bottom_left.set_xlabel(f"number of {of}{note}", loc="center" if len(axes) == 1 else "left")
    if drawn.unit and not units.is_scaled(drawn.unit):
        axes[0].set_ylabel(drawn.unit)


def _range(low: Number, high: Number, unit: str) -> str:
    name = bucket_name(low, high, unit)
    return name if units.is_scaled(unit) or not unit else f"{name} {unit}"


def _in_words(drawn: Buckets, of: str) -> str:
    verb = "took" if units.nanoseconds_in(drawn.unit) else "were"
    if len(drawn.series) > 1:
        limits = [_up_to(each.marks[0], drawn.unit) for each in drawn.series[:_TOLD]]
        parts = [
            f"of {each.name or '(empty)'} {limit}"
            for each, limit in zip(drawn.series, limits, strict=False)
        ]
        more = f"; and {len(drawn.series) - _TOLD:,} more" if len(drawn.series) > _TOLD else ""
        return f"Half of the {of} {verb}: {'; '.join(parts)}{more}."
    (series,) = drawn.series
    if series.total == 1:
        return f"There is one value only: {_mark(series, 0, drawn.unit)}."
    reached: dict[str, str] = {}  # how far, and the largest share that goes no farther
    for mark, share in zip(series.marks, ("Half", "90 %", "99 %"), strict=True):
        reached[_up_to(mark, drawn.unit)] = share
    if len(reached) == 1 and (series.counts > 0).sum() == 1:
        return f"All {series.total:,} {of} {verb} {_mark(series, 0, drawn.unit)}."
    told, between = "", f" of the {series.total:,} {of} {verb} "
    for limit, share in reached.items():
        told += share + between + limit if not told else f", {share} {limit}"
    return f"{told}."


def _mark(series: Series, number: int, unit: str) -> str:
    mark = series.marks[number]
    if mark.low == mark.high:
        return units.with_unit(mark.low, unit)
    return _range(mark.low, mark.high, unit)


def _up_to(mark: Mark, unit: str) -> str:
    if mark.low == mark.high:
        return f"at most {units.with_unit(mark.low, unit)}"
    return f"less than {units.with_unit(mark.high, unit)}"


def _remember(ax: Axes, values: pd.DataFrame | Values, column: Hashable | None) -> None:
    """Keep the rows, for `linked`; what the kernel has counted has none."""
    picture = canvas.picture_of(ax)
    if picture is not None and (column is not None or isinstance(values, pd.Series)):
        picture.source = values.to_frame() if isinstance(values, pd.Series) else values
