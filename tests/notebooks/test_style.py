"""How chapters are written: short cells, a question before each answer, nothing left open."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
MAX_LINES = 15
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)

# A path that exists only where the author sat. Paths of the traced machine (/bin/ls) are fine.
_HOST_PATH = re.compile(r"/(?:home|Users|root|work|mnt|media|tmp)/\w")
# A string that is nothing but a listing for another language: it does not count as Python.
_LISTING = re.compile(r'^\w+ = r?"""\n.*?^"""$', re.DOTALL | re.MULTILINE)


def cells(path: Path, kind: str | None = None) -> list[Any]:
    notebook = nbformat.read(path, as_version=4)
    return [cell for cell in notebook.cells if kind in (None, cell.cell_type)]


def test_there_are_chapters() -> None:
    assert [path.stem for path in NOTEBOOKS][:2] == ["00-check-your-machine", "01-kprobes"]


@each_notebook
def test_valid_with_stable_names_of_cells(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) >= (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    ids = [cell.id for cell in notebook.cells]
    assert ids == [str(number) for number in range(len(ids))]  # as nbstripout numbers them
    names = [cell.metadata.name for cell in notebook.cells]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z][a-z0-9-]+", name) for name in names)


@each_notebook
def test_no_outputs_are_committed(path: Path) -> None:
    nbstripout = [sys.executable, "-m", "nbstripout", "--verify", path]
    done = subprocess.run(nbstripout, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@each_notebook
def test_opens_with_what_it_is_for(path: Path) -> None:
    first = cells(path)[0]
    assert first.cell_type == "markdown"
    assert first.source.startswith(f"# {path.stem[:2]} · ")
    for heading in ("You will be able to", "Minutes", "Needed", "Tested on"):
        assert heading in first.source


@each_notebook
def test_ends_with_questions_and_where_to_read_on(path: Path) -> None:
    last = cells(path)[-1].source
    assert "## Questions" in last and "## Further reading" in last and "](https://" in last


@each_notebook
def test_code_cells_are_short(path: Path) -> None:
    long = {
        cell.metadata.name: lines
        for cell in cells(path, "code")
        if (lines := len(_LISTING.sub("", cell.source).splitlines())) > MAX_LINES
    }
    assert long == {}


@each_notebook
def test_no_path_of_the_authors_machine(path: Path) -> None:
    found = {cell.metadata.name: _HOST_PATH.findall(cell.source) for cell in cells(path)}
    assert {name: paths for name, paths in found.items() if paths} == {}


@each_notebook
def test_defines_no_reusable_logic_and_closes_its_lab(path: Path) -> None:
    code = [ast.parse(cell.source) for cell in cells(path, "code")]
    defined = [
        n for tree in code for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.ClassDef)
    ]
    assert defined == []
    calls = [ast.unparse(n) for tree in code for n in ast.walk(tree) if isinstance(n, ast.Call)]
    assert "Lab()" in calls and "lab.close()" in calls


@each_notebook
def test_every_capture_is_bounded(path: Path) -> None:
    for cell in cells(path, "code"):
        for call in (n for n in ast.walk(ast.parse(cell.source)) if isinstance(n, ast.Call)):
            if isinstance(call.func, ast.Attribute) and call.func.attr == "collect":
                bounds = {keyword.arg for keyword in call.keywords}
                assert not bounds or "seconds" in bounds, (
                    f"{cell.metadata.name}: could wait for ever"
                )


@each_notebook
def test_asks_before_it_answers_and_folds_its_hints(path: Path) -> None:
    text = "\n".join(cell.source for cell in cells(path, "markdown"))
    assert text.count("**Expect") >= 3
    assert "## Exercise" in text and "<details><summary>" in text
    assert text.count("<details>") == text.count("</details>")
