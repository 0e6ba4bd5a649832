"""Which file lies where in the memory of a process, also when that process has ended.

An address of a stack means nothing without it, and ``/proc/PID/maps`` ends with the process. So
the kernel is asked to tell of each mapping of code that is made by what we start: a perf event
that counts nothing (``PERF_COUNT_SW_DUMMY``) is opened for the thread that starts workloads, which
they and all that they start inherit, and its ring receives a record of each mmap, fork and exec
(perf_event_open(2), "PERF_RECORD_MMAP"). The records are read whenever something is asked or
started; what does not fit into the ring until then is lost, and those processes stay unknown.

No other process of the machine is watched. Those are looked up in ``/proc`` while they live.
"""

import ctypes as ct
import mmap
import os
import re
import struct
from typing import Dict, List, NamedTuple, Tuple

from ebpflab.agent.kernel.cpus import online_cpus
from ebpflab.agent.kernel.syscalls import syscall

_RING_PAGES = 64  # of data; a power of two. About 2,000 records
_RECORDED_PROCESSES = 4096
_SOFTWARE, _DUMMY, _SAMPLE_TIME = 1, 9, 4
_FLAGS = 1 << 1 | 1 << 8 | 1 << 9 | 1 << 13 | 1 << 18 | 1 << 24
"""inherit, mmap, comm, task, sample_id_all (the time at the end of each record), comm_exec."""
_MMAP, _COMM, _FORK, _COMM_EXEC = 1, 3, 7, 1 << 13
_HEAD, _TAIL = 1024, 1032  # data_head and data_tail in struct perf_event_mmap_page

_LINE = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) ..x. ([0-9a-f]+) \S+ \d+ *(.*)$", re.MULTILINE)

_CLOEXEC = 8  # PERF_FLAG_FD_CLOEXEC


class Mapping(NamedTuple):
    """A part of a process's memory that holds code."""

    start: int
    end: int
    offset: int
    """Where in the file it begins."""
    path: str
    """The file; ``[vdso]``; empty for code that was made while the program ran."""


def living(pid: int, errors: str = "replace") -> List[Mapping]:
    """What a process has mapped now. Nothing when it has ended.

    ``errors`` is what becomes of a path that is no text, as for `open`.
    """
    try:
        with open(f"/proc/{pid}/maps", errors=errors) as file:
            lines = _LINE.findall(file.read())
    except OSError:
        return []
    return [Mapping(int(a, 16), int(b, 16), int(at, 16), path) for a, b, at, path in lines]


class Mappings:
    """What every process that we started has mapped, in the order of time."""

    def __init__(self) -> None:
        self._rings: List[mmap.mmap] = []
        self._known: Dict[int, List[Mapping]] = {}

    def watch(self) -> None:
        """From now on keep what later children of the calling thread map.

        Where that is forbidden, nothing is kept.
        """
        if self._rings:
            return
        attr = struct.pack("<IIQQQQQ", _SOFTWARE, 64, _DUMMY, 0, _SAMPLE_TIME, 0, _FLAGS)
        for cpu in online_cpus():
            buffer = ct.create_string_buffer(attr, 64)
            try:
                fd = syscall("perf", buffer, 0, cpu, -1, _CLOEXEC)
            except OSError:
                continue
            try:
                self._rings.append(mmap.mmap(fd, (1 + _RING_PAGES) * mmap.PAGESIZE))
            except OSError:
                pass  # no memory may be locked
            os.close(fd)  # the mapping holds the event

    def remember(self, pid: int) -> None:
        """Keep what a process that was there before has mapped now."""
        self._known[pid] = living(pid) or self._known.get(pid, [])

    def of(self, pid: int) -> List[Mapping]:
        """What the process maps, or had mapped."""
        self.drain()
        return living(pid) or self._known.get(pid, [])

    def drain(self) -> None:
        """Take in the records that have come since the last time."""
        records = [record for ring in self._rings for record in _take(ring)]
        for _, kind, misc, body in sorted(records, key=lambda record: record[0]):
            pid, parent = struct.unpack_from("<II", body)
            if kind == _FORK and pid != parent:  # else a new thread
                self._known[pid] = list(self._known.get(parent, []))
            elif kind == _COMM and misc & _COMM_EXEC:
                self._known[pid] = []
            elif kind == _MMAP:
                start, size, offset = struct.unpack_from("<QQQ", body, 8)
                path = body[32:].split(b"\0", 1)[0].decode(errors="replace")
                path = "" if path == "//anon" else path
                self._known.setdefault(pid, []).append(Mapping(start, start + size, offset, path))
        for pid in list(self._known)[: max(len(self._known) - _RECORDED_PROCESSES, 0)]:
            del self._known[pid]


def _take(ring: mmap.mmap) -> List[Tuple[int, int, int, bytes]]:
    """(time, kind, misc, body) of the records of a ring, which is empty afterwards."""
    size = _RING_PAGES * mmap.PAGESIZE
    head, tail = struct.unpack_from("<QQ", ring, _HEAD)
    data = ring[mmap.PAGESIZE :] * 2 if head != tail else b""  # twice: a record may wrap
    found, at = [], tail % size
    end = at + head - tail
    while at < end:
        kind, misc, length = struct.unpack_from("<IHH", data, at)
        body = data[at + 8 : at + length]
        found.append((struct.unpack_from("<Q", body, len(body) - 8)[0], kind, misc, body))
        at += length
    struct.pack_into("<Q", ring, _TAIL, head)
    return found
