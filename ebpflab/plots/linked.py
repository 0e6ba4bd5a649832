"""Click a bar, see its rows: a picture with the table of what it was drawn from."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence, Sized
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from ebpflab.errors import PlotError
from ebpflab.plots import canvas
from ebpflab.plots.picture import Picture


class Linked:
    """What `linked` returns: shown by a notebook as HTML, with a PNG for where there is none."""

    def __init__(self, picture: Picture, table: dict[str, Any]) -> None:
        self.picture, self.table = picture, table

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        file = io.BytesIO()
        self.picture.savefig(file, format="png", dpi=100)
        png = base64.b64encode(file.getvalue()).decode()
        return {
            "text/plain": repr(self),
            "text/html": self.picture.page(self.table),
            "image/png": png,
        }

    def __repr__(self) -> str:
        return f"<Linked: {self.picture.alternative or 'a picture'}>"


def linked(ax: Axes, *, most: int = 2000) -> Linked:
    """Return the picture of ``ax``, and below it the rows of the bar, cell or span that is clicked.

    For `counts`, `histogram`, `heatmap` and `timeline` of raw rows. The rows travel with the
    picture, so that it works in a saved notebook and an exported page, without a kernel: at most
    ``most`` of them, the first of each bar, and the picture says where there were more. Raises
    PlotError where the kernel has counted, since there are no rows then, and for axes of your own.

    >>> plots.linked(plots.counts(comms, by="comm"))
    <Linked: sh: 2 of 3 rows (67 %); none of the 2 has more.>
    """
    picture = canvas.picture_of(ax)
    if picture is None or (picture.spots and picture.source is None):
        raise PlotError(
            "These bars cannot be linked to rows: they show numbers that the kernel counted, or are"
            " drawn on axes of your own. Draw a frame of raw rows, on a sheet of its own."
        )
    plt.close(picture)  # or the notebook would show it twice
    source = picture.source
    table: dict[str, Any] = {"columns": [], "rows": [], "spots": []}
    if source is None or not picture.spots:
        return Linked(picture, table)
    every = [np.asarray(spot.rows) for spot in picture.spots]
    kept = [rows[:share] for rows, share in zip(every, _shares(every, most), strict=True)]
    wanted = np.unique(np.concatenate(kept))
    rows = source.iloc[wanted]
    texts = [rows[name].astype(str).to_list() for name in source.columns]
    table["columns"] = [str(name) for name in source.columns]
    table["rows"] = [list(row) for row in zip(*texts, strict=True)]
    table["spots"] = [
        {"rows": np.searchsorted(wanted, some).tolist(), "of": len(rows)}
        for some, rows in zip(kept, every, strict=True)
    ]
    return Linked(picture, table)


def _shares(every: Sequence[Sized], most: int) -> list[int]:
    """How many rows each spot may show: small ones all of theirs, the others alike."""
    left, shares = most, [0] * len(every)
    for done, spot in enumerate(sorted(range(len(every)), key=lambda spot: len(every[spot]))):
        shares[spot] = min(len(every[spot]), max(left // (len(every) - done), min(left, 1)))
        left -= shares[spot]
    return shares
