"""How are the values spread? The buckets that a program counted in the kernel."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ebpflab.plots import canvas

_BAR_INCHES = 0.32
_BINARY = ("", "Ki", "Mi", "Gi", "Ti", "Pi")
_TIMES = (("ns", 1), ("µs", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000))


def histogram(
    buckets: pd.DataFrame,
    unit: str = "",
    title: str | None = None,
    *,
    count: str = "count",
    of: str = "events",
    ax: Axes | None = None,
) -> Axes:
    """A bar for each bucket of ``Table.histogram()``, the smallest values on top.

    ``buckets`` has an IntervalIndex, closed on the left, and the column ``count``, in numbers of
    ``of``. ``unit`` is that of the values; edges of "ns", "us", "ms", "s" and "bytes" are
    written as a person would: 1.02 µs, 4 KiB. Empty buckets inside of the range stay, as gaps.

    >>> histogram(prog["dist"].histogram(), unit="ns")                # doctest: +SKIP
    """
    used = buckets.index[buckets[count] > 0]
    if len(used):
        buckets = buckets.loc[used[0] : used[-1]]
    ax = canvas.sheet(1.4 + _BAR_INCHES * max(len(used) and len(buckets), 1), ax)
    if not len(used):
        return canvas.nothing_to_draw(ax, title)
    numbers = buckets[count].to_numpy()
    bars = ax.barh(range(len(buckets)), numbers, color=canvas.BLUE, height=0.94)
    labels = [f"{number:,}" if number else "" for number in numbers]
    ax.bar_label(bars, labels, padding=4, color=canvas.INK, fontsize=canvas.TEXT_POINTS)
    ax.set_yticks(range(len(buckets)), [_bucket(each, unit) for each in buckets.index])
    ax.invert_yaxis()
    ax.margins(x=0.14)
    ax.set_xlim(left=0)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(axis="x", color=canvas.FAINT, linewidth=0.8)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel(f"number of {of}")
    if unit and not _is_scaled(unit):
        ax.set_ylabel(unit)
    canvas.caption(ax, title)
    return ax


def _is_scaled(unit: str) -> bool:
    return unit == "bytes" or unit.replace("us", "µs") in dict(_TIMES)


def _bucket(bucket: pd.Interval[int], unit: str) -> str:
    """``4 to 7`` for whole numbers close by, else the two edges of the bucket."""
    low, high = int(bucket.left), int(bucket.right)
    if high - low == 1:
        return edge(low, unit)
    if not _is_scaled(unit):
        return f"{edge(low, unit)} to {edge(high - 1, unit)}"
    return f"{edge(low, unit)} to {edge(high, unit)}"


def edge(value: int, unit: str) -> str:
    """A bucket's edge as a person would write it.

    >>> edge(4096, "bytes"), edge(1_048_576, "ns"), edge(65_536, "rows")
    ('4 KiB', '1.05 ms', '65,536')
    """
    if unit == "bytes":
        power = min(max(value.bit_length() - 1, 0) // 10, len(_BINARY) - 1)
        return f"{_short(value / 1024**power)} {_BINARY[power]}B"
    scales = dict(_TIMES)
    if unit.replace("us", "µs") not in scales:
        return f"{value:,}"
    nanoseconds = value * scales[unit.replace("us", "µs")]
    name, size = next((each for each in reversed(_TIMES) if nanoseconds >= each[1]), _TIMES[0])
    if value == 0:
        return "0"
    return f"{_short(nanoseconds / size)} {name}"


def _short(value: float) -> str:
    """Three digits, without zeros at the end: 1.02, 16.4, 524."""
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"
