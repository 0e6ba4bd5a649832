"""A shell in a guest, in the terminal that we run in: the guest's serial console.

The saved guest has root logged in there already. Bytes are copied both ways with the terminal
in raw mode, so that Ctrl-C and the like go to the guest; Ctrl-] ends the guest.
"""

from __future__ import annotations

import os
import select
import shlex
import shutil
import socket
import sys
import termios
import time
import tty

from ebpflab.errors import VMError
from ebpflab.transport import archive
from ebpflab.transport.base import OnStep
from ebpflab.vm import lifecycle
from ebpflab.vm.guest import Guest

_ESCAPE = b"\x1d"  # Ctrl-]

# What runs in the agent's place: when it ends, the guest powers off.
_KEEP_RUNNING = """
import signal, time
time.clock_settime(time.CLOCK_REALTIME, {now})
signal.pause()
"""


def shell(progress: OnStep = print) -> int:
    """A throw-away guest's console, until Ctrl-] or `poweroff`. Returns QEMU's status."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise VMError("A shell in the guest needs a terminal for its input and output.")
    ours, theirs = socket.socketpair()
    program = _KEEP_RUNNING.format(now=time.time()).encode()
    with ours:
        with theirs:
            guest = lifecycle.start(progress, archive.parcel({"__main__.py": program}), theirs)
        try:
            progress("a throw-away guest; Ctrl-] or `poweroff` ends it")
            return _converse(ours, guest)
        finally:
            guest.close()


def _converse(console: socket.socket, guest: Guest) -> int:
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    try:
        tty.setraw(terminal)
        console.sendall(_introduction())
        ended_by_guest = _copy(console, terminal, sys.stdout.fileno())
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
        print()
    return guest.wait() if ended_by_guest else 0


def _introduction() -> bytes:
    """A serial console knows neither the terminal's size nor its kind: tell the guest's shell."""
    columns, lines = shutil.get_terminal_size()
    kind = shlex.quote(os.environ.get("TERM", "linux"))
    return f" stty rows {lines} columns {columns}; export TERM={kind}; clear\r".encode()


def _copy(console: socket.socket, source: int, sink: int) -> bool:
    """Copy both ways until an end; whether it was the guest that ended."""
    while True:
        readable, _, _ = select.select([console.fileno(), source], [], [])
        if console.fileno() in readable:
            data = _receive(console)
            if not data:
                return True
            while data:
                data = data[os.write(sink, data) :]
        if source in readable:
            typed = os.read(source, 1024)
            if not typed or _ESCAPE in typed:
                return False
            console.sendall(typed)


def _receive(console: socket.socket) -> bytes:
    try:
        return console.recv(1 << 14)
    except ConnectionResetError:
        return b""
