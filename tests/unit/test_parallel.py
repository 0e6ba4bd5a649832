"""Which tests one worker runs, and that one which wants to be alone neither meets others nor waits
for ever."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import parallel
import pytest


@pytest.mark.parametrize(
    ("nodeid", "group"),
    [
        ("tests/unit/test_wire.py::test_a[1-x]", "tests/unit/test_wire.py"),
        ("tests/contract/test_go.py::test_a[vm-3]", "tests/contract, guest"),
        ("tests/contract/test_usdt.py::test_b[replay]", "tests/contract, guest"),
        ("tests/contract/test_go.py::test_a[local-3]", "tests/contract, here"),
        ("tests/contract/test_go.py::test_a[ssh]", "tests/contract, here"),
        ("tests/contract/test_x.py::test_c[ssh://two-x]", "tests/contract/test_x.py"),
        ("tests/kernel/test_x.py::test_d[part-1-trace]", "tests/kernel/test_x.py, part-1"),
    ],
)
def test_tests_that_share_a_lab_are_one_group(nodeid: str, group: str) -> None:
    assert parallel.group_of(nodeid) == group


def in_worker(folder: Path, *markers: str) -> Any:
    """Return a test as `turn` sees it, in a worker with a folder beside ``folder``'s others."""
    options = {"basetemp": str(folder / "popen-gw0")}
    return SimpleNamespace(
        config=SimpleNamespace(workerinput={}, getoption=options.get),
        get_closest_marker=lambda name: name if name in markers else None,
    )


def test_a_test_that_is_alone_waits_for_those_before_it_and_not_for_those_after(
    tmp_path: Path,
) -> None:
    ran: list[str] = []

    def run(name: str, *markers: str) -> None:
        with parallel.turn(in_worker(tmp_path, *markers)):
            ran.append(name)

    later = [threading.Thread(target=run, args=args) for args in (("alone", "alone"), ("after",))]
    with parallel.turn(in_worker(tmp_path)):
        run("beside")
        for thread in later:
            thread.start()
            _until_it_waits(thread)
        assert ran == ["beside"]
    for thread in later:
        thread.join(60)
    assert ran == ["beside", "alone", "after"]


def _until_it_waits(thread: threading.Thread) -> None:
    """Wait until a thread sleeps in flock(2)."""
    deadline = time.monotonic() + 60
    while "locks_lock" not in Path(f"/proc/self/task/{thread.native_id}/wchan").read_text():
        assert thread.is_alive() and time.monotonic() < deadline
        time.sleep(0.01)
