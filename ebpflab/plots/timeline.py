"""Who ran, called or waited, and when? A lane for each CPU, process or goroutine.

A picture has some hundred columns of ink, and a second of scheduling has thousands of spans. So
spans of one colour that lie closer together than a line is wide are drawn as one, and the axis
says how many were. Nothing is left out by that: what is drawn covers all of them.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.patches import Patch

from ebpflab.decode.arrays import Array, Values
from ebpflab.plots import canvas, units
from ebpflab.plots.picture import Spot

_LANE_INCHES, _LANE_CHARACTERS, _COLUMNS = 0.34, 24, 900
_OTHERS = "all others"
_LEGEND_COLUMNS, _LEGEND_POINTS = 4, 17


@dataclass(frozen=True)
class _Span:
    """What is drawn: one row, or several that are too close to be told apart."""

    lane: int
    category: str
    start_ns: float
    end_ns: float
    busy_ns: float
    rows: npt.NDArray[np.intp]


def timeline(
    frame: pd.DataFrame,
    lane: Hashable,
    category: Hashable | None = None,
    title: str | None = None,
    *,
    start: Hashable = "start_ns",
    end: Hashable | None = None,
    duration: Hashable = "duration_ns",
    of: str = "spans",
    most: int = 24,
    ax: Axes | None = None,
) -> Axes:
    """Draw a line for each row, from ``start`` on, in the lane of its value in ``lane``.

    It lasts until ``end`` where that is named, else for ``duration``; all in nanoseconds. The six
    values of ``category`` that took most time have a colour each, the others are grey. The first
    ``most`` lanes are drawn: numbers in their order, names in that of their first span. Rows
    without a time, or with an end before their start, are left out; the axis shows how many, how
    many lanes, and how many spans were merged because they are closer than a line is wide.

    Returns the Axes. Raises UnknownName for a missing column.

    >>> plots.reading(timeline(runs, lane="cpu", category="comm"))
    '3 spans on 2 lanes (cpu) in 3.5 µs. find took the most time, 3 µs (67 % of all spans).'
    """
    lanes_of = canvas.column(frame, lane)
    starts, ends = _times(frame, start, end, duration)
    names = _names(frame, category)
    # A start of -1, as a u64, is larger than any other, and has no room in a signed number.
    timed = np.isfinite(starts) & np.isfinite(ends) & (ends >= starts) & (starts >= 0)
    sound = timed & lanes_of.notna().to_numpy()
    order = np.flatnonzero(sound)[np.argsort(starts[sound], kind="stable")]
    if not len(order):
        ax = canvas.nothing_to_draw(canvas.sheet(1.7, ax), title)
        canvas.tell(
            ax,
            f"No {of}." if frame.empty else f"{units.counted(len(frame), 'rows')} without a time.",
        )
        return ax
    lanes = _lanes(lanes_of.iloc[order])
    shown = {value: number for number, value in enumerate(lanes[:most])}
    kept = order[lanes_of.iloc[order].isin(list(shown)).to_numpy()]
    ax = canvas.sheet(1.5 + _LANE_INCHES * len(shown) + (0.35 if category is not None else 0), ax)
    span_ns = max(float(ends[kept].max()), 1.0)
    numbers = np.array([shown[value] for value in lanes_of.iloc[kept]])
    colours = _colours(names.iloc[kept], (ends - starts)[kept])
    groups = names.iloc[kept].where(names.iloc[kept].isin(list(colours)), _OTHERS)
    spans = _merged(numbers, groups.to_numpy(), starts[kept], ends[kept], kept, span_ns / _COLUMNS)
    scale, scale_name = units.time_scale(span_ns)
    legend_lines = _draw(ax, spans, colours, span_ns, scale)
    labels = [canvas.shortened(_lane_name(lane, value), _LANE_CHARACTERS) for value in shown]
    ax.set_yticks(range(len(shown)), [canvas.literal(label) for label in labels])
    notes = [
        (len(kept) - len(spans), "spans", "merged with a neighbour"),
        (len(lanes) - len(shown), "lanes", "not shown"),
        (len(frame) - len(order), "rows", "left out"),
    ]
    note = "; ".join(f"{units.counted(number, of)} {what}" for number, of, what in notes if number)
    ax.set_xlabel(f"{scale_name} since the first start" + (f"   ({note})" if note else ""))
    canvas.caption(ax, title, above_points=legend_lines * _LEGEND_POINTS)
    canvas.tell(ax, _in_words(lane, shown, names.iloc[kept], category, starts, ends, kept, of))
    picture = canvas.picture_of(ax)
    if picture is not None:
        picture.source = frame
        picture.spots += [_spot(ax, span, lane, list(shown), of, scale) for span in spans]
    return ax


def _times(
    frame: pd.DataFrame, start: Hashable, end: Hashable | None, duration: Hashable
) -> tuple[Array, Array]:
    """Starts and ends in nanoseconds from the first start, as floats."""
    begin = canvas.column(frame, start)
    starts = _since(begin, begin.min())
    if end is not None:
        return starts, _since(canvas.column(frame, end), begin.min())
    return starts, starts + _since(canvas.column(frame, duration), 0)


def _since(column: Values, first: Any) -> Array:
    # subtract before anything becomes a float: nanoseconds since 1970 have no room in one
    if pd.api.types.is_integer_dtype(column) and not column.isna().any():
        return np.asarray((column.astype("i8") - int(first if len(column) else 0)).to_numpy("f8"))
    return np.asarray((column.astype("f8") - first).to_numpy("f8"))


def _names(frame: pd.DataFrame, category: Hashable | None) -> pd.Series[str]:
    if category is None:
        return pd.Series("", index=frame.index, dtype="str")
    values = canvas.column(frame, category)
    texts = values.astype("str").replace("", "(empty)")
    return f"{category} " + texts if pd.api.types.is_numeric_dtype(values) else texts


def _lanes(values: Values) -> list[Any]:
    found = list(pd.unique(values))
    return sorted(found) if pd.api.types.is_numeric_dtype(values) else found


def _colours(names: pd.Series[str], busy_ns: Array) -> dict[str, str]:
    """A colour for each of those that took most time; grey stays for the others."""
    taken = pd.Series(busy_ns).groupby(names.to_numpy()).sum()
    ordered = taken.sort_index().sort_values(ascending=False, kind="stable").index
    every = len(ordered) <= len(canvas.COLOURS)
    chosen = ordered if every else ordered[: len(canvas.COLOURS) - 1]
    return dict(zip(map(str, chosen), canvas.COLOURS, strict=False))


def _merged(
    lanes: Array,
    groups: Array,
    starts: Array,
    ends: Array,
    rows: npt.NDArray[np.intp],
    close_ns: float,
) -> list[_Span]:
    """The spans of each lane and colour, those with a gap below ``close_ns`` made one.

    Only where one of the two is itself no wider: two long spans stay two, and keep their gap.
    """
    found = []
    together = pd.DataFrame({"lane": lanes, "group": groups}).groupby(["lane", "group"], sort=False)
    for inside in together.indices.values():  # by start, as the rows are
        begin, until = starts[inside], ends[inside]
        reach = np.maximum.accumulate(until)
        short = (until - begin) < close_ns
        near = (begin[1:] - reach[:-1] < close_ns) & (short[1:] | short[:-1])
        for piece in np.split(np.arange(len(inside)), np.flatnonzero(~near) + 1):
            found.append(
                _Span(
                    int(lanes[inside[0]]),
                    str(groups[inside[0]]),
                    float(begin[piece[0]]),
                    float(until[piece].max()),
                    float((until - begin)[piece].sum()),
                    rows[inside[piece]],
                )
            )
    return found


def _draw(
    ax: Axes, spans: list[_Span], colours: dict[str, str], span_ns: float, scale: float
) -> int:
    """Draws, and returns the number of lines that the legend takes."""
    thin = span_ns / _COLUMNS
    for group in [*colours, _OTHERS]:
        mine = [span for span in spans if span.category == group]
        boxes = [
            [(a, y - 0.36), (a, y + 0.36), (b, y + 0.36), (b, y - 0.36)]
            for span in mine
            for a, b, y in [
                (
                    span.start_ns / scale,
                    max(span.end_ns, span.start_ns + thin) / scale,
                    span.lane,
                )
            ]
        ]
        colour = colours.get(group, canvas.OTHER)
        ax.add_collection(PolyCollection(boxes, facecolors=colour, edgecolors="none"))
    used = {span.category for span in spans}
    names = [group for group in [*colours, _OTHERS] if group in used]
    if names != [""]:
        ax.legend(
            handles=[
                Patch(
                    color=colours.get(group, canvas.OTHER),
                    label=canvas.literal(canvas.shortened(group, 18)),
                )
                for group in names
            ],
            loc="lower left",
            bbox_to_anchor=(0, 1),
            ncols=_LEGEND_COLUMNS,
            frameon=False,
            labelcolor=canvas.INK,
            fontsize=canvas.TEXT_POINTS,
        )
    ax.set_xlim(-0.01 * span_ns / scale, 1.01 * (span_ns + thin) / scale)
    lanes = max(span.lane for span in spans) + 1
    ax.set_ylim(lanes - 0.45, -0.55)
    ax.grid(axis="x", color=canvas.FAINT, linewidth=0.8)
    ax.tick_params(axis="y", length=0)
    return 0 if names == [""] else -(-len(names) // _LEGEND_COLUMNS)


def _lane_name(lane: Hashable, value: Any) -> str:
    return f"{lane} {value}" if isinstance(value, int | np.integer) else str(value) or "(empty)"


def _spot(ax: Axes, span: _Span, lane: Hashable, lanes: list[Any], of: str, scale: float) -> Spot:
    where = _lane_name(lane, lanes[span.lane])
    what = f"{span.category}, " if span.category else ""
    begin, lasted = units.amount(span.start_ns, "ns"), units.amount(span.busy_ns, "ns")
    several = f"{len(span.rows):,} {of}, together " if len(span.rows) > 1 else ""
    text = f"{where}: {what}{several}{lasted}, from {begin} on"
    x, y = (span.start_ns / scale, span.end_ns / scale), (span.lane - 0.36, span.lane + 0.36)
    return Spot(ax, x, y, text, span.rows)


def _in_words(
    lane: Hashable,
    shown: dict[Any, int],
    names: pd.Series[str],
    category: Hashable | None,
    starts: Array,
    ends: Array,
    kept: npt.NDArray[np.intp],
    of: str,
) -> str:
    busy = (ends - starts)[kept]
    last = units.amount(float(ends[kept].max()), "ns")
    lanes = f"{len(shown):,} {'lane' if len(shown) == 1 else 'lanes'} ({lane})"
    told = f"{units.counted(len(kept), of)} on {lanes} in {last}"
    if category is None:
        return f"{told}; the longest took {units.amount(float(busy.max()), 'ns')}."
    taken = pd.Series(busy).groupby(names.to_numpy()).sum().sort_values(ascending=False)
    share = units.percent(float(taken.iloc[0]), float(busy.sum()) or 1.0)
    return (
        f"{told}. {taken.index[0]} took the most time, {units.amount(float(taken.iloc[0]), 'ns')}"
        f" ({share} of all spans)."
    )
