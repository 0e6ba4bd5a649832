"""Contender: ebpflab, as a notebook uses it."""

from __future__ import annotations

from contender import End, finish, task
from programs import c_source

from ebpflab import Lab


def main() -> None:
    asked = task()
    end = End()
    with Lab("local") as lab:
        prog = lab.load(c_source(asked.probe, asked.output, asked.pids, asked.pages, asked.entries))
        if asked.probe == "call":
            prog.attach_uprobe(name=asked.program, sym="work", fn_name="on_work")
        end.wait()
        if asked.output == "table":
            finish(prog["counts"].frame(), end)
        elif asked.output == "flood":
            events = prog["events"]
            frame = events.frame()
            produced = int(prog["produced"].frame()["value"].sum())
            finish(frame, end, produced=produced, lost=events.lost, dropped=events.dropped)
        else:
            events = prog["events"]
            finish(events.frame(), end, lost=events.lost, dropped=events.dropped)


main()
