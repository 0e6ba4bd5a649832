"""What every contender does: say that its probes are attached, go on until SIGINT, and report.

A contender is a program of its own. It is given a `Task` as JSON, prints "ready", and prints a
`Report` as JSON when its DataFrame is finished. Then it stays until its input is closed, so that
what it has used can be read from outside.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from dataclasses import asdict, dataclass

import pandas as pd


@dataclass(frozen=True)
class Task:
    """What a contender is to trace."""

    probe: str
    """"read" (the tracepoint of the system call) or "call" (a uprobe on ``work``)."""
    output: str
    """Where the program sends to: "ring", "perf", "table" or "flood" (see programs.py)."""
    pids: list[int]
    program: str
    """The path of the traced program; for a uprobe."""
    pages: int
    """Pages of the ring buffer."""
    entries: int = 0
    """Entries of the table."""


@dataclass(frozen=True)
class Report:
    """What came of it. Times are CLOCK_MONOTONIC's."""

    rows: int
    asked_ns: int
    """When the end of the workload was told."""
    finished_ns: int
    """When the DataFrame was finished."""
    produced: int | None = None
    """Records sent, where the program counts them itself."""
    lost: int | None = None
    """Records lost in the kernel, where the contender counts them."""
    dropped: int = 0
    """Rows that arrived, and were let go because there were too many to keep."""


def task() -> Task:
    """The task that this process was started with."""
    return Task(**json.loads(sys.argv[1]))


class End:
    """Ctrl-C as a flag: a KeyboardInterrupt would be swallowed in a callback of ctypes."""

    def __init__(self) -> None:
        self.asked_ns = 0
        self._reader, self._writer = os.pipe()
        signal.signal(signal.SIGINT, self._note)

    def _note(self, *_: object) -> None:
        self.asked_ns = time.monotonic_ns()
        os.write(self._writer, b"!")

    def ready(self) -> None:
        """Say that the probes are attached."""
        print("ready", flush=True)

    def wait(self) -> None:
        """Say so, and wait."""
        self.ready()
        os.read(self._reader, 1)


def finish(frame: pd.DataFrame, end: End, **counted: int) -> None:
    """Tell of a DataFrame that is finished at this moment; stay until nobody asks any more."""
    finished_ns = time.monotonic_ns()
    told = Report(len(frame), end.asked_ns, finished_ns, **counted)
    print(json.dumps(asdict(told)), flush=True)
    sys.stdin.read()
