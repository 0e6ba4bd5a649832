"""What students hand in: the reference, nothing, what is wrong in one way, what is hostile."""

from __future__ import annotations

from pathlib import Path

import nbformat

SOURCE = Path(__file__).parents[2] / "classroom" / "course" / "source"
REFERENCE, EMPTY = "reference", "empty"

_HEAD = '''my_source = r"""
#include <linux/sched.h>

struct start {
    u32 pid, ppid;
    char filename[64];
};
BPF_RINGBUF_OUTPUT(starts, 64);
'''
_RIGHT = """
TRACEPOINT_PROBE(sched, sched_process_exec) {
    struct task_struct *task = (struct task_struct *)bpf_get_current_task();
    struct start start = {};
    start.pid = bpf_get_current_pid_tgid() >> 32;
    start.ppid = task->real_parent->tgid;
    TP_DATA_LOC_READ_STR(&start.filename, filename, sizeof(start.filename));
    starts.ringbuf_output(&start, sizeof(start), 0);
    return 0;
}
"""
_AT_THE_ENTRY = """
TRACEPOINT_PROBE(syscalls, sys_enter_execve) {
    struct task_struct *task = (struct task_struct *)bpf_get_current_task();
    struct start start = {};
    start.pid = bpf_get_current_pid_tgid() >> 32;
    start.ppid = task->real_parent->tgid;
    bpf_probe_read_user_str(&start.filename, sizeof(start.filename), args->filename);
    starts.ringbuf_output(&start, sizeof(start), 0);
    return 0;
}
"""
_PATH = "TP_DATA_LOC_READ_STR(&start.filename, filename, sizeof(start.filename));"
_NAME = "bpf_get_current_comm(&start.filename, 16);"


def _watcher(c_source: str, then: str = "") -> str:
    return f'{_HEAD}{c_source}"""\n{then}'


WRONG = {
    "attempts": (_watcher(_AT_THE_ENTRY), 8),
    "own-parent": (_watcher(_RIGHT.replace("task->real_parent->tgid", "start.pid")), 7),
    "no-pid": (_watcher(_RIGHT.replace("start.pid = bpf_get_current_pid_tgid() >> 32;", "")), 8),
    "short-name": (_watcher(_RIGHT.replace(_PATH, _NAME)), 2),
}
"""Of the first assignment: the cell, and what it should score of 10."""

HOSTILE = {
    "loops": (_watcher(_RIGHT, "while True:\n    pass"), {10.0}),
    "prints": (_watcher(_RIGHT, "while True:\n    print('x' * 1000)"), {10.0}),
    "stderr": (
        _watcher(
            _RIGHT,
            "import sys, threading, time\n"
            "def nag():\n"
            "    while True:\n"
            "        print('oh no', file=sys.stderr)\n"
            "        time.sleep(0.05)\n"
            "threading.Thread(target=nag, daemon=True).start()",
        ),
        {10.0},
    ),
    "kills-agent": (_watcher(_RIGHT, "lab.run(['kill', '-9', str(lab.agent_pid)])"), {0.0}),
    "forks": (_watcher(_RIGHT, "import os\nwhile True:\n    os.fork()"), {0.0, None}),
    "kills-itself": (_watcher(_RIGHT, "import os\nos.kill(os.getpid(), 9)"), {None}),
}
"""Likewise: the cell, and the scores that may come of it; None is "no grade", with a reason."""


def hand_in(course: Path, assignment: str, student: str, solution: str | None = None) -> None:
    """Put a submission where nbgrader looks for it.

    ``solution`` takes the place of the cell for it; without, the student is REFERENCE or EMPTY.
    """
    made_from = SOURCE if student == REFERENCE else course / "release"
    (path,) = (made_from / assignment).glob("*.ipynb")
    notebook = nbformat.read(path, as_version=4)
    if solution is not None:
        (cell,) = (c for c in notebook.cells if c.metadata.get("nbgrader", {}).get("solution"))
        cell.source = solution
    folder = course / "submitted" / student / assignment
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, folder / path.name)
