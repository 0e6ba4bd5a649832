"""Recording a chapter: it runs from top to bottom on a real kernel, and its wire is kept.

Recordings are kept per chapter, beside `ebpflab.replay`. One is *stale* when a cell that asked
something is not in the notebook any more as it was; prose, plots and answers may change. That a
new cell asks for something shows when it is played (tests/notebooks/test_replay.py): record it by
name.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ebpflab.errors import MissingTool, RecordingError
from ebpflab.replay import tape
from ebpflab.replay.tape import CHAPTERS
from ebpflab.transport.base import OnStep

_CELL_SECONDS = 600
_BEGIN = """from ebpflab.notebook.chapters import begin_recording
begin_recording({path!r}, {chapter!r}, {seed!r}, {cells!r}, {target!r})"""
_RECORDER = "recorder"  # the target's name in the notebook that is recorded


def record(notebook: Path, target: str, progress: OnStep, path: Path | None = None) -> Path:
    """Run ``notebook`` against ``target`` and keep its wire in ``path``, else as the chapter's own.

    Raises RecordingError when a cell fails; MissingTool without nbclient.
    """
    try:
        from nbclient import NotebookClient
        from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
    except ImportError:
        raise MissingTool(
            "Recording runs notebooks with nbclient, which is not installed: `make setup`, or"
            " `pip install nbclient`."
        ) from None
    path = path or recording_of(notebook)
    progress(f"{notebook.stem}: running every cell")
    cells = _code_cells(_read(notebook))
    new = path.with_name(f"{path.name}.new")  # a cell that fails must not cost the old one
    begin = {
        "path": str(new.absolute()),
        "chapter": notebook.stem,
        "seed": secrets.randbelow(1 << 32),
        "cells": [(cell.get("id", ""), _source(cell)) for cell in cells],
        "target": target,
    }
    client = _prepared(notebook, _BEGIN.format(**begin), NotebookClient)
    try:
        client.execute(env={**os.environ, "EBPFLAB_TARGET": _RECORDER})
        new.replace(path)
    except (CellExecutionError, CellTimeoutError) as error:
        told = getattr(error, "traceback", error)
        raise RecordingError(f"Cannot record {notebook}: a cell failed.\n{told}") from None
    except (DeadKernelError, AssertionError):  # nbclient ends it at Ctrl-C, and then misses it
        raise RecordingError(f"Cannot record {notebook}: its Jupyter kernel has ended.") from None
    except FileNotFoundError:
        raise RecordingError(f"{notebook} has opened no lab: nothing to record.") from None
    finally:
        new.unlink(missing_ok=True)
    return path


def begin_recording(
    path: str, chapter: str, seed: int, cells: Sequence[tuple[str, str]], target: str
) -> None:
    """In the notebook that is recorded: let the next lab write what crosses its wire."""
    from ebpflab import targets
    from ebpflab.replay.taping import TapingTarget

    inner, _ = targets.choose(target)

    def naming(asked: list[str]) -> list[list[str]]:
        names, left = [], iter(cells)
        for text in asked:
            ident = next(ident for ident, source in left if source == text)
            names.append([tape.text_name(text), ident])
        return names

    recorder = TapingTarget(inner, Path(path), seed, naming, chapter=chapter)
    targets.TARGETS[_RECORDER] = lambda: recorder


def recording_of(notebook: Path) -> Path:
    """Where the recording of a chapter is, or would be."""
    return CHAPTERS / f"{notebook.stem}{tape.SUFFIX}"


def stale(notebook: Path) -> str | None:
    """Why the recording of a chapter does not fit it any more; None when it does."""
    path = recording_of(notebook)
    if not path.is_file():
        return "there is no recording"
    texts = iter([tape.text_name(_source(cell)) for cell in _code_cells(_read(notebook))])
    for number, names in enumerate(tape.load(path).header["cells"], 1):
        if names[0] not in texts:  # goes on from the last one found: the order counts
            return f"cell number {number} of those that ask for something has changed"
    return None


def _prepared(notebook: Path, begin: str, client: Any) -> Any:
    import nbformat

    whole = nbformat.read(notebook, as_version=4)
    whole.cells.insert(0, nbformat.v4.new_code_cell(begin))
    resources = {"metadata": {"path": str(notebook.parent)}}
    return client(whole, timeout=_CELL_SECONDS, kernel_name="python3", resources=resources)


def _read(notebook: Path) -> dict[str, Any]:
    try:
        document = json.loads(notebook.read_text())
    except (OSError, ValueError) as error:
        raise RecordingError(f"Cannot read the notebook {notebook}: {error}.") from None
    if not isinstance(document, dict) or "cells" not in document:
        raise RecordingError(f"{notebook} is no notebook.")
    return document


def _code_cells(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [cell for cell in document["cells"] if cell["cell_type"] == "code"]


def _source(cell: dict[str, Any]) -> str:
    source = cell["source"]
    text = source if isinstance(source, str) else "".join(source)
    return text.rstrip("\n")  # as IPython keeps it
