"""A figure that can be pointed at, and tells what is there.

matplotlib draws; beside its PNG a notebook is given the same picture as HTML: the PNG with a text
for who cannot see it, and above it an SVG of transparent boxes, one a *spot* (a bar, a cell, a
span), that know what they show. The browser shows a spot's text at the pointer without any script;
``picture.js`` also shows it below the picture, for a finger and a keyboard, and fills the table of
`linked`. Nothing is fetched and no kernel is asked, so a saved notebook and an exported page are as
alive as a new one. Where HTML is not taken (PDF, an untrusted notebook) the PNG remains.
"""

from __future__ import annotations

import base64
import html
import io
import json
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_PNG_DPI, _SHOWN_DPI = 180, 100
_MOST_SPOTS = 3000
_SMALLEST_PIXELS = 3.0  # or no pointer finds it

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")

Positions = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Spot:
    """A part of a picture, as a box in the data's coordinates of ``ax``; None is up to the edge."""

    ax: Axes
    x: tuple[float, float] | None
    y: tuple[float, float] | None
    text: str
    rows: Positions | None = None
    """Where the rows that it shows stand in the frame; None where the kernel counted them."""


def printable(text: str) -> str:
    """``text`` with a sign for each control character: some would turn round all that follows.

    >>> printable("nul\\0, \\u202eevil")
    'nul\ufffd, \ufffdevil'
    """
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


class Sheet(Figure):
    """A figure that shows a character for which no font has a glyph as a box, without a warning.

    The names are the traced machine's, and the warning would stand above the picture.
    """

    def draw(self, renderer: Any) -> None:
        with _no_glyphs():
            super().draw(renderer)

    def get_tightbbox(self, *args: Any, **kwargs: Any) -> Any:
        with _no_glyphs():
            return super().get_tightbbox(*args, **kwargs)


@contextmanager
def _no_glyphs() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .*missing from font")
        yield


class Picture(Sheet):
    """A matplotlib figure with spots. Notebooks show it as HTML, and everybody else as ever."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.alternative = ""
        """What stands for the picture where it cannot be seen."""
        self.spots: list[Spot] = []
        self.source: pd.DataFrame | None = None
        """The frame that ``Spot.rows`` counts in."""

    def _repr_html_(self) -> str:
        return self.page()

    def page(self, table: dict[str, Any] | None = None) -> str:
        """The picture as HTML that needs nothing else, with the rows of `linked` where given."""
        file = io.BytesIO()
        self.savefig(file, format="png", dpi=_PNG_DPI)
        width, height = (inches * _SHOWN_DPI for inches in self.get_size_inches())
        png = base64.b64encode(file.getvalue()).decode()
        boxes = "".join(self._box(spot, width, height) for spot in self.spots[:_MOST_SPOTS])
        # "</script" would end the script element, and "<!--" open what hides its end
        data = json.dumps(table).replace("<", "\\u003c")
        rows = f'<div></div><script type="application/json">{data}</script>'
        hint = "Click a bar to see its rows." if table else "Point at the picture for numbers."
        over = (
            f'<svg viewBox="0 0 {width:.0f} {height:.0f}">{boxes}</svg></span>'
            f"<output>{hint}</output>{rows if table else ''}<script>{_part('js')}</script>"
        )
        return (
            f'<figure class="ebpflab-picture"><style>{_part("css")}</style>'
            f'<span style="max-width:{width:.0f}px"><img width="{width:.0f}" alt="'
            f'{html.escape(self.alternative)}" src="data:image/png;base64,{png}">'
            f"{over if boxes else '</span>'}</figure>"
        )

    def _box(self, spot: Spot, width: float, height: float) -> str:
        """A transparent rectangle in the coordinates of the SVG, whose y axis points down."""
        frame = np.asarray(spot.ax.get_window_extent().extents) / self.bbox.width
        x0, y0, x1, y1 = frame.tolist()
        tall = self.bbox.height / self.bbox.width
        corners = [(a, b) for a in spot.x or (np.nan,) * 2 for b in spot.y or (np.nan,) * 2]
        points = spot.ax.transData.transform(np.nan_to_num(corners)) / self.bbox.width
        if spot.x is not None:
            x0, x1 = np.clip([points[:, 0].min(), points[:, 0].max()], x0, x1)
        if spot.y is not None:
            y0, y1 = np.clip([points[:, 1].min(), points[:, 1].max()], y0, y1)
        wide, high = (max(float(size) * width, _SMALLEST_PIXELS) for size in (x1 - x0, y1 - y0))
        return (
            f'<rect x="{x0 * width:.1f}" y="{(tall - y1) * width:.1f}" width="{wide:.1f}"'
            f' height="{high:.1f}"><title>{html.escape(printable(spot.text))}</title></rect>'
        )


@cache
def _part(suffix: str) -> str:
    return Path(__file__).with_name(f"picture.{suffix}").read_text(encoding="utf-8")
