"""A flame graph on paper: for PDF, previews, and pages where no script may run."""

from __future__ import annotations

import textwrap
import zlib
from collections.abc import Iterator

from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from ebpflab.plots import canvas
from ebpflab.plots.picture import Sheet
from ebpflab.plots.stack_tree import Node

_WIDTH_INCHES = 10.0
_ROW_INCHES = 0.23
_HEADING_INCHES, _LINE_INCHES = 0.45, 0.2
_CHARACTER_INCHES = 0.078
_WORDS_CHARACTERS = 118
# Okabe and Ito's, made light enough for black text. The page's script has the same.
COLOURS = {
    "user": "#f2c14e",
    "go": "#7fd1b9",
    "python": "#f7e98e",
    "jit": "#dcbcdc",
    "kernel": "#8ec7ea",
    "process": "#d9d9d9",
}
_SAME, _GROWN, _SHRUNK = "#ececec", "#ff7669", "#70a0ff"
_MEANING = {
    "user": "user",
    "go": "Go",
    "python": "Python",
    "jit": "made while it ran",
    "kernel": "kernel",
}


def draw(root: Node, title: str, words: list[str], compared: bool) -> Figure:
    """The picture of a pruned tree: callers below, what they call above them."""
    depth = root.depth()
    lines = [line for each in words for line in textwrap.wrap(each, _WORDS_CHARACTERS)]
    height = _HEADING_INCHES + depth * _ROW_INCHES + (len(lines) + 1) * _LINE_INCHES
    figure = Sheet(figsize=(_WIDTH_INCHES, height), facecolor=canvas.PAPER)
    bottom = (len(lines) + 0.7) * _LINE_INCHES / height
    ax = figure.add_axes((0.01, bottom, 0.98, depth * _ROW_INCHES / height))
    ax.set(xlim=(0, float(max(root.value, 1))), ylim=(0, depth))
    ax.axis("off")
    boxes, fills = [], []
    for node, left, row in _placed(root, 0, 0) if root.value else ():
        right = left + node.value
        boxes.append([(left, row), (right, row), (right, row + 0.94), (left, row + 0.94)])
        fills.append(_change(node, root) if compared else _fill(node))
        room = int(node.value / root.value * _WIDTH_INCHES * 0.98 / _CHARACTER_INCHES)
        if room >= 4:
            text = canvas.literal(canvas.shortened(node.name, room))
            offset = root.value * 0.003
            ax.text(left + offset, row + 0.45, text, va="center", fontsize=8.5, color=canvas.INK)
    ax.add_collection(PolyCollection(boxes, facecolors=fills, edgecolors="white", linewidths=0.4))
    top = 1 - 0.28 / height
    _write(figure, top, title, canvas.TITLE_POINTS)
    for number, line in enumerate(lines):
        _write(figure, bottom - (number + 1) * _LINE_INCHES / height, line, 9)
    if not compared:
        _legend(figure, root, top)
    return figure


def _write(figure: Figure, y: float, line: str, points: float) -> None:
    figure.text(0.012, y, canvas.literal(line), ha="left", fontsize=points, color=canvas.INK)


def _placed(node: Node, left: float, row: int) -> Iterator[tuple[Node, float, int]]:
    yield node, left, row
    for child in node.sorted():
        yield from _placed(child, left, row + 1)
        left += child.value


def _fill(node: Node) -> tuple[float, float, float]:
    """The colour of its kind; lighter or darker by its name, so that neighbours differ."""
    light = (zlib.crc32(node.name.encode()) % 100) / 100 * 0.35
    return _mixed(COLOURS[node.kind], "white", light)


def _change(node: Node, root: Node) -> tuple[float, float, float]:
    """Red where its share has grown, blue where it has shrunk, grey where it is the same."""
    change = node.value / root.value - (node.before / root.before if root.before else 0)
    return _mixed(_SAME, _GROWN if change > 0 else _SHRUNK, min(abs(change) * 2, 1))


def _mixed(one: str, other: str, part: float) -> tuple[float, float, float]:
    red, green, blue = (a + (b - a) * part for a, b in zip(to_rgb(one), to_rgb(other), strict=True))
    return red, green, blue


def _legend(figure: Figure, root: Node, y: float) -> None:
    kinds = {node.kind for node, _, _ in _placed(root, 0, 0)}
    x = 0.988
    for kind in [kind for kind in reversed(_MEANING) if kind in kinds]:
        label = _MEANING[kind]
        figure.text(x, y, label, ha="right", fontsize=9, color=canvas.INK)
        x -= (len(label) * _CHARACTER_INCHES + 0.07) / _WIDTH_INCHES
        figure.text(x, y, "■", ha="right", fontsize=11, color=COLOURS[kind])
        x -= 0.3 / _WIDTH_INCHES
