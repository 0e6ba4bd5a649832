"""Run statistics: how often the kernel ran a BPF function, and how long that took.

The kernel counts runs and their nanoseconds for each function that it has loaded, while somebody
holds a file descriptor of BPF_ENABLE_STATS (Linux 5.8, commit d46edd671a14); before that, only
while the sysctl kernel.bpf_stats_enabled is 1, which is never set from here: it would stay set if
this process were killed. The counts are in ``struct bpf_prog_info`` (include/uapi/linux/bpf.h),
and never go back to zero, so what was there when a function was attached is taken off.
"""

import ctypes
import os
import struct
from typing import Dict, NamedTuple, Optional

from ebpflab.agent.kernel.syscalls import ENABLE_STATS, bpf, object_info
from ebpflab.protocol import messages

_RUN_TIME = 0  # enum bpf_stats_type
_INFO_BYTES = 256  # more than any kernel fills; what one does not know stays zero
_COUNTS = struct.Struct("=QQQ")  # run_time_ns, run_cnt, recursion_misses
_COUNTS_AT = 192


class Run(NamedTuple):
    """What the kernel counted; ``misses`` is None before Linux 5.12 (commit 9ed9e9ba2337)."""

    hits: int
    total_ns: int
    misses: Optional[int]

    def as_message(self) -> messages.Runs:
        return {"hits": self.hits, "total_ns": self.total_ns, "misses": self.misses}


def _read(fd: int) -> Run:
    """All that was counted for a loaded function."""
    info = ctypes.create_string_buffer(_INFO_BYTES)
    known_bytes = object_info(fd, info)
    total_ns, hits, misses = _COUNTS.unpack_from(info, _COUNTS_AT)
    return Run(hits, total_ns, misses if known_bytes >= _COUNTS_AT + _COUNTS.size else None)


class RunStats:
    """The counts of one program's functions, each from zero when it is attached anew."""

    def __init__(self) -> None:
        self._enabled: Optional[int] = None
        self._base: Dict[str, Run] = {}
        self.problem: Optional[str] = None
        """Why the kernel counts nothing, where it does not."""

    def begin(self, function: str, fd: int) -> None:
        """Count the runs of ``function`` from now on. Before it is attached: the first is a run."""
        try:
            if self._enabled is None:
                self._enabled = bpf(ENABLE_STATS, struct.pack("=I", _RUN_TIME))
            self._base[function] = _read(fd)
        except OSError as error:
            self.problem = (
                f"This kernel ({os.uname().release}) does not count the runs of BPF programs:"
                f" BPF_ENABLE_STATS, of Linux 5.8 and later, says: {error.strerror}."
            )

    def end(self) -> None:
        """Nothing is attached any more: let the kernel stop counting. Counts stay readable."""
        if self._enabled is not None:
            os.close(self._enabled)
            self._enabled = None

    def since(self, function: str, fd: int) -> Optional[Run]:
        """The counts since ``function`` was attached. None when there are none to be had."""
        base = self._base.get(function)
        if base is None or self.problem is not None:
            return None
        now = _read(fd)
        missed = None if now.misses is None else now.misses - (base.misses or 0)
        return Run(now.hits - base.hits, now.total_ns - base.total_ns, missed)
