"""When a chapter's recording is stale, and what `ebpflab record` says when it cannot be made."""

from __future__ import annotations

from pathlib import Path

import nbclient
import nbformat
import pytest
from nbclient.exceptions import CellTimeoutError, DeadKernelError

from ebpflab import cli
from ebpflab.notebook import chapters
from ebpflab.replay import tape
from ebpflab.replay.tape import Tape

ASKING = ["lab = Lab()", "prog = lab.load(source)\n", "lab.run(['ls'])"]


@pytest.fixture
def notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A chapter whose last two cells asked for something when it was recorded."""
    monkeypatch.setattr(chapters, "CHAPTERS", tmp_path)
    names = [[tape.text_name(source.rstrip("\n")), "id"] for source in ASKING[1:]]
    hello = {"kernel": "6.12", "arch": "x86_64", "bcc": "0.31"}
    header = {"hello": hello, "date": "2026-11-20", "seed": 1, "cells": names}
    path = tmp_path / "mine.ipynb"
    Tape(header, []).save(chapters.recording_of(path))
    _write(path, ASKING)
    return path


def _write(path: Path, sources: list[str]) -> None:
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    prose = nbformat.v4.new_markdown_cell("prose")
    nbformat.write(nbformat.v4.new_notebook(cells=[prose, *cells]), path)


@pytest.mark.parametrize(
    ("sources", "fits"),
    [
        (ASKING, True),
        (["lab = Lab()  # other", *ASKING[1:], "plots.counts(frame)"], True),
        ([*ASKING[:2], "lab.run(['ls', '/'])"], False),
        ([ASKING[0], ASKING[2], ASKING[1]], False),
        (ASKING[:2], False),
    ],
    ids=["as it was", "plots and texts", "another command", "another order", "a cell less"],
)
def test_it_is_stale_when_a_cell_that_asks_has_changed(
    notebook: Path, sources: list[str], fits: bool
) -> None:
    _write(notebook, sources)
    assert (chapters.stale(notebook) is None) == fits


def test_without_a_recording_it_is_stale(notebook: Path) -> None:
    chapters.recording_of(notebook).unlink()
    assert chapters.stale(notebook) == "there is no recording"


def test_without_names_record_takes_what_is_stale(
    notebook: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (notebook.parent / "notebooks").mkdir()
    for name in ("mine", "other"):
        _write(notebook.parent / "notebooks" / f"{name}.ipynb", ASKING)
    monkeypatch.chdir(notebook.parent)
    made: list[str] = []

    def record(path: Path, target: str, progress: object, output: None) -> Path:
        made.append(f"{path.stem} on {target}")
        return notebook

    monkeypatch.setattr(chapters, "record", record)
    assert cli.main(["record"]) == 0 and made == ["other on vm"]
    monkeypatch.setattr(chapters, "stale", lambda path: None)
    assert cli.main(["record"]) == 0 and "fits it" in capsys.readouterr().out
    assert cli.main(["record", "--output", "one"]) == 1
    assert made == ["other on vm"]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (CellTimeoutError("Cell execution timed out"), "a cell failed.*timed out"),
        (DeadKernelError("died"), "kernel has ended"),
        (AssertionError(), "kernel has ended"),
    ],
    ids=["timeout", "dead kernel", "Ctrl-C"],
)
def test_a_run_that_ends_early_keeps_the_old_recording(
    notebook: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    def fail(self: object, **_: object) -> None:
        raise error

    monkeypatch.setattr(nbclient.NotebookClient, "execute", fail)
    before = chapters.recording_of(notebook).read_bytes()
    with pytest.raises(chapters.RecordingError, match=f"(?s){said}"):
        chapters.record(notebook, "vm", lambda step: None)
    assert chapters.recording_of(notebook).read_bytes() == before


def test_what_is_no_notebook_is_told(tmp_path: Path) -> None:
    (tmp_path / "text.ipynb").write_text("text")
    (tmp_path / "list.ipynb").write_text("[]")
    for name in ("text", "list", "absent"):
        with pytest.raises(chapters.RecordingError, match=f"{name}.ipynb"):
            chapters.record(tmp_path / f"{name}.ipynb", "vm", lambda step: None)
