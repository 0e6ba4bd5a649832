"""The examples in docstrings, run in every module of the package.

A lab in an example plays the recording of a chapter, so what an example shows is what a kernel
answered. `SCENES` lists what stands ready for which docstring; names that need no lab stand ready
in all of them. The agent's modules run once more as the agent does: in the system's python3, from
its zip; those that import bcc run there alone.

Examples marked ``+SKIP`` need a kernel: they write into maps, take values out of a queue, or attach
to a raw tracepoint by a call, which no chapter does.
"""

from __future__ import annotations

import ast
import doctest
import importlib
import io
import json
import pkgutil
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

import ebpflab
from ebpflab import check, plots
from ebpflab.fleet import Fleet
from ebpflab.lab import Lab
from ebpflab.replay import tape
from ebpflab.transport import archive

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
Globals = dict[str, Any]

RUN_BY_SYSTEM_PYTHON = """
import doctest, importlib, sys
sys.path.insert(0, sys.argv[1])
results = [doctest.testmod(importlib.import_module(name)) for name in sys.argv[2:]]
print(sum(result.attempted for result in results))
sys.exit(any(result.failed for result in results))
"""
AGENT = ("ebpflab.agent.", "ebpflab.protocol.")

# -- the modules -----------------------------------------------------------------------------


@cache
def modules() -> list[Any]:
    """The modules of the package, but for those that need bcc, which is not to be had here."""
    found: list[Any] = [ebpflab]
    for name in module_names():
        try:
            found.append(importlib.import_module(name))
        except ImportError as error:
            if not name.startswith("ebpflab.agent.") or error.name not in ("bcc", "bcc.libbcc"):
                raise
    return found


def module_names() -> list[str]:
    """The names of the package's modules, but for those that run when they are imported."""
    every = pkgutil.walk_packages(ebpflab.__path__, "ebpflab.")
    return [each.name for each in every if not each.name.endswith(".__main__")]


def examples() -> list[doctest.DocTest]:
    """Every docstring with examples."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    return [each for module in modules() for each in finder.find(module) if each.examples]


# -- what stands ready -----------------------------------------------------------------------


@cache
def texts(chapter: str) -> dict[str, str]:
    """The texts that a chapter gives a name: its C programs, above all."""
    [path] = NOTEBOOKS.glob(f"{chapter}-*.ipynb")
    found: dict[str, str] = {}
    for cell in json.loads(path.read_text())["cells"]:
        if cell["cell_type"] != "code":
            continue
        for line in ast.parse("".join(cell["source"])).body:
            match line:
                case ast.Assign(targets=[ast.Name(name)], value=ast.Constant(str(text))):
                    found.setdefault(name, text)
    return found


def play(chapter: str) -> Lab:
    [path] = tape.CHAPTERS.glob(f"{chapter}-*{tape.SUFFIX}")
    return Lab(f"replay:{path}")


def kprobes(tmp_path: Path) -> Globals:
    """01: a program that reports each execve, attached."""
    ready = unattached(tmp_path)
    event = ready["lab"].syscall_name("execve")
    ready["prog"].attach_kprobe(event=event, fn_name="syscall__execve")
    return {**ready, "script": texts("01")["script"]}


def unattached(tmp_path: Path) -> Globals:
    """01: the same program, before it is attached."""
    lab, source = play("01"), texts("01")["typed"]
    return {"lab": lab, "source": source, "prog": lab.load(source)}


def printing(tmp_path: Path) -> Globals:
    """01: a program that calls bpf_trace_printk, attached."""
    lab = play("01")
    prog = lab.load(texts("01")["book"])
    prog.attach_kprobe(event=lab.syscall_name("execve"), fn_name="do_sys_execve")
    return {"lab": lab, "prog": prog}


def on_exec(tmp_path: Path) -> Globals:
    """01: a program for a tracepoint, not attached."""
    lab = play("01")
    return {"lab": lab, "prog": lab.load(texts("01")["succeeded"])}


def recorded(tmp_path: Path) -> Globals:
    """01: starts.arrows, a recording of 18 rows."""
    ready = kprobes(tmp_path)
    with ready["prog"]["starts"].record("starts.arrows"):
        ready["lab"].run(["/bin/sh", "-c", ready["script"]])
    return ready


def latency(tmp_path: Path) -> Globals:
    """02: a histogram of vfs_read, after two runs of dd."""
    lab = play("02")
    prog = lab.load(texts("02")["latency"])
    prog.attach_kretprobe(event="vfs_read", fn_name="read_ends")
    prog.attach_kprobe(event="vfs_read", fn_name="read_begins")
    for file, count in (("zero", 503), ("urandom", 307)):
        lab.run(["/bin/dd", f"if=/dev/{file}", "of=/dev/null", "bs=4093", f"count={count}"])
    return {"lab": lab, "prog": prog, "by_call": by_call(tmp_path)["prog"]}


def returns(tmp_path: Path) -> Globals:
    """02: a program for a kretprobe, not attached."""
    lab = play("02")
    return {"lab": lab, "prog": lab.load(texts("02")["latency"])}


def names(tmp_path: Path) -> Globals:
    """03: the names of this kernel."""
    return {"lab": play("03")}


def life(tmp_path: Path) -> Globals:
    """03: the exercise on the life of processes, as the chapter's cell has it."""
    lab = play("03")
    [path] = tape.CHAPTERS.glob(f"03-*{tape.SUFFIX}")
    random.seed(tape.load(path).header["seed"])
    return {"lab": lab, "prog": lab.load(texts("03")["life"])}


