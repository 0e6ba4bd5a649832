"""How long from C to the first row: ``first_row.py ebpflab | bcc PROGRAM``.

Prints one JSON object of seconds. What is not timed: starting Python, importing bcc, and starting
the agent, which a notebook does once.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time

from programs import c_source

_AGAIN = 5


def main() -> None:
    contender, program = sys.argv[1:]
    # Every process may run into it, since none but ours runs this program.
    source = c_source("call", "ring", pids=[], pages=64, entries=0)
    measure = {"ebpflab": _ebpflab, "bcc": _bcc}[contender]
    print(json.dumps(measure(source, program)))


def _ebpflab(source: str, program: str) -> dict[str, object]:
    from ebpflab import Lab

    def once() -> float:
        began = time.monotonic()
        with lab.load(source) as prog:
            prog.attach_uprobe(name=program, sym="work", fn_name="on_work")
            subprocess.run([program, "calls", "1"], check=True)
            assert len(prog["events"].collect(rows=1)) == 1
            return time.monotonic() - began

    with Lab("local") as lab:
        return {"first": once(), "again": [once() for _ in range(_AGAIN)]}


def _bcc(source: str, program: str) -> dict[str, object]:
    from bcc_here import BPF

    began = time.monotonic()
    b = BPF(text=source)
    compiled = time.monotonic()
    b.attach_uprobe(name=program, sym="work", fn_name="on_work")
    rows: list[int] = []
    b["events"].open_ring_buffer(lambda cpu, data, size: rows.append(b["events"].event(data).n))
    subprocess.run([program, "calls", "1"], check=True)
    while not rows:
        b.ring_buffer_poll()
    return {"compiled": compiled - began, "first": time.monotonic() - began}


main()
