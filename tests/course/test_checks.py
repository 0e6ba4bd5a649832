"""The checks of the assignments, without a kernel: which rows get the points, and which do not."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grade
import nbformat
import pandas as pd
import pytest
from nbgrader.preprocessors import CheckCellMetadata
from submissions import SOURCE
from traitlets.config import PyFileConfigLoader

Rows = Callable[[int, int, int], Iterator[tuple[int, int, int]]]

PID = 4321


class SleepyLab:
    """In the place of a lab: a student's program that sends these rows of the second workload."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    @contextmanager
    def load(self, source: str) -> Iterator[dict[str, Any]]:
        yield {"calls": self}

    def run(self, argv: list[str], env: dict[str, str] | None = None) -> Any:
        words = re.search(r"args=\((\d+), (\d+) \* i .* range\(1, (\d+) \+ 1\)", argv[-1])
        assert words is not None, argv
        self._made = [*self._rows(*map(int, words.groups()))]
        return SimpleNamespace(pid=PID, returncode=0, stdout="")

    def frame(self) -> pd.DataFrame:
        return pd.DataFrame(self._made, columns=["latency_ns", "pid", "tid"])


def right(times: int, ms: int, threads: int) -> Iterator[tuple[int, int, int]]:
    for thread in range(1, threads + 1):
        yield from [(ms * thread * 1_000_000 + 90_000, PID, PID + thread - 1)] * times


def no_thread(times: int, ms: int, threads: int) -> Iterator[tuple[int, int, int]]:
    yield from ((latency_ns, pid, pid) for latency_ns, pid, _ in right(times, ms, threads))


def from_the_first_entry(times: int, ms: int, threads: int) -> Iterator[tuple[int, int, int]]:
    for number, (latency_ns, pid, tid) in enumerate(right(times, ms, threads)):
        yield latency_ns * (number % times + 1), pid, tid


def nothing(times: int, ms: int, threads: int) -> Iterator[tuple[int, int, int]]:
    yield from ()


@pytest.mark.parametrize(
    ("rows", "points"), [(right, 10), (no_thread, 6), (from_the_first_entry, 7), (nothing, 0)]
)
def test_a_latency_is_of_one_call_and_of_one_thread(rows: Rows, points: int) -> None:
    assert sum(_points(SOURCE / "02-latency", SleepyLab(rows))) == points


class GoLab:
    """Likewise of the third, whose pairs may be those of other goroutines."""

    def __init__(self, mistaken: dict[int, int]) -> None:
        self._mistaken = mistaken
        """What the program takes a worker's request for, once."""

    @contextmanager
    def load(self, source: str, cflags: list[str]) -> Iterator[Any]:
        yield self

    def attach_uprobe(self, **where: str) -> None: ...

    attach_go_return = attach_uprobe

    def run(self, argv: list[str], env: dict[str, str] | None = None) -> Any:
        workers, requests = map(int, argv[1:])
        made = [(n, 500 if n % 7 == 0 else 200) for n in range(requests)] * workers
        made = [(n, status if n % 5 else 404) for n, status in made]
        told = [f"{sum(status == s for _, status in made)} {word}" for s, word in _WORDS.items()]
        if workers > 1:
            made[:requests] = [(self._mistaken.get(n, n), status) for n, status in made[:requests]]
        self._made = made
        return SimpleNamespace(pid=PID, returncode=0, stdout=", ".join(told))

    def __getitem__(self, name: str) -> Any:
        frame = pd.DataFrame(self._made, columns=["request", "status"])
        return SimpleNamespace(frame=lambda: frame)


_WORDS = {200: "ok", 404: "not found", 500: "failed"}


@pytest.mark.parametrize(("mistaken", "points"), [({}, 10), ({2: 1}, 7), ({1: 5}, 7)])
def test_a_pair_is_of_one_goroutine_though_the_answer_is_the_same(
    mistaken: dict[int, int], points: int
) -> None:
    assert sum(_points(SOURCE / "03-go-returns", GoLab(mistaken))) == points


def _points(assignment: Path, lab: Any) -> Iterator[int]:
    """The points of each test that passes."""
    (path,) = assignment.glob("*.ipynb")
    names: dict[str, Any] = {"my_source": "", "cflags": [], "work": "work", "lab": lab}
    exec("from ebpflab import check", names)
    for cell in nbformat.read(path, as_version=4).cells:
        told = cell.metadata.get("nbgrader", {})
        if told.get("grade"):
            try:
                exec(cell.source, names)
            except AssertionError as error:
                print(told["grade_id"], error)
            else:
                yield told["points"]
        elif told.get("grade_id") == "workload":
            exec(cell.source, names)


def test_one_without_feedback_keeps_its_grade_and_the_next_one_is_graded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*arguments: Any) -> None:
        raise subprocess.CalledProcessError(1, "nbgrader")

    monkeypatch.setattr(grade, "_autograde", lambda *_: (0, ""))
    monkeypatch.setattr(grade, "_score", lambda *_: (8.0, 10.0))
    monkeypatch.setattr(grade, "_nbgrader", fails)
    result = grade.grade("01-exec-watcher", "ann", tmp_path)
    assert str(result) == "01-exec-watcher  ann: 8 of 10 (there is no feedback: see above)"


def test_a_cell_that_is_there_twice_is_counted_once() -> None:
    notebook = nbformat.read(SOURCE / "01-exec-watcher" / "exec-watcher.ipynb", as_version=4)
    (own,) = (c for c in notebook.cells if c.metadata.get("nbgrader", {}).get("solution"))
    copied = nbformat.from_dict({**own, "id": "copied", "source": "# half of it"})
    notebook.cells.insert(notebook.cells.index(own), copied)
    config = PyFileConfigLoader("nbgrader_config.py", str(SOURCE.parent)).load_config()
    (only_once,) = (
        each for each in config.Autograde.sanitize_preprocessors if "Dedup" in each.__name__
    )
    for each in (only_once(), CheckCellMetadata()):
        notebook, _ = each.preprocess(notebook, {})
    named = [c.metadata.nbgrader.grade_id for c in notebook.cells if "nbgrader" in c.metadata]
    assert sorted(named) == sorted({*named}) and "watcher" in named
    assert "# half of it" in [cell.source for cell in notebook.cells]


def test_what_a_file_manager_leaves_is_no_submission(tmp_path: Path) -> None:
    for name in ("ann/01-exec-watcher", "ann/.ipynb_checkpoints", ".DS_Store/01-exec-watcher"):
        (tmp_path / "submitted" / name).mkdir(parents=True)
    assert [*grade.submissions(tmp_path)] == [["01-exec-watcher", "ann"]]
