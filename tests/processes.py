"""Processes that tests have started, each by its own id: others run guests on this machine, too."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

from ebpflab import Lab
from ebpflab.vm.guest import Guest

_ENDING_SECONDS = 30  # of a guest with 1 GiB, on a busy machine; what stays, stays for longer


def runs(pid: int) -> bool:
    """Whether a process is there. One that has ended may wait for init to read its status."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def wait_for_end(pids: Iterable[int]) -> set[int]:
    """Wait until all have ended; those that do not."""
    left = {*pids}
    deadline = time.monotonic() + _ENDING_SECONDS
    while (left := {pid for pid in left if runs(pid)}) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def children(pid: int) -> set[int]:
    """The processes that ``pid`` has started, in any of its threads."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return {int(child) for each in lists for child in each.read_text().split()}


def guest_of(lab: Lab) -> Guest:
    """The guest of a lab on the target ``vm``."""
    guest: Guest = lab._connection._transport._guest  # type: ignore[attr-defined]
    return guest


def qemu_of(guest: Guest) -> int:
    """The process id of a guest's QEMU, which its keeper has started."""
    (qemu,) = children(guest._keeper.pid)
    return qemu
