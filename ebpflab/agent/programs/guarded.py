"""Surviving LLVM: a compilation that ends the process must not take the agent with it.

Where LLVM's BPF backend cannot translate something (signed division, more than 512 bytes of
stack) it prints an error and calls abort(3), or, in newer versions, exit(3). Either would end the
agent, its streams and every probe. So compilations run in a thread of their own that both leave
asleep for good:

* While it compiles, SIGABRT has a handler that never returns: libc's ``pause``, with every signal
  blocked.
* ``pause`` is also the thread's last thread-local destructor, which exit(3) runs before anything
  else; a thread that never ends otherwise never meets it. (From glibc 2.41 on a second exit(3)
  waits for the first one instead, which comes to the same.)

A compiling thread that sleeps for a second without using the processor is taken for lost. The
memory of its one compilation goes with it, and the next compilation gets a new thread.
"""

import ctypes as ct
import queue
import signal
import threading
import time
from typing import Any, Callable, Optional, Tuple

_libc = ct.CDLL(None, use_errno=True)
_PAUSE = ct.cast(_libc.pause, ct.c_void_p)
_POLL_SECONDS = 0.05
_LOST_SECONDS = 1.0

Result = Tuple[Any, Optional[BaseException]]


class Lost(Exception):
    """The call ended in abort(3) or exit(3)."""


class _SigAction(ct.Structure):
    """``struct sigaction`` of glibc on x86-64 and arm64."""

    _fields_ = [
        ("handler", ct.c_void_p),
        ("mask", ct.c_uint8 * 128),
        ("flags", ct.c_int),
        ("restorer", ct.c_void_p),
    ]


class Guard:
    """Runs calls that may end the process, one at a time."""

    def __init__(self) -> None:
        self._jobs: "queue.SimpleQueue[Callable[[], Any]]" = queue.SimpleQueue()
        self._results: "queue.SimpleQueue[Result]" = queue.SimpleQueue()
        self._thread: Optional[threading.Thread] = None

    def call(self, function: Callable[[], Any]) -> Any:
        """What ``function`` returns or raises. Raises Lost when it ended the process."""
        if self._thread is None:
            self._jobs, self._results = queue.SimpleQueue(), queue.SimpleQueue()
            self._thread = threading.Thread(
                target=_work, args=(self._jobs, self._results), name="compiler", daemon=True
            )
            self._thread.start()
        handler = _SigAction(_PAUSE.value, (ct.c_uint8 * 128)(*([0xFF] * 128)), 0, None)
        before = _SigAction()
        _libc.sigaction(signal.SIGABRT, ct.byref(handler), ct.byref(before))
        try:
            self._jobs.put(function)
            result, error = self._wait(self._thread)
        finally:
            _libc.sigaction(signal.SIGABRT, ct.byref(before), None)
        if error is not None:
            raise error
        return result

    def _wait(self, thread: threading.Thread) -> Result:
        asleep_since = time.monotonic()
        used_before = -1
        while True:
            try:
                return self._results.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                pass
            sleeps, used = _state(thread.native_id)
            if not sleeps or used != used_before:
                asleep_since, used_before = time.monotonic(), used
            elif time.monotonic() - asleep_since > _LOST_SECONDS:
                self._thread = None
                raise Lost


def _work(jobs: Any, results: Any) -> None:
    _libc.__cxa_thread_atexit_impl(_PAUSE, None, _PAUSE)  # function, argument, any address of libc
    while True:
        function = jobs.get()
        try:
            results.put((function(), None))
        except BaseException as error:  # SystemExit is among what BCC raises
            results.put((None, error))


def _state(tid: Optional[int]) -> Tuple[bool, int]:
    """Whether a thread sleeps (not for a disk), and the processor time it has used, in ticks."""
    with open(f"/proc/self/task/{tid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return fields[0] == "S", int(fields[11]) + int(fields[12])  # proc(5): state, utime, stime