def go(tmp_path: Path) -> Globals:
    """04: a Go program, and C that counts calls, not attached."""
    lab = play("04")
    path = "/opt/ebpflab/labs/go-hello/work"
    return {"lab": lab, "path": path, "prog": lab.load(texts("04")["who"])}


def goroutines(tmp_path: Path) -> Globals:
    """05: a Go program, and C that pairs calls by goroutine, not attached."""
    lab, source = play("05"), texts("05")["pairs"]
    path = "/opt/ebpflab/labs/go-hello/work"
    prog = lab.load(source, cflags=lab.go_runtime(path).cflags)
    return {"lab": lab, "path": path, "source": source, "prog": prog}


def naps(tmp_path: Path) -> Globals:
    """05: a C program, and C that measures its calls, not attached."""
    lab = play("05")
    path = lab.run(["mktemp", "-d"]).stdout.strip() + "/naps"
    return {"lab": lab, "path": path, "prog": lab.load(texts("05")["durations"])}


def usdt(tmp_path: Path) -> Globals:
    """06: a program with USDT probes."""
    path = "/opt/ebpflab/labs/usdt-c/usdt_loop"
    lab, source = play("06"), texts("06")["steps_source"]
    return {"lab": lab, "path": path, "source": source, "usdt": lab.usdt(path)}


def fentry(tmp_path: Path) -> Globals:
    """07: vfs_read seen by two kinds of probes, while dd read."""
    lab = play("07")
    prog = lab.load(texts("07")["ends_source"])
    prog.attach_kretprobe(event="vfs_read", fn_name="read_ends")
    lab.run(["/bin/dd", "if=/dev/zero", "of=/dev/null", "bs=4096", "count=3"])
    return {"lab": lab, "prog": prog, "guard": texts("07")["guard_source"]}


def by_call(tmp_path: Path) -> Globals:
    """09: a histogram for each system call of dd."""
    lab = play("09")
    prog = lab.load(texts("09")["calls"])
    copy = "dd if=/dev/urandom of=/var/histograms bs=4k count=307 conv=fsync status=none"
    lab.run(["/bin/sh", "-c", f"{copy}; rm /var/histograms"])
    return {"lab": lab, "prog": prog}


def sampling(tmp_path: Path) -> Globals:
    """10: a program for a clock, not attached."""
    lab = play("10")
    return {"lab": lab, "prog": lab.load(texts("10")["on_cpu_source"])}


def sampled(tmp_path: Path) -> Globals:
    """10: stacks, sampled while a program ran."""
    ready = sampling(tmp_path)
    clock = {"ev_type": ebpflab.PerfType.SOFTWARE, "ev_config": ebpflab.PerfSWConfig.CPU_CLOCK}
    ready["prog"].attach_perf_event(**clock, fn_name="on_sample", sample_freq=99)
    hot = ready["lab"].run(["/opt/ebpflab/labs/hot/hot", "5"])
    ready["prog"]["counts"].frame()
    return {**ready, "hot": hot}


