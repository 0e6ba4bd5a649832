"""Parallel runs: which tests stay together, which start first, and which run alone.

A pytest-xdist worker is a process with labs and guests of its own. The tests that share a fixture
form one group, which one worker runs, so nothing is booted, built or recorded twice. The longest
group starts first: what is left at the end is short, and no worker waits long for another.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from xdist.scheduler import LoadScopeScheduling

CACHED_SECONDS = "ebpflab/seconds"
_COMMITTED_SECONDS = Path(__file__).with_name("seconds.json")
_UNKNOWN_SECONDS = 1.0
_WORKER_BYTES = 3 << 30  # pytest and Chromium, and guests of 1 GiB

_TARGET = re.compile(r"\[(local|ssh|vm|replay)[-\]]")
_PART = re.compile(r"\[(part-\d+)")
# `replay` plays the tape of the lab before it, so its tests stay with those of `vm`.
_MACHINES = {"local": "here", "ssh": "here", "vm": "guest", "replay": "guest"}


def group_of(nodeid: str) -> str:
    """Return the name of a test's group: its module, or a part of it.

    The contract's tests share a lab for each target, over all modules.
    """
    module, _, test = nodeid.partition("::")
    if module.startswith("tests/contract/") and (target := _TARGET.search(test)):
        return f"tests/contract, {_MACHINES[target[1]]}"
    if part := _PART.search(test):
        return f"{module}, {part[1]}"
    return module


def seconds(config: pytest.Config) -> dict[str, float]:
    """Return how long each group took: in the last whole run here, or else where the table was
    made that is committed."""
    known: dict[str, float] = json.loads(_COMMITTED_SECONDS.read_text())
    if config.cache is not None:
        known |= config.cache.get(CACHED_SECONDS, {})
    return known


def expected(known: dict[str, float], group: str) -> float:
    return known.get(group, _UNKNOWN_SECONDS)


class LongestFirst(LoadScopeScheduling):  # type: ignore[misc]
    """A scheduler that hands out whole groups, the longest first."""

    def __init__(self, config: pytest.Config, log: Any) -> None:
        super().__init__(config, log)
        self._seconds = seconds(config)

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)

    def _assign_work_unit(self, node: Any) -> None:
        longest = max(self.workqueue, key=lambda group: expected(self._seconds, group))
        self.workqueue.move_to_end(longest, last=False)
        super()._assign_work_unit(node)


def workers() -> int:
    """Return how many workers this machine has cores and memory for."""
    fit = psutil.virtual_memory().available // _WORKER_BYTES
    return max(1, min(len(os.sched_getaffinity(0)), fit))


@contextmanager
def turn(item: pytest.Item) -> Iterator[None]:
    """Run a test beside those of other workers, or, if it is marked ``alone``, after all that have
    begun and before any that have not.

    A test that waits to be alone holds the turnstile, so later tests cannot overtake it for ever.
    """
    if not hasattr(item.config, "workerinput"):
        yield
        return
    folder = Path(item.config.getoption("basetemp")).parent  # of all workers
    alone = item.get_closest_marker("alone") is not None
    with (folder / "turnstile").open("w") as turnstile, (folder / "running").open("w") as running:
        fcntl.flock(turnstile, fcntl.LOCK_EX)
        fcntl.flock(running, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        if not alone:
            fcntl.flock(turnstile, fcntl.LOCK_UN)
        yield
