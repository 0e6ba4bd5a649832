"""Fleet: several machines traced at once, with a column ``host`` that tells them apart.

One `Lab` for each target, and whatever is asked is asked of all of them at the same time. A
machine that fails is left out from then on, with its error kept in ``failed`` and one line said;
the others go on.
"""

from __future__ import annotations

import contextvars
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from ebpflab.arrivals import EventSource, limits
from ebpflab.display.progress import notice
from ebpflab.errors import EbpflabError, TargetError
from ebpflab.lab import Completed, Lab, Workload
from ebpflab.program import Program
from ebpflab.transport.closing import Closing

_T = TypeVar("_T")
_WAIT_STEP_SECONDS = 0.1


class Fleet(Closing):
    """Several machines, traced at once. Also a context manager.

    ``targets`` are those of `Lab`, such as "ssh://web-1"; each names its rows in the column
    ``host``. ``labs`` has the lab of each target, and ``failed`` the error of each that is left
    out. Raises TargetError when a target is named twice, or none can be traced.

    >>> progs = fleet.load(source)
    >>> progs.programs
    {'replay:web-1': <Program read_begins, read_ends: not attached>,
     'replay:web-2': <Program read_begins, read_ends: not attached>}
    >>> attached = progs.each(lambda prog: prog.attach_kprobe("vfs_read", "read_begins"))
    >>> progs.frame("latency_ns").groupby("host")["value"].sum().to_dict()
    {'replay:web-1': 810, 'replay:web-2': 810}
    """

    def __init__(self, targets: Sequence[str]) -> None:
        if len(set(targets)) < len(targets):
            raise TargetError("A machine is named twice: each names its rows, so once each.")
        self.failed: dict[str, EbpflabError] = {}
        """Machines that are left out, and why."""
        self.labs: dict[str, Lab] = {}
        self.labs = self._ask({target: target for target in targets}, Lab)
        if not self.labs:
            reasons = "\n".join(f"  {host}: {error}" for host, error in self.failed.items())
            raise TargetError(f"None of the {len(targets)} machines can be traced.\n{reasons}")

    def _ask(self, things: dict[str, Any], function: Callable[[Any], _T]) -> dict[str, _T]:
        """``function`` of each thing, at once; without those whose machine fails.

        What fails on every machine, as C that does not compile, is no machine's failure: it is
        raised, and all of them stay. An interrupt waits for none of them: what they do ends by
        itself, and is dropped.
        """
        answers: dict[str, _T] = {}
        failed: dict[str, EbpflabError] = {}
        threads, wait = ThreadPoolExecutor(max_workers=max(len(things), 1)), True
        try:
            # A copy of the context each: it tells a lab which notebook cell has made it.
            running = {
                host: threads.submit(contextvars.copy_context().run, function, thing)
                for host, thing in things.items()
            }
            for host, future in running.items():
                try:
                    answers[host] = future.result()
                except EbpflabError as error:
                    failed[host] = error
        except KeyboardInterrupt:
            wait = False
            raise
        finally:
            threads.shutdown(wait, cancel_futures=not wait)
        for host, why in failed.items():
            if answers or isinstance(why, TargetError):
                self._leave_out(host, why)
            else:
                raise why
        return answers

    def _leave_out(self, host: str, error: EbpflabError) -> None:
        self.failed[host] = error
        lab = self.labs.pop(host, None)
        if lab is not None:
            lab.close()
        notice(f"{host} is left out: {error}")

    def load(self, source: str | Path, **options: Any) -> FleetProgram:
        """Load a program on every machine at once: `Lab.load`, with its parameters.

        Returns a `FleetProgram`, without the machines that failed. Raises what `Lab.load` raises
        where that happens on every machine, as for C that does not compile.

        >>> list(fleet.load(source).programs)
        ['replay:web-1', 'replay:web-2']
        """
        return FleetProgram(self, self._ask(self.labs, lambda lab: lab.load(source, **options)))

    def run(self, argv: Sequence[str]) -> dict[str, Completed]:
        """Run a command on every machine at once, and return each `Completed` by host.

        ``argv`` is that of `Lab.run`. Interrupting the notebook kernel kills the commands. Raises
        WorkloadError where none of them can start.

        >>> done = fleet.run(["/bin/dd", "if=/dev/zero", "of=/dev/null", "bs=4093", "count=503"])
        >>> {host: each.returncode for host, each in done.items()}
        {'replay:web-1': 0, 'replay:web-2': 0}
        """
        started: list[Workload] = []
        interrupted = threading.Event()

        def run(lab: Lab) -> Completed:
            workload = lab.start(argv)
            started.append(workload)
            if interrupted.is_set():  # it came too late to be found below
                workload.kill()
            return workload.wait()

        try:
            return self._ask(self.labs, run)
        except KeyboardInterrupt:
            interrupted.set()
            for workload in started:
                workload.kill()
            raise

    def close(self) -> None:
        """Close every lab. May be called twice.

        >>> fleet.close()
        >>> [lab.closed for lab in fleet.labs.values()]
        [True, True]
        """
        for lab in self.labs.values():
            lab.close()

    def __repr__(self) -> str:
        failed = f"; failed: {', '.join(self.failed)}" if self.failed else ""
        return f"<Fleet {', '.join(self.labs) or 'of none'}{failed}>"


