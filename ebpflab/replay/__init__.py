"""Recordings of a lab's wire, and playing them back.

    kernel -> agent -> TapingTransport -> Tape -> file         `ebpflab record`
    file -> Tape -> Player -> ReplayTransport -> Connection       Lab("replay")

A recording is made by running a chapter against a real kernel. It holds what crossed the wire and
nothing else, in the order in which it arrived; `player.py` tells how requests find their answers.
"""
