"""A transport whose agent, or way to the agent, is a child process of ours."""

from __future__ import annotations

import fcntl
import os
import select
import subprocess
import tempfile
import time

from ebpflab.display.progress import Progress
from ebpflab.errors import TargetError
from ebpflab.protocol import framing
from ebpflab.transport import archive
from ebpflab.transport.base import Transport

_END_SECONDS = 3.0
_ROOTS_END_SECONDS = 60.0


class ChildTransport(Transport):
    """A command that speaks the wire on its standard input and output."""

    def __init__(
        self, command: list[str], environment: dict[str, str] | None = None, cwd: str | None = None
    ) -> None:
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env=environment,
            cwd=cwd,
            start_new_session=True,  # Ctrl-C in a terminal is for the notebook alone
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self.writer = self._process.stdin.fileno()
        self.reader = self._process.stdout.fileno()
        try:  # a batch at once instead of 64 KiB: fewer turns of agent and notebook
            fcntl.fcntl(self.reader, fcntl.F_SETPIPE_SZ, framing.CHUNK_BYTES)
        except (AttributeError, OSError):
            pass  # not on Linux; or this user has many pipes, or a limit below that (pipe(7))

    def deliver(self, program: bytes, seconds: float) -> bytes:
        """Send a program to the bootstrap at the other end, and return its answer.

        The answer is RUN; less of it when the other end has gone, or said nothing in ``seconds``.
        """
        deadline, said = time.monotonic() + seconds, b""
        if not self._send(program, deadline):
            return said
        while len(said) < len(archive.RUN):
            ready, _, _ = select.select([self.reader], [], [], max(deadline - time.monotonic(), 0))
            data = os.read(self.reader, len(archive.RUN) - len(said)) if ready else b""
            if not data:
                break
            said += data
        return said

    def _send(self, data: bytes, deadline: float) -> bool:
        """Write to a child that takes no more than a pipe holds until it has a connection, say."""
        view = memoryview(data)
        while view:
            _, ready, _ = select.select([], [self.writer], [], max(deadline - time.monotonic(), 0))
            if not ready:
                return False
            try:  # as much as surely does not block
                view = view[os.write(self.writer, view[: select.PIPE_BUF]) :]
            except BrokenPipeError:
                return False  # it has given up, and said why
        return True

    def close(self) -> None:
        """Close the agent's input; it detaches and ends. Killed when it does not.

        Killed or not, it has ended when the kernel has taken its probes away: here that took
        0.1 s for each uprobe. Raises TargetError when it is root's and does not end.
        """
        assert self._process.stdin is not None
        self._process.stdin.close()
        if self.ending() is not None:
            return
        with Progress("Ending the agent") as progress:
            progress("the kernel takes its probes away")
            try:
                self._process.kill()
            except PermissionError:  # sudo, which is root, ends with the agent
                self._wait_for_roots()
            else:
                self._process.wait()

    def _wait_for_roots(self) -> None:
        try:
            self._process.wait(_ROOTS_END_SECONDS)
        except subprocess.TimeoutExpired:
            raise TargetError(
                f"The agent has not ended {_ROOTS_END_SECONDS:.0f} s after its lab was closed, and"
                f" only root may end it: sudo kill -9 {self._process.pid}"
            ) from None

    def ending(self) -> int | None:
        """How the process ended (see `subprocess.Popen.returncode`); None when it runs on."""
        try:
            return self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            return None

    def said(self) -> list[str]:
        """The lines that it has printed to its standard error."""
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").splitlines()
        return [line.strip() for line in lines if line.strip()]
