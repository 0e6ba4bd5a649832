"""``make bench``: ebpflab beside BCC's own Python loops and bpftrace, in one run.

    __main__.py      the scenarios, and the order of the runs
    measure.py       one contender against one workload, measured from outside
    workload.c       the traced program (with dd)
    programs.py      what is traced: the same C for ebpflab and BCC, and bpftrace's
    with_*.py        a contender each: a program that ends with a DataFrame
    first_row.py, compile_time.py, vm_start.py    how long until it begins
    figures.py       runs -> medians and ratios
    report.py        those -> docs/benchmarks.md and its picture

Contenders take turns (A B C, A B C), so that what else the machine does hits all of them, and a
ratio compares runs of one round. It needs root, and mounts tracefs for itself alone where it is
not mounted.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import compile_time
import report
import vm_start
from figures import BPFTRACE, ITEMS, OURS, PERF, RING, FirstRow, Results
from measure import HERE, Scenario, alone, measure

from ebpflab import Lab

ROUNDS = 3
TRACEFS = Path("/sys/kernel/tracing")
_MOUNTED = 'mount -t tracefs tracefs /sys/kernel/tracing && exec "$@"'

CONTENDERS = {
    OURS: ("ebpflab", "ring"),
    RING: ("bcc", "ring"),
    PERF: ("bcc", "perf"),
    BPFTRACE: ("bpftrace", "text"),
}


def scenarios(program: str) -> list[Scenario]:
    def dd(reads: int) -> tuple[str, ...]:
        return ("dd", "if=/dev/zero", "of=/dev/null", "bs=1", f"count={reads}")

    def own(*words: str) -> tuple[tuple[str, ...], ...]:
        return ((program, *words),)

    return [
        Scenario("dd", "dd, 2,000,000 reads of one byte", (dd(2_000_000),), 2_000_000),
        Scenario("uprobe", "A C loop, 200,000 calls", own("calls", "200000"), 200_000, "call"),
        Scenario("burst", "5 bursts of 100,000 reads", own("bursts", "100000", "5"), 500_000),
        Scenario("two", "Two dd, 500,000 reads each", (dd(500_000),) * 2, 1_000_000),
        Scenario("rate", "100,000 reads a second, 5 s", own("rate", "100000", "5"), 500_000),
        Scenario(
            "table",
            "A hash of 100,000 entries",
            own("calls", "100000"),
            100_000,
            "call",
            table=True,
        ),
    ]


def main() -> None:
    if os.geteuid() != 0:
        raise SystemExit("make bench traces this machine's own kernel, which takes root: sudo -E")
    if not (TRACEFS / "events").is_dir():
        again = [sys.executable, *sys.orig_argv[1:]]
        os.execvp("unshare", ["unshare", "--mount", "/bin/sh", "-c", _MOUNTED, "bench", *again])
    wanted = sys.argv[1:]
    results = Results()
    with tempfile.TemporaryDirectory() as folder:
        program = str(Path(folder) / "workload")
        subprocess.run(["gcc", "-O2", "-o", program, HERE / "workload.c"], check=True)
        for scenario in scenarios(program):
            if not wanted or scenario.name in wanted:
                _compare(scenario, program, results)
        if not wanted or "flood" in wanted:
            _flood(program, results)
        if not wanted or "first" in wanted:
            _first_rows(program, results)
    if not wanted or "compile" in wanted:
        _compilations(results)
    if not wanted or "vm" in wanted:
        _vm_starts(results)
    report.write(results, whole=not wanted)


def _compare(scenario: Scenario, program: str, results: Results) -> None:
    print(f"{scenario.title}:", flush=True)
    for number in range(ROUNDS):
        with _timed(f"  alone, round {number + 1} of {ROUNDS}"):
            base = alone(scenario)
        runs = {}
        for name, (contender, output) in CONTENDERS.items():
            if scenario.table and name == PERF:
                continue
            shown = ITEMS if scenario.table and name == RING else name
            with _timed(f"  {shown}"):
                runs[shown] = measure(contender, output, scenario, program)
        results.add_round(scenario, base, runs)


def _flood(program: str, results: Results) -> None:
    print("A producer at the ring's full speed, 10 s:", flush=True)
    scenario = Scenario("flood", "The ring's full speed, 10 s", ((program, "flood", "10"),), 0)
    for _ in range(ROUNDS):
        with _timed("  ebpflab"):
            run = measure("ebpflab", "flood", scenario, program)
        results.add_round(scenario, 10.0, {OURS: run})


def _first_rows(program: str, results: Results) -> None:
    print("From C to the first row:", flush=True)
    for _ in range(ROUNDS):
        told = {}
        for contender in ("ebpflab", "bcc"):
            with _timed(f"  {contender}"):
                command = [sys.executable, str(HERE / "first_row.py"), contender, program]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            told[contender] = json.loads(done.stdout.splitlines()[-1])
        ours, bcc = told["ebpflab"], told["bcc"]
        row = FirstRow(ours["first"], ours["again"], bcc["first"], bcc["compiled"])
        results.first_rows.append(row)


def _compilations(results: Results) -> None:
    print("From C to an attached probe:", flush=True)
    for target in ("local", "vm"):
        with _timed(f"  {target}"), Lab(target) as lab:
            results.compilations += compile_time.measure(lab, target == "local", ROUNDS)


def _vm_starts(results: Results) -> None:
    print("A guest:", flush=True)
    with _timed("  cold"):
        results.vm_cold_seconds.append(vm_start.cold_seconds())
    for _ in range(ROUNDS):
        with _timed("  warm"):
            results.vm_warm_seconds.append(vm_start.warm_seconds())


class _timed:
    """Say what is being done, and how long it took."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        self._began = time.monotonic()

    def __exit__(self, *_: object) -> None:
        print(f"{self._what}: {time.monotonic() - self._began:.1f} s", flush=True)


main()
