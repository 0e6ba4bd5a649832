"""Runs a chapter from top to bottom, as a reader would, and keeps what each cell showed."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
_PROGRESS = re.compile(r".+: (ended after )?\d+ s|.+ \(\d+ s\)")


@dataclass
class Chapter:
    """A chapter that has run. Cells are called by the name in their metadata."""

    cells: dict[str, Any]

    def text(self, cell: str) -> str:
        """What a cell printed, and its result as plain text; but not how long it has taken."""
        outputs = [each for each in self.cells[cell].outputs if not _is_progress(each)]
        parts = [o.get("text", "") + o.get("data", {}).get("text/plain", "") for o in outputs]
        return "\n".join(part for part in parts if part)

    @property
    def on_arm64(self) -> bool:
        """Whether the traced machine is, as its cell ``lab`` says."""
        return "aarch64" in self.text("lab")

    def frame(self, cell: str) -> pd.DataFrame:
        """The DataFrame that ``show`` has asked for after this cell."""
        return pd.DataFrame(json.loads(self.text(f"{cell}-shown")))

    def pictures(self, cell: str) -> int:
        return sum("image/png" in output.get("data", {}) for output in self.cells[cell].outputs)


def _is_progress(output: dict[str, Any]) -> bool:
    """Whether it is the line that `ebpflab.display.progress` shows where a step takes long."""
    told = output.get("data", {})
    shown = output["output_type"] == "display_data" and [*told] == ["text/plain"]
    return shown and bool(_PROGRESS.fullmatch(told["text/plain"]))


def run(
    name: str,
    answers: dict[str, str] | None = None,
    show: dict[str, str] | None = None,
    only: Sequence[str] = (),
) -> Chapter:
    """Run a chapter, or ``only`` some of its cells. ``answers`` replace cells, as a reader who
    solves the exercises does; ``show`` names a DataFrame to write out in full after a cell."""
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    cells = []
    for cell in notebook.cells:
        called = cell.metadata.name
        if only and called not in only:
            continue
        cell.source = (answers or {}).get(called, cell.source)
        cells.append(cell)
        if called in (show or {}):
            code = f"print({(show or {})[called]}.to_json(orient='records'))"
            cells.append(nbformat.v4.new_code_cell(code, metadata={"name": f"{called}-shown"}))
    notebook.cells = cells
    resources = {"metadata": {"path": str(NOTEBOOKS)}}
    # A cell that raises ends the run and the test: errors that are meant are caught in the chapter.
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()
    return Chapter({cell.metadata.name: cell for cell in cells})
