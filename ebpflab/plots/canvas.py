"""The sheet that every picture is drawn on.

White and opaque, whatever theme surrounds it: a notebook keeps its pictures, and the theme may
change after they were made. Colours are Okabe and Ito's, which colour-blind readers can tell
apart.
"""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.layout_engine import ConstrainedLayoutEngine

PAPER, INK, FAINT = "white", "#202020", "#d8d8d8"
BLUE, ORANGE = "#0072b2", "#d55e00"
TEXT_POINTS, TITLE_POINTS = 10.5, 12.0
WIDTH_INCHES = 7.5


def sheet(height_inches: float, ax: Axes | None = None) -> Axes:
    """Axes on a new white figure; ``ax`` itself, made white, where one is given.

    >>> ax = sheet(3.0)                                               # doctest: +SKIP
    """
    if ax is None:
        _, ax = plt.subplots(
            figsize=(WIDTH_INCHES, height_inches),
            layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12),
        )
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


def caption(ax: Axes, title: str | None) -> None:
    """The title, above the left edge."""
    if title:
        ax.set_title(title, loc="left", color=INK, fontsize=TITLE_POINTS, pad=10)


def nothing_to_draw(ax: Axes, title: str | None) -> Axes:
    """An empty picture that says that it is empty on purpose."""
    ax.set(xticks=[], yticks=[])
    ax.text(0.5, 0.5, "no rows", transform=ax.transAxes, ha="center", va="center", color=INK)
    caption(ax, title)
    return ax


def literal(text: object) -> str:
    """Text for matplotlib to show as it is: a pair of dollar signs would mean mathematics."""
    return str(text).replace("$", r"\$")


def shortened(text: str, characters: int) -> str:
    """``text``, cut at its end to ``characters`` with an ellipsis.

    >>> shortened("/etc/debconf.conf", 8)
    '/etc/de…'
    """
    return text if len(text) <= characters else text[: characters - 1] + "…"
