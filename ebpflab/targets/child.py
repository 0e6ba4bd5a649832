"""A transport whose agent, or way to the agent, is a child process of ours."""

from __future__ import annotations

import fcntl
import subprocess
import tempfile

from ebpflab.agent import wire
from ebpflab.targets.base import Transport

_END_SECONDS = 3.0


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
            fcntl.fcntl(self.reader, fcntl.F_SETPIPE_SZ, wire.CHUNK_BYTES)
        except (AttributeError, OSError):
            pass  # not on Linux; or this user has many pipes, or a limit below that (pipe(7))

    def close(self) -> None:
        """Close the agent's input; it detaches and ends. Killed when it does not."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        if self.ending() is None:
            self._process.kill()
            self._process.wait()

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
