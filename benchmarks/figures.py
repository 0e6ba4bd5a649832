"""What was measured, and what it comes to: medians, ratios, and whether what is asked for holds."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from statistics import median
from typing import NamedTuple

from measure import Run, Scenario

OURS, RING, PERF, BPFTRACE = "ebpflab", "BCC, ring buffer", "BCC, perf buffer", "bpftrace, pandas"
ITEMS = "BCC, items()"
"""BCC's way to read a table."""
_COMPILE_SHARES = [
    ("native", "linux/sched.h", 0.45),
    ("guest", "linux/sched.h", 0.25),
    ("guest", "no include", 0.7),
]


class FirstRow(NamedTuple):
    """Seconds from C to the first row, in one process."""

    ours: float
    again: list[float]
    """The same cell, run again."""
    bcc: float
    bcc_compiled: float
    """Of these, what BCC took to compile."""


class Compilation(NamedTuple):
    """Seconds from the call until the program is compiled, and until its probe is attached."""

    program: str
    where: str
    """"native" or "guest"."""
    bcc_compiled: float
    bcc_attached: float
    compiled: float
    attached: float


@dataclass(frozen=True)
class Round:
    """Everybody once, one after the other."""

    alone_seconds: float
    load: float
    """The machine's load average (of a minute) afterwards."""
    runs: dict[str, Run]


@dataclass
class Results:
    """Everything that was measured."""

    scenarios: dict[str, Scenario] = field(default_factory=dict)
    rounds: dict[str, list[Round]] = field(default_factory=dict)
    first_rows: list[FirstRow] = field(default_factory=list)
    compilations: list[Compilation] = field(default_factory=list)
    vm_cold_seconds: list[float] = field(default_factory=list)
    vm_warm_seconds: list[float] = field(default_factory=list)
    began: datetime = field(default_factory=lambda: datetime.now(UTC))

    def add_round(self, scenario: Scenario, alone_seconds: float, runs: dict[str, Run]) -> None:
        self.scenarios[scenario.name] = scenario
        done = Round(alone_seconds, os.getloadavg()[0], runs)
        self.rounds.setdefault(scenario.name, []).append(done)


def rows_per_second(run: Run) -> float:
    """From letting the workload go to the finished DataFrame."""
    return (run.rows + run.dropped) / run.seconds


def lost_share(run: Run) -> float:
    """Of the events that happened, those that neither arrived nor were let go afterwards."""
    return 1 - (run.rows + run.dropped) / run.produced


def cpu_share(run: Run) -> float:
    """Processor seconds of the reader for each second until the DataFrame is finished."""
    return run.cpu_seconds / max(run.seconds, run.workload_seconds)


def middle(rounds: Iterable[Round], who: str, figure: Callable[[Run], float]) -> float:
    """The median of a figure over the rounds."""
    return median(figure(each.runs[who]) for each in rounds)


def times_faster(rounds: Iterable[Round], peer: str) -> float:
    """How many times the peer's rows a second are ours: the median of the rounds' ratios."""
    return median(
        rows_per_second(each.runs[OURS]) / rows_per_second(each.runs[peer]) for each in rounds
    )


def slowdown(rounds: Iterable[Round], who: str) -> float:
    """How many times as long the workload took as it took alone in the same round."""
    return median(each.runs[who].workload_seconds / each.alone_seconds for each in rounds)


def compile_ratio(results: Results, where: str, program: str) -> float:
    """Of BCC's time, natively to compile and in the guest to attach, the share that is ours."""
    return median(
        each.compiled / each.bcc_compiled
        if where == "native"
        else each.attached / each.bcc_attached
        for each in results.compilations
        if (each.where, each.program) == (where, program)
    )


class Asked(NamedTuple):
    """A figure that is asked for, and what it came to."""

    what: str
    target: str
    found: str
    reached: bool


def asked(results: Results) -> list[Asked]:
    """Each figure that is asked for and was measured."""
    found: list[Asked] = []
    dd = results.rounds.get("dd")
    if dd:
        missing = max(each.runs[OURS].produced - each.runs[OURS].rows for each in dd)
        found.append(
            Asked("dd: records missing from the DataFrame", "0", f"{missing:,}", not missing)
        )
        for peer, least in ((PERF, 8), (BPFTRACE, 5)):
            ratio = times_faster(dd, peer)
            what = f"dd: rows per second, ebpflab to {peer}"
            found.append(Asked(what, f"at least {least}", f"{ratio:.1f}", ratio >= least))
        slow = slowdown(dd, OURS)
        what = f"dd: times as slow as alone (BCC's perf buffer loop: {slowdown(dd, PERF):.1f})"
        found.append(Asked(what, "at most 2.5", f"{slow:.2f}", slow <= 2.5))
    flood = results.rounds.get("flood")
    if flood:
        worst = max(lost_share(each.runs[OURS]) for each in flood)
        found.append(Asked("Full speed: lost", "under 0.1 %", f"{worst:.3%}", worst < 0.001))
        uncounted = max(abs(uncounted_losses(each.runs[OURS])) for each in flood)
        what = "Full speed: losses that were not counted"
        found.append(Asked(what, "0", f"{uncounted:,}", not uncounted))
    if results.first_rows:
        extra = median(each.ours - each.bcc_compiled for each in results.first_rows)
        what = "C to the first row, beyond BCC's own compilation"
        found.append(Asked(what, "within 0.2 s", f"{extra:.2f} s", extra <= 0.2))
        again = median(seconds for each in results.first_rows for seconds in each.again)
        found.append(Asked("The same, run again", "under 0.15 s", f"{again:.3f} s", again < 0.15))
    for where, program, most in _COMPILE_SHARES:
        if any(each.where == where for each in results.compilations):
            ratio = compile_ratio(results, where, program)
            span = "to compile" if where == "native" else "to attach"
            what = f"{program}, {where}: time {span}, by BCC's"
            found.append(Asked(what, f"at most {most}", f"{ratio:.2f}", ratio <= most))
    rate = results.rounds.get("rate")
    if rate:
        share = middle(rate, OURS, cpu_share)
        what = "Processor at 100,000 events a second, agent and client, of one core"
        found.append(Asked(what, "under 10 %", f"{share:.1%}", share < 0.1))
    return found


def uncounted_losses(run: Run) -> int:
    """Events that neither arrived nor were counted as lost."""
    return run.produced - run.rows - run.dropped - (run.lost or 0)
