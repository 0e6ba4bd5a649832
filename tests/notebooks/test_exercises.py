"""What the checks of exercises say to answers that are wrong in one way, without a kernel."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any
from unittest.mock import MagicMock

import ipywidgets as widgets
import nbformat
import pandas as pd
import pytest
from chapters import NOTEBOOKS

from ebpflab import check


def verdict(chapter: str, cell: str, **names: Any) -> Any:
    """The value of a cell's last line, which is where a check says what it found."""
    cells = nbformat.read(NOTEBOOKS / f"{chapter}.ipynb", as_version=4).cells
    (source,) = (each.source for each in cells if each.metadata.name == cell)
    *before, last = source.splitlines()
    said: list[Any] = []
    names |= {"check": check, "random": random, "print": lambda *words: " ".join(map(str, words))}
    exec("\n".join([*before, f"said.append({last})"]), names | {"said": said})
    return said[0]


def test_calls_that_succeeded_are_among_the_errors() -> None:
    failed = pd.DataFrame({"key": [-20, -2], "value": [7, 3]})
    every = pd.DataFrame({"key": [-20, 3, 4, 5], "value": [7, 3, 2, 1]})
    assert verdict("02-kretprobes", "exercise-2-check-successes", errors=failed)
    wrong = verdict("02-kretprobes", "exercise-2-check-successes", errors=every)
    assert "results that are no error': too many" in repr(wrong)


@pytest.mark.parametrize(("pids", "said"), [(range(40, 47), "right: "), ([0] * 7, "same pid")])
def test_the_pid_of_each_end_was_filled_in(pids: Any, said: str) -> None:
    ends = pd.DataFrame({"comm": ["true"] * 7 + ["sh"], "pid": [*pids, 39]})
    shell = check.Task(39, 0, "", {"n": 7})
    found = verdict("08-perf-events", "exercise-2-check-pids", ends=ends, shell=shell)
    assert said in repr(found)


@pytest.mark.parametrize(
    ("predicted", "said"),
    [(227, "right: "), (226, "too few"), (228, "too many"), (None, "no answer yet")],
)
def test_prediction_of_what_a_stalled_ring_holds_is_right_to_the_record(
    predicted: int | None, said: str
) -> None:
    lab = MagicMock()  # its reader stands still: 227 records of 72 bytes fit into four pages
    prog = lab.load.return_value.__enter__.return_value
    prog.__getitem__.return_value.collect.return_value = [None] * 227
    names = {"lab": lab, "burst": "", "stalled": "", "pages": 4, "my_prediction": predicted}
    assert said in repr(verdict("08-perf-events", "exercise-1-check", **names))


def _nested(views: list[widgets.VBox]) -> widgets.Box:
    return widgets.VBox([widgets.HBox(views[:2]), views[2]])


@pytest.mark.parametrize(
    ("board", "said"),
    [
        (_nested, "; right"),
        (widgets.HBox, "; right"),
        (lambda views: widgets.HBox(), "; not yet"),
        (lambda views: widgets.HBox(views[:2]), "; not yet"),
        (lambda views: None, "; not yet"),
    ],
)
def test_a_board_holds_all_three_views(board: Callable[[Any], Any], said: str) -> None:
    views = [widgets.VBox() for _ in range(3)]
    for view in views:
        view.window = widgets.Dropdown(options=[30, 120], value=30)
        widgets.link((views[0].window, "value"), (view.window, "value"))
    latency, sizes, calls = views
    names = {"my_latency": latency, "my_sizes": sizes, "my_calls": calls}
    assert said in verdict("11-live", "exercise-2-check", my_board=board(views), **names)
