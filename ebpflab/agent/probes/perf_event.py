"""Perf events: a function run by a clock or a counter instead of at a place in code.

BCC's own ``attach_perf_event`` is not used. It opens one event a CPU and loses the ones that are
open when one of them is refused; and for a process it opens events of its first thread alone, so
that a program whose work is done by threads that are already there (a Go program, a server) gives
no samples. Here each thread of the process gets an event, and threads and children that it starts
later inherit theirs (libbcc sets ``inherit`` where there is a pid, see perf_event_open(2)).
"""

import ctypes as ct
import errno
import os
from typing import Dict, Iterator, Tuple

import bcc

from ebpflab.agent.faults import Fault
from ebpflab.agent.kernel.cpus import online_cpus
from ebpflab.agent.probes.kind import Bpf, Kind
from ebpflab.protocol.messages import Where

HARDWARE, SOFTWARE = 0, 1  # enum perf_type_id, include/uapi/linux/perf_event.h


def _places(pid: int, cpu: int) -> Iterator[Tuple[int, int]]:
    """(thread, CPU) of each event to open. -1 stands for all."""
    if pid <= 0:
        yield from ((-1, each) for each in (online_cpus() if cpu < 0 else [cpu]))
        return
    threads = sorted(int(tid) for tid in os.listdir(f"/proc/{pid}/task"))
    yield from ((tid, cpu) for tid in threads)


def _attach(bpf: Bpf, function: bytes, where: Where) -> None:
    """Open every event and hang the function on it. BCC's object has all that are open, always."""
    progfd = bpf.load_func(function, bcc.BPF.PERF_EVENT).fd
    opened: Dict[Tuple[int, int], int] = {}
    bpf.open_perf_events[where["ev_type"], where["ev_config"]] = opened
    for tid, cpu in _places(where["pid"], where["cpu"]):
        fd = bcc.lib.bpf_attach_perf_event(
            progfd,
            where["ev_type"],
            where["ev_config"],
            where["sample_period"],
            where["sample_freq"],
            tid,
            cpu,
            -1,  # a group of events that is counted together: none
        )
        if fd >= 0:
            opened[tid, cpu] = fd
        elif not (where["pid"] > 0 and ct.get_errno() == errno.ESRCH):  # that thread has ended
            raise OSError(ct.get_errno(), os.strerror(ct.get_errno()))
    if not opened:
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))


def _explain(function: str, where: Where, complaint: str, log: str) -> Fault:
    """Why the kernel, or libbcc before it, refused an event."""
    what = f"Cannot attach to the perf event type {where['ev_type']}, config {where['ev_config']}"
    if where["pid"] > 0 and not os.path.isdir(f"/proc/{where['pid']}"):
        reason = f"there is no process {where['pid']} on the traced machine (it may have ended)."
    elif "nvalid" in log or where["ev_type"] not in (HARDWARE, SOFTWARE):
        reason = (
            "BCC knows software events (PerfType.SOFTWARE with a PerfSWConfig) and hardware events"
            " (PerfType.HARDWARE with a PerfHWConfig), and this is neither."
        )
    elif where["ev_type"] == HARDWARE:
        reason = (
            f"{complaint}. This machine seems to have no such counter: most virtual machines show"
            " none of the processor's. Sample by the clock instead:"
            " ev_type=PerfType.SOFTWARE, ev_config=PerfSWConfig.CPU_CLOCK."
        )
    else:
        reason = f"the kernel refused it: {complaint}."
    return Fault("AttachError", f"{what}: {reason}")


KINDS = {
    "perf_event": Kind(
        program_type=bcc.BPF.PERF_EVENT, words="a perf event", explain=_explain, attach=_attach
    )
}
