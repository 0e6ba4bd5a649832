"""Figures -> docs/benchmarks.md, docs/images/benchmarks.png, and build/bench/results.json."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
from bcc_here import __version__ as bcc_version
from figures import (
    BPFTRACE,
    ITEMS,
    OURS,
    PERF,
    RING,
    Results,
    Round,
    asked,
    cpu_share,
    lost_share,
    middle,
    rows_per_second,
    slowdown,
    times_faster,
)
from matplotlib.axes import Axes

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE, PICTURE = REPOSITORY / "docs/benchmarks.md", REPOSITORY / "docs/images/benchmarks.png"
RAW = REPOSITORY / "build/bench/results.json"
_COLOURS = {
    OURS: "#0072b2",
    RING: "#56b4e9",
    ITEMS: "#56b4e9",
    PERF: "#e69f00",
    BPFTRACE: "#cc79a7",
}

_HOW = """\
Written by `make bench` (`benchmarks/`), which is the only way that this page is
changed. Contenders take turns, and a figure is the median of its rounds; a ratio is the median of
the ratios within a round. What else the machine did meanwhile is told by its load average.

- **ebpflab** is `Lab("local")`, a ring buffer of 64 MiB, and `frame()`.
- **BCC, ring buffer** has the same program and ring, and **BCC, perf buffer** the same program but
  for `perf_submit`, with 64 pages for each CPU, as BCC's own tools ask for. Both read it in the way
  of BCC's reference guide: a callback, `event()`, a row of its fields; pandas at the end.
- **bpftrace, pandas** prints the same fields, separated by commas, to a file that pandas reads.

