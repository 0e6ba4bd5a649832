"""How often does each value occur? Horizontal bars, the longest on top."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ebpflab.plots import canvas, units
from ebpflab.plots.picture import Spot

_BAR_INCHES = 0.36
_LABEL_CHARACTERS = 48


def counts(
    frame: pd.DataFrame,
    by: str | Sequence[str],
    title: str | None = None,
    *,
    unit: str = "rows",
    values: str | None = None,
    parts: bool = True,
    most: int = 25,
    ax: Axes | None = None,
) -> Axes:
    """Draw a bar for each value of the column ``by``: its number of rows, in ``unit``.

    Several columns in ``by`` make one label, joined by an arrow. Where the kernel has counted
    already, ``values`` names the column that holds the numbers, and they are added up. Where they
    are not parts of a whole, such as the costs of several ways, ``parts=False`` leaves sums and
    shares out. The ``most`` largest bars are drawn, and the axis says how many are left out. It is
    drawn on ``ax`` where one is given.

    Returns the Axes. Raises UnknownName for a column that is not in ``frame``.

    >>> plots.reading(counts(pd.DataFrame({"comm": ["sh", "find", "sh"]}), by="comm"))
    'sh: 2 of 3 rows (67 %); none of the 2 has more.'
    """
    texts = _labels(frame, [by] if isinstance(by, str) else list(by))
    weights = canvas.column(frame, values) if values else pd.Series(1, index=frame.index)
    found = weights.groupby(texts.to_numpy()).sum().sort_index()
    numbers = found.sort_values(ascending=False, kind="stable")
    shown = numbers.iloc[:most]
    ax = canvas.sheet(1.3 + _BAR_INCHES * max(len(shown), 1), ax)
    if shown.empty:
        canvas.nothing_to_draw(ax, title)
        canvas.tell(ax, f"No {unit}.")
        return ax
    bars = ax.barh(range(len(shown)), shown.to_numpy(), color=canvas.BLUE, height=0.7)
    labels = [units.plain(number) for number in shown]
    ax.bar_label(bars, labels, padding=4, color=canvas.INK, fontsize=canvas.TEXT_POINTS)
    names = [canvas.literal(canvas.shortened(name, _LABEL_CHARACTERS)) for name in shown.index]
    ax.set_yticks(range(len(shown)), names)
    ax.invert_yaxis()
    ax.margins(x=0.12)
    signed = bool((numbers < 0).any())  # then there is no whole to have a share of
    parts = parts and not signed
    if not signed:
        ax.set_xlim(left=0)
    ax.xaxis.set_major_locator(MaxNLocator(integer=bool((shown % 1 == 0).all())))
    ax.grid(axis="x", color=canvas.FAINT, linewidth=0.8)
    ax.tick_params(axis="y", length=0)
    left_out = len(numbers) - len(shown)
    rest = f": {units.plain(numbers.iloc[most:].sum())} {unit}" if parts else ""
    more = f"   ({left_out:,} more not shown{rest})"
    ax.set_xlabel((f"number of {unit}" if parts else unit) + (more if left_out else ""))
    canvas.caption(ax, title)
    total = (float(numbers.sum()) or 1.0) if parts else None
    canvas.tell(ax, _in_words(numbers, total, unit))
    picture = canvas.picture_of(ax)
    if picture is not None:
        picture.source = frame if values is None else None
        rows = texts.groupby(texts.to_numpy()).indices
        for place, (name, number) in enumerate(shown.items()):
            text = f"{name}: {units.counted(number, unit)}"
            text += f" ({units.percent(number, total)})" if total else ""
            some = np.asarray(rows[name]) if values is None else None
            picture.spots.append(Spot(ax, None, (place - 0.5, place + 0.5), text, some))
    return ax


def _labels(frame: pd.DataFrame, by: list[str]) -> pd.Series[str]:
    """The text of each row's bar: its values, joined by arrows."""
    texts = [canvas.named(canvas.column(frame, name)) for name in by]
    joined = texts[0]
    for text in texts[1:]:
        joined = joined + " → " + text
    return joined.replace("", "(empty)")


def _in_words(numbers: pd.Series[float], total: float | None, unit: str) -> str:
    first, most = numbers.index[0], numbers.iloc[0]
    if len(numbers) == 1:
        told = f"{units.plain(most)} {unit}"
        return f"All {told}: {first}." if total else f"{first}: {told}."
    if total is None:
        least = f"{numbers.index[-1]}: {units.plain(numbers.iloc[-1])}"
        return f"{first}: {units.plain(most)} {unit}; the least, {least}."
    share = units.percent(most, total)
    of_all = f"{first}: {units.plain(most)} of {units.plain(numbers.sum())} {unit} ({share})"
    return f"{of_all}; none of the {len(numbers):,} has more."