class FleetProgram:
    """One C program on every machine of a fleet, by host in ``programs``."""

    def __init__(self, fleet: Fleet, programs: dict[str, Program]) -> None:
        self.fleet = fleet
        self._programs = programs

    @property
    def programs(self) -> dict[str, Program]:
        """The programs of the machines that have not failed."""
        return {h: program for h, program in self._programs.items() if h in self.fleet.labs}

    def each(self, function: Callable[[Program], _T]) -> dict[str, _T]:
        """``function(program)`` on every machine at once, by host."""
        return self.fleet._ask(self.programs, function)

    def frame(self, name: str) -> pd.DataFrame:
        """The `frame` of the stream or table ``name`` of every machine, with a column ``host``."""
        return _together(self.each(lambda program: program[name].frame()))

    def collect(
        self, name: str, seconds: float | None = None, rows: int | None = None
    ) -> pd.DataFrame:
        """The rows of the stream ``name`` that no earlier ``collect`` has returned, of all hosts.

        Waits until ``seconds`` have passed or there are ``rows`` rows in all, like
        `Stream.collect`: of more than ``rows``, each host gives its share, and keeps the others
        for the next time. Ctrl-C ends the wait, and returns the rows so far, with
        ``attrs["interrupted"]`` set. A machine that is lost meanwhile gives the rows that it had
        sent; when all are, nothing is waited for.
        """
        seconds, rows = limits(seconds, rows)
        streams = {host: program[name] for host, program in self._programs.items()}
        began, interrupted = time.monotonic(), False
        try:
            self._wait(streams, seconds, rows)
            self.each(lambda program: program[name].collect(rows=0))  # what the kernels still hold
        except KeyboardInterrupt:
            interrupted = True
        found = _together(self._take(streams, rows))
        if interrupted or any(each.get("interrupted") for each in found.attrs["hosts"].values()):
            found.attrs["interrupted"] = True
            notice(f"Interrupted after {time.monotonic() - began:.1f} s: {len(found)} rows so far.")
        return found

    def _wait(
        self, streams: dict[str, EventSource], seconds: float | None, rows: int | None
    ) -> None:
        without_end = seconds is None and rows is not None
        deadline = time.monotonic() + (math.inf if without_end else seconds or 0)
        while True:
            for host, program in self.programs.items():
                if program.lab.lost is not None:
                    self.fleet._leave_out(host, program.lab.lost)
            enough = rows is not None and sum(each.waiting for each in streams.values()) >= rows
            left = deadline - time.monotonic()
            if enough or left <= 0 or not self.programs:
                return
            time.sleep(min(left, _WAIT_STEP_SECONDS))

    def _take(self, streams: dict[str, EventSource], rows: int | None) -> dict[str, pd.DataFrame]:
        """What has arrived: all, or ``rows`` in all, as evenly as hosts have them."""
        taken: dict[str, pd.DataFrame] = {}
        share = None
        for host in sorted(streams, key=lambda host: streams[host].waiting):
            if rows is not None:
                left = rows - sum(map(len, taken.values()))
                share = min(left // (len(streams) - len(taken)), streams[host].waiting)
            try:
                taken[host] = streams[host].collect(rows=share)
            except EbpflabError as error:  # it was lost at this moment; its rows are here
                self.fleet._leave_out(host, error)
                taken[host] = streams[host].collect(rows=share)
        return {host: taken[host] for host in streams}


def _together(frames: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """The frames one below the other; ``attrs`` has the sum of what was lost, and each's own."""
    attrs = {host: dict(frame.attrs) for host, frame in frames.items()}
    parts = []
    for host, frame in frames.items():
        frame.attrs = {}
        frame.insert(0, "host", host)
        parts.append(frame)
    found = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame({"host": []})
    found.attrs = {"lost": sum(each.get("lost", 0) for each in attrs.values()), "hosts": attrs}
    return found
