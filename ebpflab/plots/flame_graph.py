"""Where does the time go? Stacks, drawn as flames: the widest are the ones that cost.

    Program.stacks() -> tree -> pruned -> a page with d3-flame-graph    in JupyterLab, .html
                             |        `-> a sheet of matplotlib          .png, .svg, PDF
                             `-> folded lines, speedscope                for other tools

The page is one document without a network: its script is in it. In a notebook it stands in an
iframe of its own (``srcdoc``), so that it can neither disturb the notebook nor be disturbed by it;
where scripts may not run, the picture is shown instead.
"""

from __future__ import annotations

import html
import io
import json
import re
from functools import cached_property
from importlib import resources
from pathlib import Path

import pandas as pd

from ebpflab.plots import flame_sheet
from ebpflab.plots.picture import printable
from ebpflab.plots.stack_tree import LOST, UNKNOWN, Node, Pruned, rows, tree_of
from ebpflab.plots.units import counted, nanoseconds_in, singular, with_unit

_WIDTH_PIXELS = 1200  # a node narrower than one of so many is not drawn
_ROW_PIXELS = 18
_AROUND_PIXELS = 190  # heading, search and words
_MOST_ROWS_SHOWN = 40


def flame_graph(
    frame: pd.DataFrame,
    title: str = "Where the time goes",
    *,
    unit: str = "samples",
    before: pd.DataFrame | None = None,
) -> FlameGraph:
    """Return a flame graph of ``Program.stacks()``.

    ``frame`` has the columns ``value``, ``stack`` (a tuple of `Frame`, or of names) and, if there,
    ``comm``. ``unit`` is that of the values: "samples", "ns" or what was counted. With ``before``,
    an earlier capture, the widths are those of ``frame`` and the colours say what has changed: red
    where a function's share has grown, blue where it has shrunk. Functions narrower than a pixel
    are left out and counted. In a notebook: click to zoom, type to search, point to read.

    >>> flame_graph(stacks, title="hot, 99 Hz")
    <FlameGraph 'hot, 99 Hz': 99 samples in 2 stacks.>
    """
    return FlameGraph(frame, title, unit, before)


