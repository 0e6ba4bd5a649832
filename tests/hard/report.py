"""docs/hard-life.md, from the figures that the long runs have left."""

from __future__ import annotations

import json
import math
import os
import platform
import re
from pathlib import Path
from typing import Any

import fuzz
import soak

PAGE = fuzz.REPOSITORY / "docs" / "hard-life.md"
HEAD = """# A hard life

What happens to a lab when the agent, the guest, the disk, the wire or the notebook fails, and what
is left of it then. Written by `make hard`; the tests are in `tests/hard/`, and run
in a shorter form with every `make test`. Who could do harm on purpose is in
[security.md](security.md).
"""
ABOUT = {
    "soak": """Every chapter, again and again, in one guest, with one lab, whose programs are closed
after each chapter. What is *kernel* is the guest's. Growth is a straight line from the second
round on, the median over chapters. A thread of the agent stays, with some 45 MB, for each program
that LLVM gives up on, once ([architecture.md](architecture.md), "Compilation"), and some
1.6 KB with each other program: BCC keeps them, with or without the agent (480 different programs
natively, from the thirtieth on: 1.6 KB each in both). Widgets are boxes of chapter 11's own, see
below.

""",
    "replay": """The same of the notebook's half alone: each chapter plays its recording, with a lab
of its own. A block is what Python's allocator has given out: as memory grows by more than they do,
the rest is room between them. Widgets are boxes of chapter 11's own, which ipywidgets keeps, with
what is in them, until somebody closes them; nine tenths of the blocks come with them.

""",
}
_ELSEWHERE = {
    "the agent is killed; the notebook is killed; a lab is closed": "contract/test_endings.py",
    "a running cell is interrupted; a cell is run again": "contract/test_notebook_kernel.py",
    "the guest panics; its keeper is killed; its image is removed": "vm/test_vm_guest.py",
    "the disk is full under a recording; it is cut anywhere": "contract/test_recordings.py",
    "an image is built on a disk that fills up, by two at once": "unit/test_vm_cache.py",
    "an agent sends garbage, or another version of the wire": "unit/test_connection.py",
    "records are lost because the reader is slow: counted": "contract/test_never_lost.py",
}


def write(figures: Path) -> None:
    """Write the page. A part without figures keeps what the page says of it."""
    said = dict(re.findall(r"^## (.+)\n\n((?:(?!## ).*\n?)*)", PAGE.read_text(), re.MULTILINE))
    text = HEAD
    for part, title, describe in (
        ("faults", "Faults", _faults),
        ("fuzz", "Fuzzing", _fuzz),
        ("soak", "Soak", _soak),
        ("replay", "Recordings, again and again", _soak),
    ):
        file = figures / f"{part}.json"
        if file.exists():
            made = json.loads(file.read_text())
            section = f"{made['date']}, {_machine()}.\n\n{describe(made['figures'])}"
            section = ABOUT.get(part, "") + section + (_elsewhere() if part == "faults" else "")
        else:
            section = said.get(title, f"Not run yet: `.venv/bin/python tests/hard {part}`.")
        text += f"\n## {title}\n\n{section.rstrip()}\n"
    PAGE.write_text(text)


def _elsewhere() -> str:
    rows = [[what, f"`tests/{where}`"] for what, where in _ELSEWHERE.items()]
    return "\nTested elsewhere, with every `make test`:\n\n" + _table(["what", "where"], rows)


def _machine() -> str:
    return f"kernel {platform.release().split('-')[0]}, {os.cpu_count()} processors"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _faults(cases: list[dict[str, Any]]) -> str:
    rows = []
    for case in cases:
        name, _, param = case["name"].removeprefix("test_").partition("[")
        told = "; ".join(f"{key.replace('_', ' ')} {v}" for key, v in case["figures"].items())
        where = f" ({param[:-1]})" if param else ""
        rows.append([name.replace("_", " ") + where, case["ended"], told])
    passed = sum(case["ended"] == "passed" for case in cases)
    return f"{passed} of {len(cases)} held.\n\n" + _table(["what must hold", "", "figures"], rows)


def _fuzz(found: list[dict[str, Any]]) -> str:
    rows = [
        [
            f"`{each['target']}`",
            (fuzz.TARGETS[each["target"]].__doc__ or "").split("\n")[0],
            f"{each['runs']:,}",
            f"{each['seconds']}",
            f"{each['peak_mib']}",
            "nothing" if each["status"] == 0 else f"status {each['status']}",
        ]
        for each in found
    ]
    head = ["target", "what it reads", "inputs", "seconds", "peak MiB", "found"]
    limits = f"An input may take {fuzz.INPUT_SECONDS} s, and a process {fuzz.MEMORY_MIB} MiB."
    return f"atheris, guided by coverage. {limits}\n\n" + _table(head, rows)


def _soak(samples: list[dict[str, Any]]) -> str:
    slopes = soak.slopes(samples)
    rows = [
        [
            each.side,
            each.measure.replace("_", " "),
            *(f"{value:,.0f}" for value in each.after.values()),
            "not known" if math.isnan(each.growth) else f"{each.growth:+,.1f}",
        ]
        for each in slopes
    ]
    chapters, last = len({each["chapter"] for each in samples}), samples[-1]
    said = (
        f"{len(samples)} runs of {chapters} chapters in {last['seconds'] / 60:.0f} minutes, up to"
        f" {last['chapter']} of round {last['round']}.\n\n"
    )
    rounds = [*(f"after round {number}" for number in [*slopes[0].after][:-1]), "at the end"]
    return said + _table(["side", "measure", *rounds, "growth a round"], rows)
