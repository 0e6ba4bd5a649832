"""Every chapter, again and again: does anything grow?

A notebook kernel runs the code cells of all chapters, in order, with one lab in a guest for all of
them; or with a lab for each that plays its recording, which takes seconds, so that there are many
rounds. After each chapter everything of it is closed, and what is left is counted, on both sides
of the wire: memory, open files and threads of the notebook and of the agent, and the BPF programs,
maps and links that the guest's kernel holds (BPF_PROG_GET_NEXT_ID and its kin, bpf(2)). A slope is
a straight line through the samples of the same chapters from the second round on: the first one
fills caches. A block is what Python's allocator has given out (`sys.getallocatedblocks`): where
their number stands still and memory grows, what grows is the room between them.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
import numpy as np
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import start_new_kernel

REPOSITORY = Path(__file__).parents[2]
_CELL_SECONDS = 600

ONE_LAB = r"""
import ebpflab

class OneLab(ebpflab.Lab):
    # What chapters take for a new lab each; closing it closes its programs.
    one = None
    def __new__(cls, *args):
        cls.one = cls.one or super().__new__(cls)
        return cls.one
    def __init__(self, *args):
        if not hasattr(self, "target"):
            super().__init__("vm")
    def close(self):
        for program in list(self._programs):
            program.close()
        for pid in self.run(["pgrep", "-P", str(self.agent_pid)]).stdout.split():
            self.run(["kill", pid])

ebpflab.Lab = OneLab
OneLab()
"""

COUNT = r"""
import ctypes, json, os, sys, time
number = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
libc = ctypes.CDLL(None)

def held(command):
    # Union of struct { u32 start_id, next_id, open_flags } of bpf(2).
    asked, many = (ctypes.c_uint32 * 3)(), 0
    while libc.syscall(number, command, asked, 12) == 0:
        asked[0], many = asked[1], many + 1
    return many

def settle(pid):
    # The threads of the command before this one may not have ended, nor those of this one begun.
    numbers = []
    while len(numbers) < 10 or len(set(numbers[-10:])) > 1:
        numbers.append(len(os.listdir(f"/proc/{pid}/task")))
        time.sleep(0.05)

def process(pid):
    status = dict(line.split(":", 1) for line in open(f"/proc/{pid}/status"))
    files = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            files.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
        except FileNotFoundError:
            pass
    kinds = {"programs": "bpf-prog", "maps": "bpf-map", "probes": "perf_event"}
    return {"memory_kib": int(status["VmRSS"].split()[0]), "threads": int(status["Threads"]),
            "files": len(files),
            **{name: sum(kind in file for file in files) for name, kind in kinds.items()}}

settle(sys.argv[1])
found = process(sys.argv[1])
found.update(kernel_programs=held(11), kernel_maps=held(12), kernel_links=held(31))
memory = dict(line.split(":") for line in open("/proc/meminfo"))
found["kernel_slab_kib"] = int(memory["SUnreclaim"].split()[0])
print(json.dumps(found))
"""

PLAY = """
import os
os.environ.update(EBPFLAB_TARGET="replay", JPY_SESSION_NAME={chapter!r})
"""

CLEAN = r"""
import matplotlib.pyplot
matplotlib.pyplot.close("all")
get_ipython().run_line_magic("reset", "-f in out")
get_ipython().run_line_magic("reset", "-f")
import gc
gc.collect()
"""

SAMPLE = """
import json, os, sys, ipywidgets
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
notebook = {"memory_kib": int(status["VmRSS"].split()[0]), "threads": int(status["Threads"]),
            "files": len(os.listdir("/proc/self/fd")), "python_blocks": sys.getallocatedblocks(),
            "widgets": len(ipywidgets.widgets.widget._instances)}
print(json.dumps({"notebook": notebook}))
"""
SAMPLE_BOTH = f"""
import json, ebpflab
lab = ebpflab.Lab()
lab.close()
count = {COUNT!r}
agent = json.loads(lab.run(["/usr/bin/python3", "-c", count, str(lab.agent_pid)]).stdout)
{SAMPLE}
print(json.dumps({{"notebook": notebook, "agent": agent}}))
"""


def soak(
    minutes: float, keep: Callable[[list[dict[str, Any]]], None], *, replay: bool = False
) -> None:
    """Rounds over all chapters for so long, at least two. ``keep`` gets all samples so far, after
    each chapter: a soak that is cut off has measured something, too."""
    manager, client = start_new_kernel(cwd=str(REPOSITORY / "notebooks"))
    samples: list[dict[str, Any]] = []
    began, number = time.monotonic(), 0
    chapters = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
    try:
        if not replay:
            _run(client, ONE_LAB)
        while number < 2 or time.monotonic() - began < 60 * minutes:
            number += 1
            for chapter in chapters:
                if replay:
                    _run(client, PLAY.format(chapter=f"notebooks/{chapter.name}"))
                for cell in nbformat.read(chapter, as_version=4).cells:
                    if cell.cell_type == "code":
                        _run(client, cell.source)
                _run(client, CLEAN)
                found = json.loads(_run(client, SAMPLE if replay else SAMPLE_BOTH).splitlines()[-1])
                found.update(round=number, chapter=chapter.stem, seconds=time.monotonic() - began)
                samples.append(found)
                keep(samples)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def _run(client: BlockingKernelClient, code: str) -> str:
    """What a cell prints. A cell that fails ends the soak."""
    printed: list[str] = []

    def output(message: dict[str, Any]) -> None:
        content = message["content"]
        if message["msg_type"] == "stream":
            printed.append(content["text"])
        assert message["msg_type"] != "error", "\n".join(content["traceback"])

    client.execute_interactive(code, timeout=_CELL_SECONDS, output_hook=output)
    return "".join(printed)


class Slope(NamedTuple):
    """How one measure went."""

    side: str
    measure: str
    after: dict[int, float]
    """Its value at the end of a round, of some rounds."""
    growth: float
    """Of a round: the median over chapters, as each chapter leaves other things behind."""


def slopes(samples: list[dict[str, Any]]) -> list[Slope]:
    """Each measure of each side, at the end of four of the rounds, and its growth."""
    last = samples[-1]["round"]
    rounds = sorted({1, min(2, last), (last + 1) // 2, last})
    found = []
    for side in (name for name in ("notebook", "agent") if name in samples[0]):
        for measure in samples[0][side]:
            values: dict[str, list[float]] = {}
            for sample in samples:
                if sample["round"] > 1:
                    values.setdefault(sample["chapter"], []).append(sample[side][measure])
            lines = [np.polyfit(range(len(v)), v, 1)[0] for v in values.values() if len(v) > 1]
            after = {sample["round"]: float(sample[side][measure]) for sample in samples}
            some = {number: after[number] for number in rounds}
            growth = float(np.median(lines)) if lines else math.nan  # of two, unknown
            found.append(Slope(side, measure, some, growth))
    return found
