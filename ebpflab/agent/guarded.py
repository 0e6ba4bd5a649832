"""Surviving LLVM: a compilation that aborts must not take the agent with it.

Where LLVM's BPF backend cannot translate something (signed division, before LLVM 18) it prints
``LLVM ERROR`` and calls abort(3), which would end the agent, its streams and every probe. So a
compilation runs in a thread of its own, and meanwhile SIGABRT has a handler that never returns:
libc's ``pause``, with every signal blocked. The thread stays there for good, with the memory of
one compilation; we see from its blocked signals (proc(5), ``SigBlk``) that it is there, and go on.
"""

import ctypes as ct
import signal
import threading
from typing import Any, Callable, List, Optional

_libc = ct.CDLL(None, use_errno=True)
_POLL_SECONDS = 0.05


class _SigAction(ct.Structure):
    """``struct sigaction`` of glibc on x86-64 and arm64."""

    _fields_ = [
        ("handler", ct.c_void_p),
        ("mask", ct.c_uint8 * 128),
        ("flags", ct.c_int),
        ("restorer", ct.c_void_p),
    ]


class Aborted(Exception):
    """The call ended in abort(3)."""


def call(function: Callable[[], Any]) -> Any:
    """What ``function`` returns or raises. Raises Aborted when it called abort(3)."""
    result: List[Any] = []
    error: List[BaseException] = []

    def work() -> None:
        try:
            result.append(function())
        except BaseException as caught:  # SystemExit is among what BCC raises
            error.append(caught)

    handler = _SigAction(
        ct.cast(_libc.pause, ct.c_void_p).value, (ct.c_uint8 * 128)(*([0xFF] * 128)), 0, None
    )
    before = _SigAction()
    _libc.sigaction(signal.SIGABRT, ct.byref(handler), ct.byref(before))
    try:
        thread = threading.Thread(target=work, name="compile", daemon=True)
        thread.start()
        asleep = None
        while thread.is_alive():
            thread.join(_POLL_SECONDS)
            # libc blocks every signal for a moment as well, when it starts a thread: so asleep
            # that way twice, with no switch in between.
            before_that, asleep = asleep, _asleep_for_good(thread.native_id)
            if thread.is_alive() and asleep is not None and asleep == before_that:
                raise Aborted
    finally:
        _libc.sigaction(signal.SIGABRT, ct.byref(before), None)
    if error:
        raise error[0]
    return result[0]


def _asleep_for_good(tid: Optional[int]) -> Optional[str]:
    """How often the thread has given up the CPU, where it sleeps with SIGABRT blocked."""
    try:
        with open(f"/proc/self/task/{tid}/status") as status:
            fields = dict(line.split(":", 1) for line in status)
    except OSError:
        return None  # it has just ended
    blocked = int(fields["SigBlk"], 16) & 1 << (signal.SIGABRT - 1)
    return fields["voluntary_ctxt_switches"] if blocked and "S" in fields["State"][:3] else None
