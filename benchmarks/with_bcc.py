"""Contender: BCC's own Python, in the way of its reference guide.

One callback for each record, which turns the bytes into a structure with ``event()``; a loop of
``perf_buffer_poll`` or ``ring_buffer_poll`` until Ctrl-C; a list of rows, and pandas at the end.
A table is read with ``items()``.
"""

from __future__ import annotations

import pandas as pd
from bcc_here import BPF
from contender import End, finish, task
from programs import COLUMNS, c_source

PERF_PAGES = 64
"""Of each CPU, as BCC's own tools ask for; its default is 8."""


def main() -> None:
    asked = task()
    end = End()
    b = BPF(text=c_source(asked.probe, asked.output, asked.pids, asked.pages, asked.entries))
    rows: list[tuple[object, ...]] = []
    lost = 0

    def on_event(cpu: int, data: int, size: int) -> None:
        event = b["events"].event(data)
        rows.append((event.at_ns, event.pid, event.tid, event.comm.decode(), event.n))

    def on_lost(count: int) -> None:
        nonlocal lost
        lost += count

    if asked.output == "perf":
        b["events"].open_perf_buffer(on_event, page_cnt=PERF_PAGES, lost_cb=on_lost)
        poll = b.perf_buffer_poll
    elif asked.output == "ring":
        b["events"].open_ring_buffer(on_event)
        poll = b.ring_buffer_poll
    if asked.probe == "call":
        b.attach_uprobe(name=asked.program, sym="work", fn_name="on_work")
    if asked.output == "table":
        end.wait()
        items = [(key.value, value.value) for key, value in b["counts"].items()]
        finish(pd.DataFrame(items, columns=["key", "value"]), end)
        return
    end.ready()
    while not end.asked_ns:
        poll(timeout=100)
    before = -1
    while len(rows) > before:  # what the buffers hold still
        before = len(rows)
        poll(timeout=0)
    frame = pd.DataFrame(rows, columns=COLUMNS)
    if asked.output == "perf":
        finish(frame, end, lost=lost)
    else:  # BCC does not count what did not fit into a ring buffer
        finish(frame, end)


main()
