"""How often does each value occur? Horizontal bars, the longest on top."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ebpflab.plots import canvas

_BAR_INCHES = 0.36
_LABEL_CHARACTERS = 48


def counts(
    frame: pd.DataFrame,
    by: str | Sequence[str],
    title: str | None = None,
    *,
    unit: str = "rows",
    values: str | None = None,
    most: int = 25,
    ax: Axes | None = None,
) -> Axes:
    """A bar for each value of the column ``by``: its number of rows, in ``unit``.

    Several columns in ``by`` make one label, joined by an arrow. Where the kernel has counted
    already, ``values`` names the column that holds the numbers, and they are added up. The
    ``most`` largest bars are drawn, and the axis says how many are left out. Raises KeyError for a
    column that is not in ``frame``.

    >>> counts(pd.DataFrame({"comm": ["sh", "find", "sh"]}), by="comm")   # doctest: +SKIP
    """
    numbers = _numbers(frame, [by] if isinstance(by, str) else list(by), values)
    shown = numbers.iloc[:most]
    ax = canvas.sheet(1.3 + _BAR_INCHES * max(len(shown), 1), ax)
    if shown.empty:
        return canvas.nothing_to_draw(ax, title)
    bars = ax.barh(range(len(shown)), shown.to_numpy(), color=canvas.BLUE, height=0.7)
    labels = [f"{number:,}" for number in shown]
    ax.bar_label(bars, labels, padding=4, color=canvas.INK, fontsize=canvas.TEXT_POINTS)
    names = [canvas.literal(canvas.shortened(name, _LABEL_CHARACTERS)) for name in shown.index]
    ax.set_yticks(range(len(shown)), names)
    ax.invert_yaxis()
    ax.margins(x=0.12)
    ax.set_xlim(left=0)
    ax.xaxis.set_major_locator(MaxNLocator(integer=bool((shown % 1 == 0).all())))
    ax.grid(axis="x", color=canvas.FAINT, linewidth=0.8)
    ax.tick_params(axis="y", length=0)
    left_out = len(numbers) - len(shown)
    more = f"   ({left_out:,} more not shown: {numbers.iloc[most:].sum():,} {unit})"
    ax.set_xlabel(f"number of {unit}" + (more if left_out else ""))
    canvas.caption(ax, title)
    return ax


def _numbers(frame: pd.DataFrame, by: list[str], values: str | None) -> pd.Series[float]:
    """The number for each label, the largest first; equal ones in the order of their names."""
    labels = frame[by].astype(str).agg(" → ".join, axis=1) if len(frame) else pd.Series(dtype="str")
    weights = frame[values] if values else pd.Series(1, index=frame.index)
    found = weights.groupby(labels.replace("", "(empty)")).sum()
    return found.sort_index().sort_values(ascending=False, kind="stable")
