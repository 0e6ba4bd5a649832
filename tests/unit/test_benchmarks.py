"""What `make bench` makes of its runs, on runs that are made up. Nothing is timed here.

The benchmarks are a folder that Python runs, so its modules import one another by bare names.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    names = {path.stem for path in BENCHMARKS.glob("*.py")}
    monkeypatch.syspath_prepend(BENCHMARKS)
    yield importlib.import_module
    for name in names:
        sys.modules.pop(name, None)


@pytest.fixture
def figures(load: Any) -> ModuleType:
    return load("figures")


def run(figures: ModuleType, seconds: float) -> Any:
    return figures.Run(
        rows=1000,
        produced=1000,
        lost=0,
        dropped=0,
        seconds=seconds,
        workload_seconds=seconds,
        cpu_seconds=seconds / 20,
        memory_bytes=0,
    )


def rounds(figures: ModuleType, *seconds: tuple[float, float, float]) -> list[Any]:
    """Of (alone, ebpflab, BCC's perf buffer loop and bpftrace alike)."""
    return [
        figures.Round(
            alone,
            load=0.0,
            runs={
                figures.OURS: run(figures, ours),
                figures.PERF: run(figures, peer),
                figures.BPFTRACE: run(figures, peer),
            },
        )
        for alone, ours, peer in seconds
    ]


def test_a_ratio_compares_runs_of_one_round(figures: ModuleType) -> None:
    # The machine became ten times slower after the first round; the ratios did not.
    made = rounds(figures, (1, 2, 18), (10, 20, 180), (10, 21, 210))
    assert figures.times_faster(made, figures.PERF) == 9
    assert figures.slowdown(made, figures.OURS) == 2
    assert figures.middle(made, figures.OURS, figures.rows_per_second) == 50


def test_shares(figures: ModuleType) -> None:
    lossy = replace(run(figures, 2.0), rows=600, lost=300, dropped=50, cpu_seconds=0.5)
    assert figures.lost_share(lossy) == pytest.approx(0.35)
    assert figures.uncounted_losses(lossy) == 50
    assert figures.cpu_share(lossy) == 0.25
    assert figures.rows_per_second(lossy) == 325


def test_what_is_asked_for_is_judged(figures: ModuleType) -> None:
    results = figures.Results()
    results.rounds["dd"] = rounds(figures, (1, 2, 16))
    results.rounds["rate"] = rounds(figures, (5, 5, 5))
    results.first_rows.append(figures.FirstRow(1.0, [0.2, 0.1, 0.2], 0.9, 0.8))
    judged = {each.what.partition(",")[0]: each.reached for each in figures.asked(results)}
    assert judged == {
        "dd: records missing from the DataFrame": True,
        "dd: rows per second": True,  # 8 times the perf buffer loop, and more than 5 times bpftrace
        "dd: times as slow as alone (BCC's perf buffer loop: 16.0)": True,
        "C to the first row": True,
        "The same": False,
        "Processor at 100": True,
    }


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"rows": 999}, "dd: records missing from the DataFrame"),
        ({"workload_seconds": 2.51}, "dd: times as slow as alone"),
        ({"seconds": 2.01}, "dd: rows per second, ebpflab to BCC"),
    ],
)
def test_what_is_not_reached_is_told(
    figures: ModuleType, changed: dict[str, float], what: str
) -> None:
    results = figures.Results()
    (one,) = rounds(figures, (1, 2, 16.02))
    one.runs[figures.OURS] = replace(one.runs[figures.OURS], **changed)
    results.rounds["dd"] = [one]
    (found,) = [each.what for each in figures.asked(results) if not each.reached]
    assert found.startswith(what)


def test_both_contenders_of_bcc_are_given_the_same_program(load: Any) -> None:
    programs = load("programs")
    ring = programs.c_source("read", "ring", [7, 8], pages=64, entries=0)
    perf = programs.c_source("read", "perf", [7, 8], pages=64, entries=0)
    differing = set(ring.splitlines()) ^ set(perf.splitlines())
    assert {line.strip() for line in differing} == {
        "BPF_RINGBUF_OUTPUT(events, 64);",
        "BPF_PERF_OUTPUT(events);",
        "events.ringbuf_output(&event, sizeof(event), 0);",
        "events.perf_submit(args, &event, sizeof(event));",
    }
    assert "if ((id >> 32) != 7 && (id >> 32) != 8 || n != 1) return 0;" in ring