Each ends with the same DataFrame: 40 bytes a record, five columns, one of them a `char[16]`. The
clock runs from letting the traced program go until the DataFrame is finished, rows that a buffer
still held included. *Slow-down* is the time of the traced program by what it took alone.
*Processor* is that of the reader alone, agent and client together, in seconds for each second of
one core. *Memory* is the reader's anonymous memory at its peak, beyond what it had before.
"""


def write(results: Results, whole: bool) -> None:
    """The figures, on the terminal; and, if they are ``whole``, into the repository."""
    RAW.parent.mkdir(parents=True, exist_ok=True)
    RAW.write_text(json.dumps(asdict(results), default=str, indent=1) + "\n")
    page = _page(results)
    print(page)
    if whole:
        PAGE.write_text(page)
        _draw(results)
        print(f"Written: {PAGE.relative_to(REPOSITORY)}, {PICTURE.relative_to(REPOSITORY)}")


def _page(results: Results) -> str:
    parts = ["# Benchmarks\n", f"{_when(results)}\n"]
    parts.append("![Rows per second, slow-down and processor](images/benchmarks.png)\n")
    parts.append("## What is asked for\n")
    parts.append(
        _table(
            ["figure", "asked for", "measured", ""],
            [
                [*each[:3], "reached" if each.reached else "**not reached**"]
                for each in asked(results)
            ],
        )
    )
    parts += ["## How it is measured\n", _HOW]
    for name, scenario in results.scenarios.items():
        parts.append(f"## {scenario.title}\n")
        rounds = results.rounds[name]
        parts.append(_table_rows(rounds) if scenario.table else _events(rounds))
    parts += [_compilations(results), _starts(results)]
    parts += ["## The machine\n", _machine()]
    return "\n".join(parts)


def _when(results: Results) -> str:
    minutes = (datetime.now(UTC) - results.began).total_seconds() / 60
    loads = [each.load for rounds in results.rounds.values() for each in rounds]
    load = f", load average {min(loads):.1f} to {max(loads):.1f}" if loads else ""
    return f"Measured on {results.began:%Y-%m-%d}, in {minutes:.0f} minutes{load}."


def _events(rounds: list[Round]) -> str:
    rows = []
    for who in rounds[0].runs:
        ratio = "" if who == OURS else f"{times_faster(rounds, who):.1f}"
        rows.append(
            [
                who,
                f"{middle(rounds, who, rows_per_second):,.0f}",
                ratio,
                f"{middle(rounds, who, lost_share):.2%}",
                f"{slowdown(rounds, who):.2f}",
                f"{middle(rounds, who, cpu_share):.1%}",
                f"{middle(rounds, who, lambda run: run.memory_bytes) / 1e6:,.0f}",
            ]
        )
    heads = ["", "rows/s", "ebpflab's by these", "lost", "slow-down", "processor", "memory, MB"]
    alone = median(each.alone_seconds for each in rounds)
    loads = ", ".join(f"{each.load:.1f}" for each in rounds)
    below = f"Alone: {alone:.2f} s. Load average after each round: {loads}."
    if any(each.runs[OURS].dropped for each in rounds):
        below += " Rows that arrived count, though the stream keeps the newest 256 MiB alone."
    return f"{_table(heads, rows)}\n{below}\n"


def _table_rows(rounds: list[Round]) -> str:
    rows = [
        [
            who,
            f"{middle(rounds, who, lambda run: run.seconds):.3f}",
            f"{middle(rounds, who, lambda run: run.seconds / run.rows) * 1e6:.2f}",
            "" if who == OURS else f"{times_faster(rounds, who):.1f}",
        ]
        for who in rounds[0].runs
    ]
    return _table(["", "seconds to a DataFrame", "µs an entry", "times ebpflab's"], rows)


def _compilations(results: Results) -> str:
    found = results.compilations
    if not found:
        return ""
    heads = ["", "BCC: compiled", "attached", "ebpflab: compiled", "attached", "ebpflab's by BCC's"]
    rows = []
    for where, program in dict.fromkeys((each.where, each.program) for each in found):
        these = [each for each in found if (each.where, each.program) == (where, program)]
        spans = zip(*(each[2:] for each in these), strict=True)
        medians = [f"{median(seconds):.2f}" for seconds in spans]
        ratio = median(each.attached / each.bcc_attached for each in these)
        rows.append([f"{program}, {where}", *medians, f"{ratio:.2f}"])
    below = (
        "Seconds from the call, of a text that is new. The headers are precompiled: the guest's"
        " image brings them, and natively the agent makes them once, when it first meets them.\n"
    )
    return "## Compilation\n\n" + _table(heads, rows) + "\n" + below


def _starts(results: Results) -> str:
    rows: list[list[str]] = []
    first = results.first_rows
    if first:
        again = [seconds for each in first for seconds in each.again]
        rows += [
            ["BCC alone: compiled", _seconds([each.bcc_compiled for each in first])],
            ["BCC alone: first row", _seconds([each.bcc for each in first])],
            ["ebpflab: first row of a new program", _seconds([each.ours for each in first])],
            ["ebpflab: first row of a cell run again", _seconds(again)],
        ]
    if results.vm_warm_seconds:
        rows += [
            ['`Lab("vm")`: a saved guest resumes', _seconds(results.vm_warm_seconds)],
            [
                '`Lab("vm")`: the first after the build (KVM tried, booted, saved, resumed)',
                _seconds(results.vm_cold_seconds),
            ],
        ]
    if not rows:
        return ""
    return "## Until it begins\n\n" + _table(["", "seconds (median; all)"], rows)


def _seconds(found: list[float]) -> str:
    each = ", ".join(f"{seconds:.2f}" for seconds in sorted(found))
    return f"{median(found):.2f} ({each})"


def _table(heads: list[str], rows: list[list[str]]) -> str:
    align = ["---", *("---:" for _ in heads[1:])]
    return "".join(f"| {' | '.join(row)} |\n" for row in [heads, align, *rows])


def _machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    facts = [
        ["processor", f"{os.cpu_count()} cores, {found.group(1) if found else platform.machine()}"],
        ["memory", f"{memory:.0f} GiB"],
        ["kernel", f"Linux {platform.release().partition('-')[0]}, {platform.machine()}"],
        ["BCC", bcc_version],
        ["bpftrace", _version("bpftrace", "--version")],
        ["QEMU", _version(f"qemu-system-{platform.machine()}", "--version")],
        ["Python, pandas", f"{platform.python_version()}, {version('pandas')}"],
    ]
    return _table(["", ""], facts)


def _version(*command: str) -> str:
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"\d+\.\d+(\.\d+)?", said)
    return found.group() if found else said.strip()


# -- the picture -----------------------------------------------------------------------------------


def _draw(results: Results) -> None:
    figure, axes = plt.subplots(3, 2, figsize=(10, 8.4), layout="constrained", dpi=110)
    figure.suptitle("ebpflab beside BCC's documented loops and bpftrace", fontsize=14)
    panels: list[tuple[str, str, Callable[[list[Round], str], float], str]] = [
        ("dd", "rows per second, to a finished DataFrame", _rows, "{:,.0f}"),
        ("dd", "slow-down of dd (times as long as alone)", slowdown, "{:.1f}"),
        ("two", "rows per second, to a finished DataFrame", _rows, "{:,.0f}"),
        ("burst", "rows per second, to a finished DataFrame", _rows, "{:,.0f}"),
        ("rate", "processor of the reader, % of one core", _cpu_percent, "{:.1f}"),
        ("table", "milliseconds to a DataFrame", _milliseconds, "{:,.0f}"),
    ]
    for ax, (name, unit, of, form) in zip(axes.flat, panels, strict=True):
        rounds = results.rounds[name]
        _bars(ax, {who: of(rounds, who) for who in rounds[0].runs}, form)
        ax.set_title(results.scenarios[name].title, fontsize=11)
        ax.set_xlabel(unit)
    figure.text(0.01, -0.03, f"{_when(results)} Native, {os.cpu_count()} cores.", fontsize=9)
    figure.savefig(PICTURE, bbox_inches="tight", facecolor="white")


def _rows(rounds: list[Round], who: str) -> float:
    return middle(rounds, who, rows_per_second)


def _cpu_percent(rounds: list[Round], who: str) -> float:
    return 100 * middle(rounds, who, cpu_share)


def _milliseconds(rounds: list[Round], who: str) -> float:
    return 1000 * middle(rounds, who, lambda run: run.seconds)


def _bars(ax: Axes, values: dict[str, float], form: str) -> None:
    names = list(values)
    bars = ax.barh(names, list(values.values()), color=[_COLOURS[name] for name in names])
    ax.bar_label(bars, [form.format(value) for value in values.values()], padding=3)
    ax.invert_yaxis()
    ax.set_xlim(0, max(1e-9, *values.values()) * 1.25)
    ax.set_xticks([])  # each bar tells its number
    ax.spines[["top", "right", "bottom"]].set_visible(False)
