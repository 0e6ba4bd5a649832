"""Faults: what can go wrong beside the kernel, in a form that crosses the wire.

BCC reports most failures as a bare ``Exception`` (or ``sys.exit``) after clang, libbpf or the
verifier has printed the reason to file descriptor 2 of the process. So the agent points fds 1
and 2 at one file in memory for its whole life, and a fault carries what was printed meanwhile.
"""

import fcntl
import os
import stat
import threading

from ebpflab.protocol import messages

MAX_LOG_BYTES = 256 << 10


class Fault(Exception):
    """A failure with the name of the exception that the notebook raises for it.

    ``type`` is a class name of ``ebpflab.errors``; ``detail`` is any JSON.
    """

    def __init__(self, type_: str, message: str, **detail: messages.Json) -> None:
        super().__init__(message)
        self.type, self.detail = type_, detail

    def as_message(self) -> messages.FaultMessage:
        return {"type": self.type, "message": str(self), "detail": self.detail}


class Printed:
    """Everything that this process prints to fds 1 and 2, kept in a file.

    The file is in memory, or the one that stands for standard error where our parent has given
    us one: then what is printed when this process crashes can still be read by it.

    ``mark`` returns the place where printing has come to, ``since(mark)`` what was printed
    after it. The file is emptied whenever nothing is being recorded, so it does not grow.
    """

    def __init__(self) -> None:
        given = stat.S_ISREG(os.fstat(2).st_mode)
        self._fd = os.dup(2) if given else os.memfd_create("ebpflab-printed")
        # The kernel locks the file position of no file in memory (FMODE_ATOMIC_POS): of texts
        # that two threads write at once, one would be lost. At the end of a file there is a lock.
        fcntl.fcntl(self._fd, fcntl.F_SETFL, os.O_APPEND)
        self._users = 0
        self._lock = threading.Lock()

    def redirect(self) -> None:
        """Send fds 1 and 2 here."""
        for fd in (1, 2):
            os.dup2(self._fd, fd)

    def __enter__(self) -> "Printed":
        with self._lock:
            if self._users == 0:
                os.ftruncate(self._fd, 0)
            self._users += 1
        return self

    def __exit__(self, *exc: object) -> None:
        with self._lock:
            self._users -= 1

    def mark(self) -> int:
        return os.fstat(self._fd).st_size

    def since(self, mark: int) -> str:
        data = os.pread(self._fd, MAX_LOG_BYTES, mark)
        return data.decode(errors="replace")


printed = Printed()
