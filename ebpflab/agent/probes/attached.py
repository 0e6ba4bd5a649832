"""Attachments: a probe as a list of file descriptors, taken over from BCC's book-keeping."""

import os
from typing import List, NamedTuple, Tuple

import bcc

from ebpflab.agent.probes.kind import Bpf
from ebpflab.protocol import messages


class Asked(NamedTuple):
    """What was asked for: two that are equal are one probe."""

    kind: str
    function: str
    target: str
    """The place, as a reader would say."""
    where: Tuple[Tuple[str, str], ...] = ()


class Attachment(NamedTuple):
    """A probe: what was asked for, and the file descriptors that keep it in place."""

    ident: int
    asked: Asked
    fds: List[Tuple[str, bytes, int]]

    def describe(self) -> messages.AttachedProbe:
        """What the notebook is told of a probe that is attached by being loaded."""
        probe = f"{self.asked.kind} {self.asked.target}"
        return {"attachment": self.ident, "probe": probe, "fn_name": self.asked.function}


# Kinds whose descriptor is the attachment; the others' are perf events.
_BARE = ("raw_tracepoint", "kfunc_entry", "kfunc_exit", "fmod_ret", "lsm")


def taken_fds(bpf: Bpf) -> List[Tuple[str, bytes, int]]:
    """Take over every probe that BCC holds in this BPF object."""
    taken = []
    for name, by_function in bpf.kprobe_fds.items():
        taken += [("kprobe", name, fd) for fd in by_function.values()]
    bpf.kprobe_fds.clear()
    for kind in ("uprobe", "tracepoint", *_BARE):
        held = getattr(bpf, f"{kind}_fds", {})
        taken += [(kind, name, fd) for name, fd in held.items()]
        held.clear()
    for event, opened in bpf.open_perf_events.items():
        taken += [("perf_event", b"type %d, config %d" % event, fd) for fd in opened.values()]
    bpf.open_perf_events.clear()
    return taken


def close_probe(kind: str, name: bytes, fd: int) -> None:
    if kind in _BARE:
        os.close(fd)
    else:
        bcc.lib.bpf_close_perf_event_fd(fd)
    if kind == "kprobe":
        # With maxactive= BCC makes the probe through tracefs' kprobe_events, where it would stay
        # and keep the next one of its name out. Does nothing where there is no such line.
        bcc.lib.bpf_detach_kprobe(name)