def writing(tmp_path: Path) -> Globals:
    """11: a program that writes without end."""
    return {"lab": play("11"), "writer": texts("11")["writer"]}


def writes(tmp_path: Path) -> Globals:
    """11: its writes, counted."""
    ready = writing(tmp_path)
    workload = ready["lab"].start(["/usr/bin/python3", "-c", ready["writer"]])
    prog = ready["lab"].load(texts("11")["writes"], cflags=[f"-DPID={workload.pid}"])
    return {**ready, "workload": workload, "prog": prog}


def hosts(tmp_path: Path) -> Globals:
    """02, on two machines."""
    [path] = tape.CHAPTERS.glob(f"02-*{tape.SUFFIX}")
    for name in ("web-1", "web-2"):
        shutil.copy(path, tmp_path / name)
    fleet = Fleet(["replay:web-1", "replay:web-2"])
    return {"fleet": fleet, "source": texts("02")["latency"]}


SCENES: dict[Callable[[Path], Globals], str] = {
    unattached: """
        ebpflab ebpflab.lab.Lab.load ebpflab.program.Program ebpflab.program.Program.attach_kprobe
    """,
    kprobes: """
        ebpflab.arrivals.EventSource.arrived ebpflab.arrivals.EventSource.close
        ebpflab.arrivals.EventSource.collect ebpflab.arrivals.EventSource.frame
        ebpflab.arrivals.EventSource.keep ebpflab.arrivals.EventSource.record
        ebpflab.arrivals.EventSource.waiting ebpflab.lab.Completed ebpflab.lab.Lab.attrs
        ebpflab.lab.Lab.close ebpflab.lab.Lab.closed ebpflab.lab.Lab.kernel_functions
        ebpflab.lab.Lab.lost ebpflab.lab.Lab.run ebpflab.lab.Lab.syscall_name
        ebpflab.lab.Workload.wait ebpflab.program.Program.attached ebpflab.program.Program.close
        ebpflab.program.Program.closed ebpflab.streams.Stream ebpflab.streams.Stream.typed
    """,
    recorded: """
        ebpflab.open_recording ebpflab.recordings.Recording ebpflab.recordings.Recording.batches
        ebpflab.recordings.Recording.frame ebpflab.recordings.Recording.reader
        ebpflab.recordings.Recording.to_parquet
    """,
    printing: "ebpflab.program.Program.messages ebpflab.streams.Messages",
    on_exec: "ebpflab.program.Program.attach_tracepoint",
    returns: "ebpflab.program.Program.attach_kretprobe",
    latency: "ebpflab.tables.Table.histogram",
    names: "ebpflab.lab.Lab.tracepoint_format ebpflab.lab.Lab.tracepoints",
    go: "ebpflab.lab.Lab.symbols ebpflab.program.Program.attach_uprobe",
    goroutines: """
        ebpflab.lab.Lab.go_functions ebpflab.lab.Lab.go_runtime
        ebpflab.program.Program.attach_go_return
    """,
    naps: "ebpflab.program.Program.attach_uretprobe",
    usdt: """
        ebpflab.lab.Lab.usdt ebpflab.lab.Lab.usdt_probes ebpflab.usdt.USDT
        ebpflab.usdt.USDT.enable_probe ebpflab.usdt.USDT.enabled ebpflab.usdt.USDT.probes
    """,
    fentry: """
        ebpflab.lab.Lab.features ebpflab.program.Program.attach_kfunc
        ebpflab.program.Program.attach_kretfunc ebpflab.program.Program.attach_lsm
        ebpflab.program.Program.stats
    """,
    sampling: "ebpflab.program.Program.attach_perf_event",
    sampled: """
        ebpflab.program.Program.stacks ebpflab.stacks.Frame ebpflab.stacks.StackTable
        ebpflab.stacks.StackTable.frame ebpflab.tables.Table.clear
    """,
    writing: "ebpflab.lab.Lab.start ebpflab.lab.Workload",
    life: "ebpflab.check ebpflab.check.run",
    hosts: """
        ebpflab.fleet.Fleet ebpflab.fleet.Fleet.close ebpflab.fleet.Fleet.load
        ebpflab.fleet.Fleet.run
    """,
    writes: """
        ebpflab.lab.Workload.kill ebpflab.lab.Workload.stop ebpflab.live
        ebpflab.program.Program.attach_again ebpflab.program.Program.detach
        ebpflab.streams.Stream.live ebpflab.tables.Table.frame ebpflab.tables.Table.live
    """,
}
"""What stands ready for the examples of which docstrings."""

