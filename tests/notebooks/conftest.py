"""Chapters, as files and as they run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


@dataclass
class Executed:
    """A chapter that ran from top to bottom. Cells are called by the name in their metadata."""

    name: str
    cells: dict[str, Any]

    def text(self, cell: str) -> str:
        """What a cell printed, and its result as plain text."""
        parts = []
        for output in self.cells[cell].outputs:
            parts.append(output.get("text", ""))
            parts.append(output.get("data", {}).get("text/plain", ""))
        return "\n".join(part for part in parts if part)

    def pictures(self, cell: str) -> int:
        return sum("image/png" in output.get("data", {}) for output in self.cells[cell].outputs)


def execute(name: str, changes: dict[str, str] | None = None) -> Executed:
    """Run a chapter from top to bottom. ``changes`` are what a reader writes into cells."""
    path = NOTEBOOKS / f"{name}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        cell.source = (changes or {}).get(cell.metadata.name, cell.source)
    resources = {"metadata": {"path": str(path.parent)}}
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources=resources).execute()
    return Executed(name, {cell.metadata.name: cell for cell in notebook.cells})


@pytest.fixture(scope="session", autouse=True)
def trace_the_vm() -> Iterator[None]:
    """Chapters say ``Lab()``; in tests that is the VM, never the machine that runs them."""
    before = os.environ.get("EBPFLAB_TARGET")
    os.environ["EBPFLAB_TARGET"] = "vm"
    yield
    os.environ.pop("EBPFLAB_TARGET")
    if before is not None:
        os.environ["EBPFLAB_TARGET"] = before
