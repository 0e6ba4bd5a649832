"""Attachments: a probe as a list of file descriptors, taken over from BCC's book-keeping."""

import os
from typing import Any, Dict, List, NamedTuple, Tuple

import bcc

from ebpflab.agent.probes.kind import place


class Attachment(NamedTuple):
    """A probe: what was asked for, and the file descriptors that keep it in place."""

    ident: int
    spec: Tuple[Any, ...]
    fds: List[Tuple[str, bytes, int]]

    @property
    def function(self) -> str:
        return str(self.spec[1])

    def describe(self) -> Dict[str, Any]:
        """What the notebook is told of a probe that is attached by being loaded."""
        kind, function, *where = self.spec
        target = where[0] if kind == "usdt" else place(function, dict(where))
        return {"attachment": self.ident, "probe": f"{kind} {target}", "fn_name": function}


# Kinds whose descriptor is the attachment; the others' are perf events.
_BARE = ("raw_tracepoint", "kfunc_entry", "kfunc_exit", "fmod_ret", "lsm")


def taken_fds(bpf: Any) -> List[Tuple[str, bytes, int]]:
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