READY: Globals = {
    "ebpflab": ebpflab,
    "Lab": Lab,
    "PerfSWConfig": ebpflab.PerfSWConfig,
    "PerfType": ebpflab.PerfType,
    "check": check,
    "np": np,
    "open_recording": ebpflab.open_recording,
    "pd": pd,
    "plots": plots,
    "comms": pd.DataFrame({"comm": ["sh", "find", "sh"]}),
    "reads": pd.DataFrame(
        {"time_ns": [0, 1_000_000, 2_000_000, 9_000_000], "latency_ns": [300, 700, 800, 40_000]}
    ),
    "cells": pd.DataFrame({"when": [0, 0, 3], "slot": [9, 10, 16], "value": [100, 50, 2]}),
    "starts": pd.DataFrame(
        {
            "time_ns": [0, 2_000_000, 3_000_000],
            "pid": [500, 501, 502],
            "ppid": [300, 500, 501],
            "filename": ["/bin/sh", "/usr/bin/find", "/usr/bin/wc"],
        }
    ),
    "runs": pd.DataFrame(
        {
            "cpu": [0, 1, 0],
            "comm": ["sh", "find", "sh"],
            "start_ns": [0, 500, 2000],
            "duration_ns": [1000, 3000, 500],
        }
    ),
    "stacks": pd.DataFrame(
        {"comm": "hot", "value": [90, 9], "stack": [("main", "checksum"), ("main", "parse")]}
    ),
}


@pytest.fixture
def ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Globals]]:
    """Prepares what a docstring's examples find; afterwards labs are closed."""
    monkeypatch.chdir(tmp_path)
    # pandas asks whether it is interactive; without this, that runs a __main__.py of another test.
    monkeypatch.setitem(sys.modules, "__main__", ModuleType("__main__"))
    state, labs = random.getstate(), ExitStack()

    def prepare(name: str) -> Globals:
        made = {**READY}
        for scene, names in SCENES.items():
            if name in names.split():
                made |= scene(tmp_path)
        for thing in (made.get("lab"), made.get("fleet")):
            if thing is not None:
                labs.callback(thing.close)
        return made

    with labs, pd.option_context("display.width", 100, "display.max_columns", 20):
        yield prepare
    plt.close("all")
    random.setstate(state)


# -- the tests -------------------------------------------------------------------------------


@pytest.mark.parametrize("example", examples(), ids=lambda example: example.name)
def test_docstring_shows_what_its_example_prints(
    example: doctest.DocTest, ready: Callable[[str], Globals]
) -> None:
    example.globs.update(ready(example.name))
    report = io.StringIO()
    failed = doctest.DocTestRunner(optionflags=FLAGS).run(example, out=report.write).failed
    assert not failed, report.getvalue()


def test_scenes_are_those_of_docstrings_with_examples() -> None:
    named = [name for names in SCENES.values() for name in names.split()]
    assert set(named) <= {example.name for example in examples()}
    assert len(named) == len(set(named)), "a docstring has one scene"


def test_agents_docstrings_show_what_their_examples_print(tmp_path: Path) -> None:
    zipped = tmp_path / "agent.zip"
    zipped.write_bytes(archive.agent())
    python = ["/usr/bin/python3", "-I", "-B", "-c"]
    names = [name for name in module_names() if name.startswith(AGENT)]
    command = [*python, RUN_BY_SYSTEM_PYTHON, str(zipped), *names]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert int(run.stdout) > 0
