"""Grades are just, and what one submission does is not felt by the next.

What grades takes eight minutes: only with EBPFLAB_EVERY_SUBMISSION=1.
"""

from __future__ import annotations

import os
from pathlib import Path

import confined
import grade
import nbformat
import psutil
import pytest
from submissions import EMPTY, HOSTILE, REFERENCE, SOURCE, WRONG, hand_in

pytestmark = [pytest.mark.vm, pytest.mark.timeout(2400)]
# `graded` looks for any process of the sandboxes' user.
grading = (
    pytest.mark.alone
    if "EBPFLAB_EVERY_SUBMISSION" in os.environ
    else pytest.mark.skip(reason="grading takes eight minutes: EBPFLAB_EVERY_SUBMISSION=1")
)

ASSIGNMENTS = sorted(path.name for path in SOURCE.iterdir())
FIRST = "01-exec-watcher"


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("course")
    grade.release(folder)
    return folder


def graded(course: Path, assignment: str, student: str) -> grade.Graded:
    result = grade.grade(assignment, student, course)
    print(result)
    left = [p for p in psutil.process_iter(["uids"]) if p.info["uids"].real == confined.GRADED_USER]
    assert left == [], "something of a submission still runs"
    return result


def test_the_release_has_neither_solutions_nor_hidden_tests(course: Path) -> None:
    released = sorted((course / "release").glob("*/*.ipynb"))
    assert [path.parent.name for path in released] == ASSIGNMENTS and len(released) >= 5
    for path in released:
        text = path.read_text()
        assert "SOLUTION" not in text and "HIDDEN" not in text
        cells = nbformat.read(path, as_version=4).cells
        points = [c.metadata.nbgrader.get("points", 0) for c in cells if "nbgrader" in c.metadata]
        assert sum(points) == 10
        assert not any(cell.get("outputs") for cell in cells)
        for cell in cells:
            if cell.cell_type == "code":
                compile(cell.source, path.name, "exec")  # what is left of a solution, too
    (hot,) = (course / "release").glob("05-*/*.ipynb")
    assert "0.7" not in hot.read_text(), "the share is told where it is checked"


@grading
@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_in_one_way_gets_the_other_points(course: Path, name: str) -> None:
    solution, score = WRONG[name]
    hand_in(course, FIRST, name, solution)
    assert graded(course, FIRST, name).score == score


@grading
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_one_gets_a_grade_or_a_reason(course: Path, name: str) -> None:
    solution, scores = HOSTILE[name]
    hand_in(course, FIRST, name, solution)
    result = graded(course, FIRST, name)
    assert result.score in scores
    assert result.reason or result.score is not None


@grading
@pytest.mark.parametrize("assignment", ASSIGNMENTS)
def test_the_reference_gets_all_points(course: Path, assignment: str) -> None:
    """After the hostile ones, which are the tests above."""
    hand_in(course, assignment, REFERENCE)
    result = graded(course, assignment, REFERENCE)
    assert (result.score, result.max_score) == (10, 10)
    assert list((course / "feedback" / REFERENCE / assignment).glob("*.html"))


@grading
@pytest.mark.parametrize("assignment", ASSIGNMENTS)
def test_an_empty_one_gets_none(course: Path, assignment: str) -> None:
    hand_in(course, assignment, EMPTY)
    assert graded(course, assignment, EMPTY).score == 0