class FlameGraph:
    """A picture that `flame_graph` has made. The last line of a cell shows it.

    >>> plots.flame_graph(stacks).words
    ['99 samples in 2 stacks.']
    """

    def __init__(
        self, frame: pd.DataFrame, title: str, unit: str, before: pd.DataFrame | None
    ) -> None:
        self.title, self.unit = title, unit
        self._frame, self._before = frame, before

    @cached_property
    def _drawn(self) -> tuple[Node, Pruned]:
        return tree_of(
            self._frame, self._before, sum(self._frame["value"].tolist()) / _WIDTH_PIXELS
        )

    @cached_property
    def words(self) -> list[str]:
        """What the picture shows and what is missing in it, a sentence each."""
        root, pruned = self._drawn
        if not root.value:
            return [f"There are no {self.unit}: nothing ran, or nothing was attached."]
        said = [f"{self._amount(root.value)} in {counted(len(self._frame), 'stacks')}."]
        said += self._told()
        if pruned.functions:
            said.append(
                f"{counted(pruned.functions, 'functions')} narrower than a pixel"
                f" {'is' if pruned.functions == 1 else 'are'} not drawn"
                f" ({_percent(pruned.value, root.value)})."
            )
        if self._before is not None:
            total = int(self._before["value"].sum())
            said.append(
                f"Compared with {self._amount(total)} before: red has grown, blue has shrunk, as"
                " shares of all. What is gone has no width here: exchange the two to see it."
            )
        return said

    def _told(self) -> list[str]:
        """What could not be read or named."""
        lost, unknown, modules = 0, 0, set()
        for stack, value in rows(self._frame):
            nameless = {module for name, _, module in stack if name == UNKNOWN}
            lost += value if any(name == LOST for name, _, _ in stack) else 0
            unknown += value if nameless else 0
            modules |= nameless
        total, told = self._drawn[0].value, []
        if lost:
            told.append(
                f"Lost: {self._amount(lost)} ({_percent(lost, total)}), whose place in the table"
                " another stack had. A larger BPF_STACK_TRACE loses fewer."
            )
        if unknown:
            blamed = ", ".join(each or "code of no file" for each in sorted(modules)[:4])
            told.append(
                f"Without a name: functions in {self._amount(unknown)}"
                f" ({_percent(unknown, total)}), of {blamed}."
            )
        return told

    def _amount(self, value: float) -> str:
        return with_unit(int(value), self.unit)

    # -- for other tools ---------------------------------------------------------------------

    def folded(self) -> list[str]:
        """Return a line for each stack, as flamegraph.pl and others read it.

        >>> plots.flame_graph(stacks).folded()
        ['hot;main;checksum 90', 'hot;main;parse 9']
        """
        lines: dict[str, int] = {}
        for stack, value in rows(self._frame):
            line = ";".join(name.replace(";", ":") for name, _, _ in stack)
            lines[line] = lines.get(line, 0) + value
        return [f"{line} {value}" for line, value in lines.items()]

    def speedscope(self) -> dict[str, object]:
        """Return a file for speedscope.app, as a dictionary for ``json.dump``.

        Name the file ``NAME.speedscope.json``. Source: speedscope's file-format-spec.ts.

        >>> plots.flame_graph(stacks).speedscope()["profiles"][0]["weights"]
        [90, 9]
        """
        numbers: dict[tuple[str, str, str], int] = {}
        stacks, weights = [], []
        for stack, value in rows(self._frame):
            stacks.append([numbers.setdefault(each, len(numbers)) for each in stack])
            weights.append(value)
        frames = [
            {"name": name, **({"file": module} if module else {})} for name, _, module in numbers
        ]
        profile = {
            "type": "sampled",
            "name": self.title,
            "unit": "nanoseconds" if self.unit == "ns" else "none",
            "startValue": 0,
            "endValue": sum(weights),
            "samples": stacks,
            "weights": weights,
        }
        return {
            "$schema": "https://www.speedscope.app/file-format-schema.json",
            "name": self.title,
            "exporter": "ebpflab",
            "activeProfileIndex": 0,
            "shared": {"frames": frames},
            "profiles": [profile],
        }

    # -- pictures ----------------------------------------------------------------------------

    def html(self) -> str:
        """Return the whole page, with its script in it.

        >>> len(plots.flame_graph(stacks).html()) > 10_000
        True
        """
        root, _ = self._drawn
        facts = {
            "title": self.title,
            "unit": self.unit,
            "one": singular(self.unit),
            "nanoseconds": nanoseconds_in(self.unit),
            "total": root.value,
            "words": self.words,
            "before": root.before if self._before is not None else None,
            "tree": _as_json(root),
        }
        assets = resources.files("ebpflab.plots") / "assets"
        page = (assets / "flame_graph.html").read_text(encoding="utf-8")
        script = (assets / "d3-flame-graph.min.js").read_text(encoding="utf-8")
        # In a script of a page, "</script" would end it, and "<!--" open what hides its end.
        data = json.dumps(facts, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
        parts = {"TITLE": html.escape(self.title), "SCRIPT": script, "DATA": data}
        # All at once: a title may be "@DATA@".
        return re.sub("@(TITLE|SCRIPT|DATA)@", lambda found: parts[found[1]], page)

    def save(self, path: str | Path) -> Path:
        """Write the picture into a file, and return its path.

        The ending of ``path`` decides: ``.html`` with everything in it, ``.svg`` or ``.png``.
        Raises ValueError for another.

        >>> plots.flame_graph(stacks).save("hot.svg").name
        'hot.svg'
        """
        path = Path(path)
        kind = path.suffix.lower().removeprefix(".")
        if kind == "html":
            path.write_text(self.html(), encoding="utf-8")
        elif kind in ("svg", "png"):
            path.write_bytes(self._sheet(kind))
        else:
            raise ValueError(f"A flame graph is saved as .html, .svg or .png, not as {path.name!r}")
        return path

    def _sheet(self, kind: str) -> bytes:
        root, _ = self._drawn
        figure = flame_sheet.draw(root, self.title, self.words, self._before is not None)
        target = io.BytesIO()
        figure.savefig(target, format=kind, dpi=110)
        return target.getvalue()

    def _repr_mimebundle_(self, **_: object) -> dict[str, object]:
        shown = min(self._drawn[0].depth(), _MOST_ROWS_SHOWN)
        height = shown * _ROW_PIXELS + _AROUND_PIXELS
        frame = (
            f'<iframe title="{html.escape(self.title)}" sandbox="allow-scripts"'
            f' style="width:100%;height:{height}px;border:0;background:white"'
            f' srcdoc="{html.escape(self.html())}"></iframe>'
        )
        return {"text/html": frame, "image/png": self._sheet("png"), "text/plain": repr(self)}

    def __repr__(self) -> str:
        return f"<FlameGraph {self.title!r}: {' '.join(self.words)}>"


def _percent(part: float, total: float) -> str:
    return f"{100 * part / total:.1f} %"


def _as_json(node: Node) -> dict[str, object]:
    """A node as d3-flame-graph wants it, with short names: there are thousands."""
    told: dict[str, object] = {"name": printable(node.name), "value": node.value, "k": node.kind}
    if node.module:
        told["m"] = node.module
    if node.before:
        told["b"] = node.before
    if node.children:
        told["children"] = [_as_json(child) for child in node.sorted()]
    return told
