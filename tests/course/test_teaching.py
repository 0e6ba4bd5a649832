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
    folder = REPOSITORY / "classroom" / "hub" / "server"
    config = PyFileConfigLoader("jupyterhub_config.py", str(folder)).load_config()
    closed = config.SystemdSpawner.unit_extra_properties["InaccessiblePaths"].split()
    assert closed == [f"-/opt/ebpflab/{name}" for name in confined.HIDDEN_HERE]


def test_grades_go_where_no_submission_and_no_student_sees_them(tmp_path: Path) -> None:
    page = (REPOSITORY / "docs" / "teaching.md").read_text()
    (command,) = re.findall(r"^\| grades as a table \| `(.+?)`", page, re.MULTILINE)
    folder = tmp_path / "classroom" / "course"
    shutil.copytree(REPOSITORY / "classroom" / "course", folder)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    (tmp_path / "course").mkdir()
    before = {*folder.rglob("*")}
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
    assert {*folder.rglob("*")} == before


def test_what_is_collected_lies_in_the_home_and_is_nothing_that_a_link_leads_to(
    tmp_path: Path,
) -> None:
    page = (REPOSITORY / "docs" / "teaching.md").read_text()
    (lines,) = re.findall(r"^    assignment=.*\n(?:    .*\n)+", page, re.MULTILINE)
    (name,) = re.findall("assignment=(.+)", lines)
    secret = tmp_path / "source" / name / "exec-watcher.ipynb"
    homes = {student: tmp_path / "home" / student for student in ("ann", "bob", "eve")}
    for notebook in (secret, *(home / "release" / name / secret.name for home in homes.values())):
        notebook.parent.mkdir(parents=True)
        notebook.write_text(notebook.parts[-4])
    shutil.rmtree(homes["bob"] / "release")
    (homes["bob"] / "release").symlink_to(secret.parents[1])
    (homes["eve"] / "release" / name / secret.name).unlink()
    (homes["eve"] / "release" / name / secret.name).symlink_to(secret)
    lines = lines.replace("/home/", f"{tmp_path}/home/")
    subprocess.run(["sh", "-ec", lines], cwd=tmp_path, check=True)
    collected = [path for path in (tmp_path / "course").rglob("*") if not path.is_dir()]
    assert collected == [tmp_path / "course" / "submitted" / "ann" / name / secret.name]
    assert collected[0].read_text() == "ann"
