"""What docs/teaching.md tells a teacher to type."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import confined
from traitlets.config import PyFileConfigLoader

REPOSITORY = Path(__file__).parents[2]


def test_students_of_a_server_see_no_more_of_it_than_their_submissions() -> None:
    folder = REPOSITORY / "labs" / "hub" / "server"
    config = PyFileConfigLoader("jupyterhub_config.py", str(folder)).load_config()
    closed = config.SystemdSpawner.unit_extra_properties["InaccessiblePaths"].split()
    assert closed == [f"-/opt/ebpflab/{name}" for name in confined.HIDDEN_HERE]


def test_grades_go_where_no_submission_and_no_student_sees_them(tmp_path: Path) -> None:
    page = (REPOSITORY / "docs" / "teaching.md").read_text()
    (command,) = re.findall(r"^\| grades as a table \| `(.+?)`", page, re.MULTILINE)
    labs = tmp_path / "labs" / "course"
    shutil.copytree(REPOSITORY / "labs" / "course", labs)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    (tmp_path / "course").mkdir()
    before = {*labs.rglob("*")}
    done = subprocess.run(
        ["sh", "-ec", command],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == 0, done.stdout
    assert (tmp_path / "course" / "grades.csv").read_text().startswith("assignment,")
    assert {*labs.rglob("*")} == before
