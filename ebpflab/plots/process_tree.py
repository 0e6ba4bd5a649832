"""Who started what, and when? A family tree drawn over time."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from ebpflab.plots import canvas, units
from ebpflab.plots.picture import Spot

_ROW_INCHES = 0.27
_LABEL_CHARACTERS = 44
_LABEL_SHARE = 0.48  # of the width, kept free to the right of the last start


def process_tree(
    starts: pd.DataFrame,
    title: str | None = None,
    *,
    label: str = "filename",
    unit: str = "starts",
    most: int = 40,
    ax: Axes | None = None,
) -> Axes:
    """Draw a line for each start of a program, or what ``unit`` calls it, in order of time.

    ``starts`` has the columns ``time_ns``, ``pid``, ``ppid`` (the parent's pid) and ``label``, the
    text at the dot. A dot marks its time, from the first start on. A line leads to it from what its
    parent had started last; orange where a process became another program itself. A parent that was
    there before gives no line. The first ``most`` rows are drawn, and the axis says how many are
    left out.

    Returns the Axes. Raises UnknownName for a missing column.

    >>> plots.reading(process_tree(starts))
    '3 starts in 3 ms, by 3 processes.'
    """
    for name in ("time_ns", "pid", "ppid", label):
        canvas.column(starts, name)
    rows = starts.sort_values("time_ns", kind="stable").reset_index(drop=True)
    shown = rows.iloc[:most]
    ax = canvas.sheet(1.2 + _ROW_INCHES * max(len(shown), 1), ax)
    if shown.empty:
        canvas.nothing_to_draw(ax, title)
        canvas.tell(ax, "Nothing was started.")
        return ax
    since = (shown["time_ns"] - shown["time_ns"].iloc[0]).to_numpy()
    # In milliseconds, unless they are too many to be read.
    scale, scale_name = units.time_scale(max(float(since[-1]), 2e6))
    times = since / scale
    labels = canvas.named(canvas.column(shown, label)).replace("", "(empty)").tolist()
    origins = _origins(shown)
    for row, (origin, same) in enumerate(origins):
        colour = canvas.ORANGE if same else canvas.BLUE
        if origin is not None:
            corner = times[origin]
            path = ([corner, corner, times[row]], [origin, row, row])
            ax.plot(*path, color=colour, linewidth=1.2, alpha=0.6, zorder=1)
        ax.plot(times[row], row, "o", color=colour, markersize=6, zorder=2)
        text = canvas.literal(canvas.shortened(labels[row], _LABEL_CHARACTERS))
        ax.annotate(
            text,
            (times[row], row),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            fontsize=canvas.TEXT_POINTS,
            color=canvas.INK,
            bbox={"facecolor": canvas.PAPER, "edgecolor": "none", "pad": 1.0},
        )
    span = max(float(times[-1]), 1.0)
    ax.set_xlim(-0.02 * span, span / (1 - _LABEL_SHARE))
    ax.set_ylim(len(shown) - 0.4, -0.6)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    ax.set_xticks([tick for tick in ax.get_xticks() if 0 <= tick <= span * 1.02])
    ax.spines["bottom"].set_bounds(0, span)
    left_out = f"   (the first {len(shown)} of {len(rows):,})" if len(rows) > len(shown) else ""
    ax.set_xlabel(f"{scale_name} since the first {unit.removesuffix('s')}{left_out}", loc="left")
    if any(same for _, same in origins):
        for colour, meaning in (
            (canvas.BLUE, "a new process"),
            (canvas.ORANGE, "the same process"),
        ):
            ax.plot([], [], "o", color=colour, label=meaning)
        ax.legend(
            loc="upper right", frameon=False, labelcolor=canvas.INK, fontsize=canvas.TEXT_POINTS
        )
    canvas.caption(ax, title)
    canvas.tell(ax, _in_words(shown, origins, unit))
    picture = canvas.picture_of(ax)
    if picture is not None:
        picture.source = rows
        for row, text in enumerate(labels):
            pids = f"process {shown['pid'].iloc[row]}, by {shown['ppid'].iloc[row]}"
            told = f"{text}: {pids}, after {_after(shown, row)}"
            picture.spots.append(Spot(ax, None, (row - 0.5, row + 0.5), told, np.array([row])))
    return ax


def _in_words(shown: pd.DataFrame, origins: list[tuple[int | None, bool]], unit: str) -> str:
    processes = shown["pid"].nunique()
    told = units.counted(len(shown), unit)
    told += f" in {_after(shown, -1)}" if len(shown) > 1 else ""
    told += f", by {processes:,} process{'es' if processes > 1 else ''}"
    again = sum(same for _, same in origins)
    return f"{told}; {again:,} of them a further one of the same process." if again else f"{told}."


def _after(shown: pd.DataFrame, row: int) -> str:
    """The time from the first row to this one."""
    return units.amount(int(shown["time_ns"].iloc[row] - shown["time_ns"].iloc[0]), "ns")


def _origins(rows: pd.DataFrame) -> list[tuple[int | None, bool]]:
    """For each row the row it comes from, and whether that is the same process.

    A process that started a program and starts another has replaced itself (execve(2)). Else
    it comes from what its parent had started last.
    """
    last: dict[int, int] = {}
    found: list[tuple[int | None, bool]] = []
    pairs = zip(rows["pid"].tolist(), rows["ppid"].tolist(), strict=True)
    for row, (pid, ppid) in enumerate(pairs):
        same = pid in last
        found.append((last[pid] if same else last.get(ppid), same))
        last[pid] = row
    return found
