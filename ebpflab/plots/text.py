"""The histogram of terminals, as BCC prints it."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import pandas as pd

from ebpflab.plots import buckets as bucketing
from ebpflab.plots import units
from ebpflab.plots.buckets import Number

_STARS = 40
_WIDE_DIGITS = 10  # where the numbers get longer, BCC makes room by halving the bars


def text_histogram(
    values: pd.DataFrame | pd.Series[Any],
    unit: str | None = None,
    *,
    column: Hashable | None = None,
    by: Hashable | None = None,
    scale: str = "auto",
    count: str = "count",
) -> str:
    """Return what BCC's ``print_log2_hist`` and ``print_linear_hist`` print, as one text.

    Takes what `histogram` takes, and raises what it raises. Both edges belong to the bucket;
    numbers are in ``unit``, not rescaled. Each series has its name above it.

    >>> print(text_histogram(pd.Series([1, 2, 3, 3, 9], name="latency_ns"), scale="log2"))
         ns                  : count     distribution
             0 -> 1          : 1        |*************                           |
             2 -> 3          : 3        |****************************************|
             4 -> 7          : 0        |                                        |
             8 -> 15         : 1        |*************                           |
    """
    found = bucketing.of(values, unit, column, by, scale, count)
    what = found.unit or "value"
    if not found.series:
        return f"     {what}: no rows"
    wide = found.log2 and len(str(_last(found.edges[-1]))) > _WIDE_DIGITS
    digits, stars = (20, _STARS // 2) if wide else (10, _STARS)
    parts = []
    for series in found.series:
        largest = series.counts.max()
        width = 2 * digits - 1 if found.log2 else 13
        lines = [f"     {what:<{width}} : count     distribution"]
        for (low, high), number in zip(found.pairs, series.counts, strict=True):
            bar = "*" * int(stars * number / largest)
            if found.log2:
                edges = f"{low:>{digits}} -> {_last(high):<{digits}}"
            else:
                edges = f"        {_between(low, high):<10}"
            lines.append(f"{edges} : {number:<8} |{bar:<{stars}}|")
        if len(found.series) > 1 or series.name:
            lines.insert(0, f"{found.level} = {series.name!r}")
        parts.append("\n".join(lines))
    if found.missing:
        parts.append(f"     {found.missing:,} without a value left out")
    return "\n\n".join(parts)


def _last(edge: Number) -> Number:
    """The last whole number below an edge."""
    return edge - 1 if isinstance(edge, int) else edge


def _between(low: Number, high: Number) -> str:
    if isinstance(low, int) and isinstance(high, int):
        return str(low) if high - low == 1 else f"{low}-{high - 1}"
    return units.amount(low, "")
