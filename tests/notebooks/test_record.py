"""`ebpflab record`: what a notebook did on a real kernel is what its recording plays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from ebpflab import cli
from ebpflab.errors import RecordingError
from ebpflab.replay import tape

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1800)]

CELLS = [
    "import os, random\nfrom ebpflab import Lab\nlab = Lab()",
    'prog = lab.load("BPF_ARRAY(n, u64, 1); int f(void *ctx) { n.increment(0); return 0; }")\n'
    'prog.attach_kprobe(event=lab.syscall_name("execve"), fn_name="f")',
    'n = random.randint(3, 10_000) % 17 + 2\nlab.run(["/bin/sh", "-c", "/bin/true; " * n + ":"])\n'
    'print(n, prog["n"].frame()["value"][0])\nprog["n"].clear()',
    "lab.close()",
]
Play = Callable[[list[str]], list[str]]


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("notebooks") / "mine.ipynb"
    cells = [nbformat.v4.new_code_cell(source) for source in CELLS]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


@pytest.fixture(scope="module")
def recording(notebook: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("A_SECRET", "hunter2-of-the-environment")
        path = notebook.with_name(f"mine{tape.SUFFIX}")
        assert cli.main(["record", str(notebook), "--output", str(path)]) == 0
    return path


@pytest.fixture
def play(recording: Path, monkeypatch: pytest.MonkeyPatch) -> Play:
    monkeypatch.setenv("EBPFLAB_TARGET", f"replay:{recording}")

    def run(sources: list[str]) -> list[str]:
        document = nbformat.v4.new_notebook(cells=[*map(nbformat.v4.new_code_cell, sources)])
        NotebookClient(document, timeout=300, kernel_name="python3").execute()
        return [
            "".join(output.get("text", "") for output in cell.outputs) for cell in document.cells
        ]

    return run


def test_it_plays_as_it_was_random_numbers_included(play: Play) -> None:
    first = play(CELLS)[2].split()
    assert int(first[1]) == int(first[0]) + 1, "the shell itself is started, too"
    assert play(CELLS)[2].split() == first


def test_cells_run_again_and_in_another_order(play: Play) -> None:
    lab, load, run, close = CELLS
    said = play([lab, "random.random()", load, run, load, run, run, close])
    assert said[3] and said[3] == said[5] == said[6]


def test_what_the_reader_changes_is_refused(play: Play) -> None:
    load = CELLS[1].splitlines()[0].replace("u64", "u32")
    said = play([CELLS[0], f"try:\n    {load}\nexcept Exception as error:\n    print(error)"])
    assert "no recording of this C program" in said[1] and "BPF_ARRAY(n, u32, 1)" in said[1]


def test_nothing_but_the_wire_is_in_it(recording: Path, notebook: Path) -> None:
    text = repr(tape.load(recording))
    for secret in ("hunter2", str(notebook.parent), str(Path.cwd())):
        assert secret not in text


def test_a_cell_that_fails_leaves_no_recording(
    notebook: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0")]), path)
    output = tmp_path / "bad.tape.xz"
    assert cli.main(["record", str(path), "--output", str(output)]) == 1
    assert "a cell failed" in capsys.readouterr().err and not output.exists()


def test_a_notebook_without_a_lab_cannot_be_recorded(tmp_path: Path) -> None:
    from ebpflab.notebook import chapters

    path = tmp_path / "none.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")]), path)
    with pytest.raises(RecordingError, match="opened no lab"):
        chapters.record(path, "vm", lambda step: None, tmp_path / "none.tape.xz")
