"""One contender against one workload: the clock, the processor and the memory, from outside.

The workload is started first and held by SIGSTOP before it becomes what it is, so that its pid
is known to the probes before it does anything. When the contender is ready it is let go, and at
its end the contender gets SIGINT, the Ctrl-C of a user.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from contender import Report, Task

HERE = Path(__file__).parent
_HOLD = 'kill -STOP $$; exec "$@"'
_SAMPLE_SECONDS = 0.02
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Scenario:
    """A workload, and what of it is traced."""

    name: str
    title: str
    commands: tuple[tuple[str, ...], ...]
    """One for each producer."""
    produced: int
    """Events of all producers together; 0 where the program counts them."""
    probe: str = "read"
    pages: int = 16384
    table: bool = False


@dataclass(frozen=True)
class Run:
    """What one contender did with one scenario, once."""

    rows: int
    produced: int
    lost: int | None
    """As the contender itself tells; None where it does not."""
    dropped: int
    seconds: float
    """From letting the workload go (of a table: from its end) to the finished DataFrame."""
    workload_seconds: float
    cpu_seconds: float
    """Of the reader: the contender and its children, from letting the workload go to the end."""
    memory_bytes: int
    """The most anonymous memory that the reader had, beyond what it had before."""


class Held:
    """Processes that wait before they become the workload."""

    def __init__(self, commands: Sequence[Sequence[str]]) -> None:
        self._processes = [
            subprocess.Popen(["/bin/sh", "-c", _HOLD, "held", *command], stderr=subprocess.DEVNULL)
            for command in commands
        ]
        self.pids = [each.pid for each in self._processes]
        for pid in self.pids:
            os.waitpid(pid, os.WUNTRACED)

    def run(self) -> tuple[int, float]:
        """Let them go, wait for the last: when they began (monotonic, ns), and their seconds."""
        began = time.monotonic_ns()
        for pid in self.pids:
            os.kill(pid, signal.SIGCONT)
        for each in self._processes:
            if each.wait() != 0:
                raise SystemExit(f"the workload {each.args!r} failed")
        return began, (time.monotonic_ns() - began) / 1e9

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._processes:
            if each.poll() is None:
                each.kill()
                each.wait()


def alone(scenario: Scenario) -> float:
    """Seconds that the workload takes with nobody watching."""
    with Held(scenario.commands) as held:
        return held.run()[1]


def measure(contender: str, output: str, scenario: Scenario, program: str) -> Run:
    """Run ``with_<contender>.py`` against the scenario."""
    with Held(scenario.commands) as held, tempfile.TemporaryFile() as said:
        task = Task(
            probe=scenario.probe,
            output="table" if scenario.table else output,
            pids=held.pids,
            program=program,
            pages=scenario.pages,
            entries=scenario.produced if scenario.table else 0,
        )
        command = [sys.executable, str(HERE / f"with_{contender}.py"), json.dumps(asdict(task))]
        reader = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, text=True
        )
        assert reader.stdin is not None and reader.stdout is not None
        try:
            _line(reader.stdout, "ready", contender, said)
            with Watch(reader.pid) as watch:
                began, workload_seconds = held.run()
                reader.send_signal(signal.SIGINT)
                told = _line(reader.stdout, "{", contender, said)
            report = Report(**json.loads(told))
        finally:
            reader.stdin.close()
            try:
                reader.wait(timeout=20)
            except subprocess.TimeoutExpired:
                reader.kill()
                reader.wait()
    since = report.asked_ns if scenario.table else began
    return Run(
        rows=report.rows,
        produced=scenario.produced if report.produced is None else report.produced,
        lost=report.lost,
        dropped=report.dropped,
        seconds=(report.finished_ns - since) / 1e9,
        workload_seconds=workload_seconds,
        cpu_seconds=watch.cpu_seconds,
        memory_bytes=watch.memory_bytes,
    )


def _line(reader: IO[str], beginning: str, contender: str, said: IO[bytes]) -> str:
    """The next line that begins so; others are notices."""
    for line in reader:
        if line.startswith(beginning):
            return line
    said.seek(0)
    raise SystemExit(f"{contender} failed: {said.read().decode(errors='replace')}")


class Watch:
    """What a process and its children use meanwhile."""

    def __init__(self, pid: int) -> None:
        self._pid, self._over = pid, threading.Event()
        self.cpu_seconds, self.memory_bytes = 0.0, 0

    def __enter__(self) -> Watch:
        self._cpu, self._memory = cpu_seconds(self._pid), memory_bytes(self._pid)
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self.cpu_seconds = cpu_seconds(self._pid) - self._cpu

    def _sample(self) -> None:
        while not self._over.wait(_SAMPLE_SECONDS):
            now = memory_bytes(self._pid) - self._memory
            self.memory_bytes = max(self.memory_bytes, now)


def _family(pid: int) -> Iterator[int]:
    yield pid
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from _family(int(child))


def cpu_seconds(pid: int) -> float:
    """Of a process, its living children, and those that it has waited for. Source: proc(5)."""
    ticks = 0
    for each in _family(pid):
        with suppress(OSError):
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(int(field) for field in fields[11:15])
    return ticks / _TICKS


def memory_bytes(pid: int) -> int:
    """Anonymous memory of a process and its children: without the mapped ring buffer."""
    found = 0
    for each in _family(pid):
        with suppress(OSError, ValueError):  # it has ended: a zombie has no memory to tell of
            found += anonymous_bytes(each)
    return found


def anonymous_bytes(pid: int) -> int:
    """Anonymous memory of a process alone. Source: proc_pid_status(5)."""
    words = Path(f"/proc/{pid}/status").read_text().split()
    return int(words[words.index("RssAnon:") + 1]) << 10
