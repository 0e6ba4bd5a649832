"""The picture of a live view that stays: PNG, and HTML with the last rows.

The view needs a kernel; a saved notebook has none. So the cell shows two things: the view, and
below it this picture, whose style sheet hides it while a view of the same key is in the page,
and hides what JupyterLab says instead of the view when there is no kernel.
"""

from __future__ import annotations

import base64
import html
import io
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import IPython.display
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ebpflab.live.history import Window
from ebpflab.live.sources import Source
from ebpflab.plots import canvas

_VIEW = "application/vnd.jupyter.widget-view+json"
_EMPTY = {"text/html": "", "text/plain": ""}
# One thread draws for all views: matplotlib opens its fonts for each thread that does, and keeps
# 64 of them open.
_ARTIST = ThreadPoolExecutor(1, "ebpflab artist")
_STYLE = """<style>
body:has(.ebpflab-live[data-key="{key}"]) .ebpflab-picture[data-key="{key}"] {{ display: none; }}
.jp-OutputArea:has(.ebpflab-picture) .jp-OutputArea-output.jupyter-widgets:not(:has(*)) {{
  display: none;
}}
</style>"""


class Still:
    """The two outputs of a live view: its view, and its picture."""

    def __init__(self, key: str) -> None:
        self._key, self._shown = key, ""
        self._display({**_EMPTY}, f"{key}-picture")

    def show_view(self, model_id: str, text: str) -> None:
        """Put the view, which has a kernel, where the cell's output is."""
        view = {"version_major": 2, "version_minor": 0, "model_id": model_id}
        self._display({_VIEW: view, "text/plain": text}, f"{self._key}-view")

    def close_view(self) -> None:
        """Leave the picture alone."""
        self._display({**_EMPTY}, f"{self._key}-view", update=True)

    def show(
        self,
        source: Source,
        frame: Window,
        rows: pd.DataFrame,
        kind: str,
        window_s: int,
        said: str,
    ) -> None:
        """Renew the picture, with what the view has ``said`` about an end nobody asked for."""
        png = _ARTIST.submit(draw, source, frame, kind, window_s).result()
        encoded = base64.b64encode(png).decode()
        table = rows.to_html(index=False, border=0) if len(rows) else ""
        told = in_words(source, frame, window_s)
        page = (
            f'{_STYLE.format(key=self._key)}<div class="ebpflab-picture" data-key="{self._key}">'
            f'<img alt="{html.escape(told)}" src="data:image/png;base64,{encoded}">'
            f"{f'<p>{html.escape(said)}</p>' if said else ''}{table}</div>"
        )
        text = f"{headline(source)}\n{said}".strip()
        bundle = {"text/html": page, "image/png": encoded, "text/plain": text}
        self._display(bundle, f"{self._key}-picture", update=True)

    def _display(self, bundle: dict[str, Any], ident: str, update: bool = False) -> None:
        show: Any = IPython.display.display
        show(bundle, raw=True, display_id=ident, update=update)


def headline(source: Source) -> str:
    """What is always said: how many events, and how many lost."""
    events, lost = source.totals
    losses = "counted in the kernel" if lost is None else f"{lost:,} lost"
    return f"{source.name}: {events:,} events, {losses}"


def in_words(source: Source, frame: Window, window_s: int) -> str:
    """The picture for who cannot see it: the headline, and where most values are."""
    totals = frame.counts.sum(axis=0)
    if source.column is None or not totals.any():
        return headline(source)
    most = int(totals.argmax())
    low, high = (source.label(frame.first + most + more) for more in (0, 1))
    title = _title(source, window_s)
    return f"{headline(source)}. {title}: the most, {totals[most]:,}, from {low} to {high}."


def _title(source: Source, window_s: int) -> str:
    return f"{source.subject} in these {window_s} seconds"


def draw(source: Source, frame: Window, kind: str, window_s: int) -> bytes:
    """Events per second above, buckets below, as PNG on a white sheet."""
    written = io.BytesIO()
    figure_of(source, frame, kind, window_s).savefig(written, format="png")
    return written.getvalue()


def figure_of(source: Source, frame: Window, kind: str, window_s: int) -> Figure:
    """The figure that `draw` writes."""
    buckets = source.column is not None and frame.counts.shape[1] > 0
    height = 4.6 if buckets else 2.4
    figure = Figure(figsize=(canvas.WIDTH_INCHES, height), layout="constrained", dpi=100)
    FigureCanvasAgg(figure)  # not pyplot: this is drawn in a thread, and pyplot is not made for it
    axes = figure.subplots(2 if buckets else 1, squeeze=False)[:, 0]
    _rate(canvas.sheet(height, axes[0]), frame, window_s)
    if buckets:
        ax = canvas.sheet(height, axes[1])
        labels = [source.label(frame.first + i) for i in range(frame.counts.shape[1] + 1)]
        (_heatmap if kind == "heatmap" else _histogram)(ax, frame, labels, window_s)
        canvas.caption(ax, canvas.literal(_title(source, window_s)))
    canvas.caption(axes[0], canvas.literal(headline(source)))
    return figure


def _rate(ax: Axes, frame: Window, window_s: int) -> None:
    ax.plot(frame.ends_s, frame.events_per_s, color=canvas.BLUE)
    lost = bool(frame.lost_per_s.any())
    if lost:
        ax.plot(frame.ends_s, frame.lost_per_s, color=canvas.ORANGE, label="lost per second")
        ax.legend(frameon=False, labelcolor=canvas.INK, loc="upper left")
    _time(ax, window_s)
    ax.set_ylabel("events per second")
    # A rate that stays the same is a line at the top, and the legend stands above it.
    ax.set_ylim(0, max(frame.events_per_s.max(initial=0), 1) * (1.5 if lost else 1.1))
    ax.yaxis.set_major_formatter("{x:,.0f}")


def _histogram(ax: Axes, frame: Window, labels: list[str], _: int) -> None:
    totals = frame.counts.sum(axis=0)
    ax.bar(np.arange(len(totals)) + 0.5, totals, width=0.94, color=canvas.BLUE)
    _edges(ax.set_xticks, labels)
    ax.set_ylabel("events")
    ax.yaxis.set_major_formatter("{x:,.0f}")


def _heatmap(ax: Axes, frame: Window, labels: list[str], window_s: int) -> None:
    begins = np.append(2 * frame.ends_s[:1] - frame.ends_s[1:2], frame.ends_s[:-1])
    edges = np.append(begins if len(begins) == len(frame.ends_s) else [-1.0], 0)
    shades = np.log1p(frame.counts.T.astype(float))
    ax.pcolormesh(edges, np.arange(len(labels)), shades, cmap="Blues", rasterized=True)
    _edges(ax.set_yticks, labels)
    _time(ax, window_s)


def _time(ax: Axes, window_s: int) -> None:
    ax.set(xlim=(-window_s, 0), xlabel="seconds ago")
    ax.xaxis.set_major_formatter(lambda seconds, _: f"{abs(seconds):g}")


def _edges(set_ticks: Any, labels: list[str]) -> None:
    """Name the edges of buckets, as many as there is room for."""
    most = min(72 // (max(map(len, labels)) + 1), 9)
    step = -(-len(labels) // most)
    places = range(0, len(labels), step)
    set_ticks([*places], [labels[place] for place in places])
