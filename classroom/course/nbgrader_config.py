"""nbgrader's settings for this course. All that is made and handed in is in the folder course/."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from nbgrader.converters import Autograde
from nbgrader.preprocessors import DeduplicateIds

HERE = Path(__file__).resolve().parent

c: Any = get_config()  # type: ignore[name-defined]  # noqa: F821

c.CourseDirectory.course_id = "ebpflab"
COURSE = HERE.parents[1] / "course"
c.CourseDirectory.root = str(COURSE)
c.CourseDirectory.source_directory = str(HERE / "source")

# Solutions are C in Python's strings, and Python: no comment is one in both. The sources say
# "your lines" themselves, outside of what is cut.
c.ClearSolutions.code_stub = {"python": ""}


class DeduplicateCells(DeduplicateIds):
    """A cell that a student has copied or split counts once, and its other parts are plain cells.

    nbgrader leaves them metadata that are empty, and then grades nothing: they are "too old".
    """

    def preprocess_cell(self, cell: Any, resources: Any, cell_index: int) -> tuple[Any, Any]:
        cell, resources = super().preprocess_cell(cell, resources, cell_index)
        if cell.metadata.get("nbgrader") == {}:
            del cell.metadata["nbgrader"]
        return cell, resources


c.Autograde.sanitize_preprocessors = [
    DeduplicateCells if each is DeduplicateIds else each
    for each in Autograde.sanitize_preprocessors.default()
]

# Not where it is called, in classroom/course, which every submission sees.
c.ExportPlugin.to = str(COURSE / "grades.csv")

# For a student's own cells; and for those that boot a guest and compile, the tests.
ANSWER_SECONDS, TEST_SECONDS = 120, 300  # as in grade.py
c.Execute.timeout_func = lambda cell: (
    TEST_SECONDS if cell.metadata.get("nbgrader", {}).get("locked") else ANSWER_SECONDS
)
c.LimitOutput.max_lines = 200

# By sockets in the runtime directory: the confined kernel has no network, not even loopback.
if "JUPYTER_RUNTIME_DIR" in os.environ:  # as grade.py starts it
    c.KernelManager.transport = "ipc"
    c.KernelManager.ip = str(Path(os.environ["JUPYTER_RUNTIME_DIR"]) / "kernel")
