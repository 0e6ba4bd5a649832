"""Grade what was submitted: each submission in a sandbox of its own, one after the other.

    .venv/bin/python classroom/course/grade.py [ASSIGNMENT [STUDENT]]

What `make grade` does after its set-up. nbgrader does the grading (`nbgrader autograde`), its
kernel is confined (confined.py). This adds a limit on the time of a whole submission, and a reason
where there is no grade, so that whatever one submission does, the next one is graded. Feedback is
made for those that were graded. Ends with 0 when each submission was graded, and with 1 otherwise.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nbgrader.api import Gradebook

HERE = Path(__file__).resolve().parent
COURSE = HERE.parents[1] / "course"

SECONDS = 1800
"""For a whole submission; nbgrader_config.py has the limits of its cells."""
TEST_SECONDS = 300
"""For a cell that boots a guest, or compiles: minutes where a busy machine emulates."""
RUNTIME_BYTES = 1 << 20
GRADER_BYTES = 3 << 30
"""Of nbgrader, which keeps what a submission prints."""

_REASONS = {
    "Kernel died before replying": "not its fault: the sandbox did not start, see its log",
    "DeadKernelError": "its Python was ended: by itself, by a signal, or for want of memory",
    "Kernel died": "its Python was ended: by itself, by a signal, or for want of memory",
    "Kernel didn't respond": "its Python did not answer within a minute",
    "MemoryError": "it printed or made more than fits into the grader's memory",
    "No notebooks found": "there is no notebook of the assignment's name among what was handed in",
    "No notebooks were matched": "no notebook lies there: expected STUDENT/ASSIGNMENT/*.ipynb",
    "No such assignment": "there is no assignment of that name: `make course` makes all that are",
    "not valid JSON": "what was handed in is no notebook",
    "UnresponsiveKernelError": "its Python could not be interrupted",
}


@dataclass(frozen=True)
class Graded:
    """What became of one submission; ``reason`` says why there is no score, or why to doubt it."""

    assignment: str
    student: str
    score: float | None
    max_score: float
    reason: str = ""

    def __str__(self) -> str:
        told = f"{self.score:g} of {self.max_score:g}" if self.score is not None else "no grade"
        return f"{self.assignment}  {self.student}: {told}{self.reason and f' ({self.reason})'}"


def grade(
    assignment: str, student: str, course: Path = COURSE, *, seconds: int = SECONDS
) -> Graded:
    """Grade one submission, and make its feedback. Nothing of it is left running."""
    status, log = _autograde(assignment, student, course, seconds)
    folder = course / "autograded" / student / assignment
    (course / f"{assignment}-{student}.log").write_text(log)
    if status != 0:
        shutil.rmtree(folder, ignore_errors=True)  # a half-graded notebook is no grade
        late = f"it took longer than {seconds} s in all, and was ended"
        return Graded(assignment, student, None, 0, late if status is None else _reason(log))
    score, max_score = _score(assignment, student, course)
    try:
        _nbgrader(course, "generate_feedback", "--force", assignment, f"--student={student}")
    except subprocess.CalledProcessError:  # of what a cell shows; the grade is there
        return Graded(assignment, student, score, max_score, "there is no feedback: see above")
    slow = f"Timeout waiting for execute reply ({TEST_SECONDS}s)" in log
    hint = f"a test took longer than {TEST_SECONDS} s: is this machine busy with other things?"
    return Graded(assignment, student, score, max_score, hint if slow else "")


def submissions(course: Path, assignment: str = "*", student: str = "*") -> Iterator[list[str]]:
    """Assignment and student of each submission."""
    for folder in sorted((course / "submitted").glob(f"{student}/{assignment}")):
        names = [folder.name, folder.parent.name]
        if not any(name.startswith(".") for name in names):  # .ipynb_checkpoints, .DS_Store
            yield names


def _autograde(assignment: str, student: str, course: Path, seconds: int) -> tuple[int | None, str]:
    """nbgrader's status, None when it was ended for time; and what it logged."""
    with tempfile.TemporaryDirectory(prefix="grade-", dir="/tmp") as runtime:
        command = [
            *("bwrap", "--die-with-parent", "--bind", "/", "/", "--dev-bind", "/dev", "/dev"),
            *("--unshare-pid", "--proc", "/proc"),  # none of its processes outlives it
            # Where the confined kernel may write: its sockets, and next to nothing else.
            *("--size", str(RUNTIME_BYTES), "--tmpfs", runtime),
            *("prlimit", f"--as={GRADER_BYTES}:unlimited", "--"),
            *_command(course, "autograde", "--force", assignment, f"--student={student}"),
        ]
        process = subprocess.Popen(
            command,
            cwd=HERE,
            env={
                **_environment(),
                "JUPYTER_PATH": str(HERE),  # our kernels/python3
                "JUPYTER_RUNTIME_DIR": runtime,
                "TMPDIR": runtime,  # the file that tells the kernel how to connect
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        try:
            log, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            log, _ = process.communicate()
            return None, log
        return process.returncode, log


def _command(course: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "nbgrader", *arguments, f"--CourseDirectory.root={course}"]


def _environment() -> dict[str, str]:
    """With our own programs in PATH, .venv active or not: nbgrader calls `alembic`."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def _nbgrader(course: Path, *arguments: str) -> None:
    """Raises CalledProcessError, after what nbgrader said."""
    command = _command(course, *arguments)
    environment = _environment()
    done = subprocess.run(command, cwd=HERE, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        print(done.stdout + done.stderr)
        done.check_returncode()


def _score(assignment: str, student: str, course: Path) -> tuple[float, float]:
    with Gradebook(f"sqlite:///{course / 'gradebook.db'}", "ebpflab") as gradebook:
        submission = gradebook.find_submission(assignment, student)
        return submission.score, submission.max_score


def _reason(log: str) -> str:
    """Why nbgrader gave no grade, in words where the reason is a known one."""
    for sign, reason in _REASONS.items():
        if sign in log:
            return reason
    errors = re.findall(r"^(?:\w+\.)*\w*(?:Error|Exception): .*$", log, re.MULTILINE)
    lines = errors or log.strip().splitlines() or ["nbgrader said nothing"]
    return f"nbgrader: {lines[-1].strip()}"


def release(course: Path = COURSE) -> None:
    """Make the students' version of each assignment: without solutions and hidden tests."""
    course.mkdir(parents=True, exist_ok=True)
    _nbgrader(course, "generate_assignment", "--force", "--assignment=*")


def main() -> int:
    if sys.argv[1:] == ["--release"]:
        release()
        print(f"The release, without solutions: {COURSE / 'release'}")
        return 0
    results = []
    for assignment, student in submissions(COURSE, *sys.argv[1:3]):
        results.append(grade(assignment, student))
        print(results[-1], flush=True)
    if not results:
        print(f"Nothing is submitted: expected {COURSE}/submitted/STUDENT/ASSIGNMENT/*.ipynb")
    return 0 if results and all(result.score is not None for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
