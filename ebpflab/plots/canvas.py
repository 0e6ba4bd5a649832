"""The sheet that every picture is drawn on.

White and opaque, whatever theme surrounds it: a notebook keeps its pictures, and the theme may
change after they were made. Colours are Okabe and Ito's, which colour-blind readers can tell
apart. Below each picture stands its reading in words: it goes where the picture goes, into a PDF
as well, and a screen reader is given the same sentence.
"""

from __future__ import annotations

import textwrap
import weakref
from collections.abc import Hashable

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.layout_engine import ConstrainedLayoutEngine

from ebpflab.decode.arrays import Values
from ebpflab.errors import UnknownName
from ebpflab.plots.picture import Picture, printable
from ebpflab.protocol.closest import suggest

PAPER, INK, FAINT = "white", "#202020", "#d8d8d8"
BLUE, ORANGE = "#0072b2", "#d55e00"
COLOURS = (BLUE, ORANGE, "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d31")
OTHER = "#9a9a9a"
TEXT_POINTS, TITLE_POINTS = 10.5, 12.0
WIDTH_INCHES = 7.5
_WORDS_POINTS, _WORDS_INCHES, _WORDS_CHARACTERS, _WORDS_LINES = 10.0, 0.2, 102, 6

_readings: weakref.WeakKeyDictionary[Axes, str] = weakref.WeakKeyDictionary()


def sheet(height_inches: float, ax: Axes | None = None) -> Axes:
    """Axes on a new white figure; ``ax`` itself, made white, where one is given.

    >>> float(sheet(3.0).get_figure().get_figheight())
    3.0
    """
    return _dressed(ax) if ax is not None else sheets(height_inches, 1, 1)[0]


def sheets(height_inches: float, number: int, columns: int) -> list[Axes]:
    """Axes beside and below one another, with the same scales, on one figure."""
    rows = -(-number // columns)
    figure, grid = plt.subplots(
        rows,
        columns,
        figsize=(WIDTH_INCHES, height_inches),
        layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12),
        FigureClass=Picture,
        sharex=True,
        sharey=True,
        squeeze=False,
    )
    figure.set_facecolor(PAPER)
    for unused in grid.flat[number:]:
        unused.remove()
    return [_dressed(ax) for ax in grid.flat[:number]]


def _dressed(ax: Axes) -> Axes:
    figure = ax.get_figure(root=True)
    assert figure is not None
    figure.set_facecolor(PAPER)
    ax.set_facecolor(PAPER)
    ax.set_axisbelow(True)
    for side, spine in ax.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(INK)
    ax.tick_params(colors=INK, labelsize=TEXT_POINTS)
    for label in (ax.xaxis.label, ax.yaxis.label):
        label.set(color=INK, fontsize=TEXT_POINTS)
    return ax


def caption(ax: Axes, title: str | None, above_points: float = 0) -> None:
    """The title, above the left edge, and above what is so many points high there already."""
    if title:
        pad = 10 + above_points
        ax.set_title(title, loc="left", color=INK, fontsize=TITLE_POINTS, pad=pad)


def tell(ax: Axes, words: str) -> None:
    """Put the picture into words, for `reading`, and below it where the figure is its own."""
    _readings[ax] = words
    picture = picture_of(ax)
    if picture is None:
        return
    lines = textwrap.wrap(words, _WORDS_CHARACTERS, max_lines=_WORDS_LINES, placeholder=" …")
    picture.set_figheight(picture.get_figheight() + _WORDS_INCHES * len(lines) + 0.1)
    text = "\n".join(literal(line) for line in lines)
    picture.supxlabel(text, x=0.016, ha="left", color=INK, fontsize=_WORDS_POINTS)
    title = ax.get_title(loc="left")
    ended = "" if not title or title[-1] in "?!." else "."
    picture.alternative = f"{title}{ended} {words}".strip()


def reading(ax: Axes) -> str:
    """Return a picture in words: the sentence below it.

    ``ax`` is what a function of this package returned; the text is empty for any other Axes.

    >>> plots.reading(plots.counts(comms, by="comm"))
    'sh: 2 of 3 rows (67 %); none of the 2 has more.'
    """
    return _readings.get(ax, "")


def picture_of(ax: Axes) -> Picture | None:
    """The figure of ``ax`` where it is one of ours, and not the reader's."""
    figure = ax.get_figure(root=True)
    return figure if isinstance(figure, Picture) else None


def nothing_to_draw(ax: Axes, title: str | None, what: str = "rows") -> Axes:
    """An empty picture that says that it is empty on purpose."""
    ax.set(xticks=[], yticks=[])
    ax.text(0.5, 0.5, f"no {what}", transform=ax.transAxes, ha="center", va="center", color=INK)
    caption(ax, title)
    return ax


def column(frame: pd.DataFrame, name: Hashable) -> Values:
    """A column by its name. Raises UnknownName with the closest names."""
    if name not in frame.columns:
        have = ", ".join(map(str, frame.columns)) or "none"
        close = suggest(str(name), [str(each) for each in frame.columns])
        raise UnknownName(f"There is no column {name!r} to draw. There are: {have}.{close}")
    return frame[name]


def named(values: Values) -> pd.Series[str]:
    """The text of each value; what is missing has a name too, or a picture would leave it out."""
    return values.astype("str").astype(object).where(values.notna(), "(none)").astype("str")


def literal(text: object) -> str:
    """Text for matplotlib to show as it is, on one line.

    A pair of dollar signs would mean mathematics.
    """
    return printable(str(text)).replace("$", r"\$")


def shortened(text: str, characters: int) -> str:
    """``text``, cut at its end to ``characters`` with an ellipsis.

    >>> shortened("/etc/debconf.conf", 8)
    '/etc/de…'
    """
    return text if len(text) <= characters else text[: characters - 1] + "…"
