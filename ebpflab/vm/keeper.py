"""Run a command that must not outlive the process that wanted it.

    python3 -I -S keeper.py PIDFD COMMAND...

PIDFD refers to that process, so its end is noticed however it ends, and even while copies of
its pipes live on in forked children. The keeper leads a process group of its own: Ctrl-C in
the owner's terminal does not reach it, and one signal to the group ends all of it.

Exits as the command did; 128 + n when signal n ended it.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys

PR_SET_PDEATHSIG = 1


def main() -> int:
    owner = int(sys.argv[1])
    os.set_inheritable(owner, False)
    libc = ctypes.CDLL(None)

    def die_with_keeper() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    # Everything else that was inherited is meant for the command.
    command = subprocess.Popen(sys.argv[2:], close_fds=False, preexec_fn=die_with_keeper)
    ended = os.pidfd_open(command.pid)
    poll = select.poll()
    poll.register(owner, select.POLLIN)
    poll.register(ended, select.POLLIN)
    if any(fd == owner for fd, _ in poll.poll()):
        os.killpg(0, signal.SIGKILL)
    status = command.wait()
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main())
