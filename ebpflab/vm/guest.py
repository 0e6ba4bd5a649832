"""A running guest: QEMU under a keeper, and our ends of its streams.

Nothing of a guest is on the disk: its overlay is unlinked by QEMU as soon as it is open, and
its console goes to a file in memory. So a guest that is killed, however, leaves nothing; and
the keeper sees to it that QEMU is killed when this process ends, however it ends.
"""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from ebpflab.errors import VMError
from ebpflab.vm import cache, process, qemu, qmp

CommandLine = Callable[[qemu.Streams], list[str]]

_CONSOLE_TAIL_LINES = 6
# Streams close before QEMU is quite gone: its 1 GiB, and then its keeper, on a busy machine.
_END_SECONDS = 5.0
# Of a dead guest's console these lines tell most; the log levels see to it that they appear.
_TELLING = re.compile(r"Kernel panic|Out of memory|BUG:|I/O error|No space left", re.IGNORECASE)
_STUMBLED = re.compile(r"Kernel panic|BUG:|Oops|Call Trace|general protection fault|WARNING: CPU")
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\r\x00]")


class Guest:
    """Started by the constructor; ``wire`` is the socket that its virtio port is."""

    def __init__(
        self, image: Path, command_line: CommandLine, console: socket.socket | None = None
    ) -> None:
        """``image`` is kept from removal while QEMU runs. ``console`` takes the place of the file
        in memory that the console is printed to."""
        lock = cache.hold(image)
        self.wire, wire = socket.socketpair()
        control, monitor = socket.socketpair()
        self._console = os.memfd_create("ebpflab-console")
        self._errors = os.memfd_create("ebpflab-qemu-errors")
        self._ended: str | None = None
        output = self._console if console is None else console.fileno()
        streams = qemu.Streams(wire.fileno(), monitor.fileno(), output, console is not None)
        try:
            self._keeper = process.start(
                command_line(streams),
                inherit=(wire.fileno(), monitor.fileno(), output, lock),
                output=subprocess.DEVNULL,
                error=self._errors,
                env={**os.environ, "TMPDIR": str(scratch_directory(image))},
            )
        except BaseException:
            self.wire.close()
            control.close()
            os.close(self._console)
            os.close(self._errors)
            raise
        finally:
            wire.close()
            monitor.close()
            os.close(lock)
        self._control = control
        self.monitor = self._greet()

    def _greet(self) -> qmp.Monitor:
        try:
            return qmp.Monitor(self._control)
        except BaseException as error:
            reason = self.post_mortem()
            self.close()
            if isinstance(error, VMError):
                raise VMError(f"The guest did not start. {reason}") from error
            raise

    def expect(
        self, answer: bytes, timeout_seconds: float, tick: Callable[[], None] = lambda: None
    ) -> None:
        """Read exactly ``answer`` off the wire, or raise VMError with the reason. ``tick`` is
        called about once a second."""
        received = b""
        deadline = time.monotonic() + timeout_seconds
        while len(received) < len(answer):
            if not select.select([self.wire], [], [], 1.0)[0]:
                tick()
                if time.monotonic() > deadline:
                    raise VMError(
                        f"The guest did not answer within {timeout_seconds:.0f} s. "
                        f"{self.post_mortem()}"
                    )
                continue
            try:
                chunk = self.wire.recv(len(answer) - len(received))
            except OSError:
                chunk = b""
            if not chunk:
                raise VMError(f"The guest ended while it was started. {self.post_mortem()}")
            received += chunk
        if received != answer:
            raise VMError(f"The guest answered {received!r} where {answer!r} was expected.")

    def send(self, data: bytes) -> None:
        """Write ``data`` to the wire. A guest that has ended shows when it is read."""
        try:
            self.wire.sendall(data)
        except OSError:
            return

    def close(self) -> None:
        """End the guest. May be called twice."""
        if self._ended is not None:
            return
        self._ended = "The guest was closed by this process."
        process.kill(self._keeper)
        self.wire.close()
        self._control.close()
        os.close(self._console)
        os.close(self._errors)

    def wait(self) -> int:
        """Wait for the guest to end by itself; QEMU's status."""
        return self._keeper.wait()

    def console(self) -> str:
        """What the console printed so far, without the terminal's control sequences."""
        return _ESCAPES.sub("", _contents(self._console))

    def kernel_complaints(self) -> list[str]:
        """Lines of the console that a healthy kernel does not print."""
        return [line for line in self.console().splitlines() if _STUMBLED.search(line)]

    def post_mortem(self) -> str:
        """One or two sentences on how the guest ended."""
        if self._ended is not None:
            return self._ended
        try:
            status = self._keeper.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            return f"The guest is still running.{self._last_words()}"
        if status == 0:
            return f"The agent ended, and the guest powered off.{self._last_words()}"
        if status > 128:
            name = signal.Signals(status - 128).name
            return f"QEMU was killed by {name}.{self._last_words()}"
        if status < 0:
            return f"QEMU's keeper was killed by {signal.Signals(-status).name}."
        return f"QEMU ended with status {status}.{self._last_words()}"

    def _last_words(self) -> str:
        complaints = _contents(self._errors).strip()
        lines = [line.strip() for line in self.console().splitlines() if line.strip()]
        # Each guest ends so; it says nothing.
        lines = [line for line in lines if "reboot: Power down" not in line]
        shown = [line for line in lines[:-_CONSOLE_TAIL_LINES] if _TELLING.search(line)]
        shown += lines[-_CONSOLE_TAIL_LINES:]
        words = f" QEMU said: {complaints}" if complaints else ""
        if shown:
            words += " The end of its console:\n" + "\n".join(f"    {line}" for line in shown)
        return words


def scratch_directory(image: Path) -> Path:
    """Where QEMU makes the overlay: on the disk of the images, not in memory; or, for an image
    that is everybody's, where a user may keep large files."""
    return image if os.access(image, os.W_OK) else cache.tree_parent()


def _contents(descriptor: int) -> str:
    size = os.fstat(descriptor).st_size
    start = max(size - (64 << 10), 0)
    return os.pread(descriptor, size - start, start).decode(errors="replace")
