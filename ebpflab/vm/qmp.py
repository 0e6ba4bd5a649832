"""The few words of QMP, QEMU's JSON monitor, that saving and resuming a guest takes."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from ebpflab.errors import VMError

# The memory is a file that stays where it is: only the devices' state is saved.
_KEEP_MEMORY = {"capability": "x-ignore-shared", "state": True}
_STATE_SECONDS = 30.0  # for half a megabyte


class Monitor:
    """A QMP session on a connected socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lines = connection.makefile("rb")
        self._receive()  # the greeting
        self.execute("qmp_capabilities")

    def execute(self, command: str, *, pass_fds: Sequence[int] = (), **arguments: Any) -> Any:
        """Run a command; its result. Raises VMError."""
        request = json.dumps({"execute": command, "arguments": arguments}).encode()
        try:
            socket.send_fds(self._connection, [request], pass_fds)
        except OSError as error:
            raise VMError(f"QEMU ended before it could be told to {command}.") from error
        while True:
            answer = self._receive()  # an event has neither key
            if "error" in answer:
                raise VMError(f"QEMU refused {command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]

    def save(self) -> bytes:
        """Stop the guest; the state of its devices."""
        self.execute("migrate-set-capabilities", capabilities=[_KEEP_MEMORY])
        with self._given_a_socket() as ours:
            self.execute("migrate", uri="fd:state")
            with ours.makefile("rb") as file:
                state = file.read()
        while (status := self.execute("query-migrate"))["status"] != "completed":
            if status["status"] in ("failed", "cancelled"):
                raise VMError(f"QEMU could not save the guest: {status.get('error-desc', status)}")
            time.sleep(0.02)
        return state

    def resume(self, state: bytes) -> None:
        """Let a guest that waits for its state have it, and run."""
        self.execute("migrate-set-capabilities", capabilities=[_KEEP_MEMORY])
        with self._given_a_socket() as ours:
            self.execute("migrate-incoming", uri="fd:state")
            ours.settimeout(_STATE_SECONDS)
            with suppress(OSError):  # one that has ended, or stands still, shows by its answer
                ours.sendall(state)

    @contextmanager
    def _given_a_socket(self) -> Iterator[socket.socket]:
        """Our end of a socket whose other end QEMU calls ``fd:state``.

        Every QEMU takes one. Of files it has warned since 9.1, and ``file:`` is new in 8.2.
        """
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                self.execute("getfd", pass_fds=[theirs.fileno()], fdname="state")
            yield ours

    def close(self) -> None:
        self._lines.close()
        self._connection.close()

    def _receive(self) -> dict[str, Any]:
        try:
            line = self._lines.readline()
        except OSError:
            line = b""
        if not line:
            raise VMError("QEMU ended before it answered.")
        answer: dict[str, Any] = json.loads(line)
        return answer
