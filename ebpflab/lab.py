"""Lab: a machine that can be traced, and everything that is asked of it.

Lab -> Program -> Stream / Table  <== wire ==>  agent -> BCC -> kernel
"""

from __future__ import annotations

import itertools
import os
import signal
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import pandas as pd

from ebpflab import cells
from ebpflab.connection import Connection
from ebpflab.errors import ProgramError
from ebpflab.features import HOSTING, features_frame
from ebpflab.program import Program
from ebpflab.progress import Progress, notice
from ebpflab.targets import choose


@dataclass(frozen=True)
class Completed:
    """A command that has ended on the traced machine."""

    argv: tuple[str, ...]
    pid: int
    returncode: int
    """Exit status; minus the signal's number when a signal ended it."""
    stdout: str
    stderr: str
    truncated: bool
    """True when it printed more than is kept (4 MiB of each)."""


class Lab:
    """A machine to trace. Also a context manager; `close` detaches and ends everything.

    ``target`` is "auto" (the first of local and vm that can do what the chapters need), "local"
    or "vm". The environment variable EBPFLAB_TARGET overrides "auto". Raises a TargetError that
    says what to do when no machine can be had.

    >>> with Lab() as lab:                                            # doctest: +SKIP
    ...     prog = lab.load(source)
    """

    def __init__(self, target: str = "auto") -> None:
        cells.retire()
        with Progress("Starting the lab") as progress:
            chosen, why = choose(target)
            transport = chosen.connect(progress)
            progress("waiting for the agent")
            self._connection = Connection(transport)
            self._finalizer = weakref.finalize(self, self._connection.close)
            try:
                hello = self._connection.hello()
                if transport.set_clock:
                    hello.update(self._connection.request("set_clock", realtime_ns=time.time_ns()))
            except BaseException:
                self.close()
                raise
        self.target, self.kernel, self.arch = chosen.name, hello["kernel"], hello["arch"]
        self.bcc_version: str = hello["bcc"]
        self.agent_pid: int = hello["pid"]
        self._hello = hello
        self._idents = itertools.count(1)
        if why:
            notice(why)
        cells.adopt(self)

    @property
    def attrs(self) -> dict[str, Any]:
        """Where data comes from; every DataFrame carries it in its ``attrs``.

        ``clock_offset_ns`` added to ``bpf_ktime_get_ns()`` is nanoseconds since 1970, UTC.
        """
        return {
            "target": self.target,
            "kernel": self.kernel,
            "arch": self.arch,
            "bcc": self.bcc_version,
            "clock_offset_ns": self._hello["clock_offset_ns"],
        }

    # -- programs ----------------------------------------------------------------------------

    def load(
        self, source: str | Path, *, cflags: Sequence[str] = (), headers: str | None = None
    ) -> Program:
        """Compile a BPF program: C text, or the path of a ``.c`` file.

        Running the same notebook cell again closes the program that it loaded before. The same
        text is not compiled twice in the life of a lab. ``headers`` names a kernel headers tree
        to use whatever it matches. Raises CompileError, HeadersError.
        """
        cells.retire()
        text = _read_source(source)
        with Progress("Compiling the program") as progress:
            progress("clang")
            ident = next(self._idents)
            try:
                loaded = self._connection.request(
                    "load",
                    c_source=text,
                    program=ident,
                    source=text,
                    cflags=list(cflags),
                    headers=headers,
                )
            except KeyboardInterrupt:  # it is loaded all the same, in a moment
                self._connection.tell("close", program=ident)
                raise
        if not loaded["headers"]["matching"] and not self._hello.get("headers"):
            notice(
                f"This kernel ({self.kernel}) has no headers of its own: borrowing those of"
                f" {loaded['headers']['headers']}, which is safe for uprobes and tracepoints."
            )
        self._hello["headers"] = loaded["headers"]["headers"]
        program = Program(self, self._connection, ident, text, loaded)
        cells.adopt(program)
        return program

    # -- workloads ---------------------------------------------------------------------------

    def run(
        self,
        argv: Sequence[str],
        *,
        input: str = "",
        cwd: str | None = None,
        env: dict[str, str] | None = None,
    ) -> Completed:
        """Run a command on the traced machine and wait for its end.

        Interrupting the notebook kernel kills it. Raises WorkloadError when it cannot start.

        >>> lab.run(["/bin/ls", "/"]).returncode                      # doctest: +SKIP
        0
        """
        return self.start(argv, input=input, cwd=cwd, env=env).wait()

    def start(
        self,
        argv: Sequence[str],
        *,
        input: str = "",
        cwd: str | None = None,
        env: dict[str, str] | None = None,
    ) -> Workload:
        """Start a command on the traced machine and go on: ``.pid``, ``.wait()``, ``.stop()``."""
        command = [argv] if isinstance(argv, str) else list(argv)
        answer = self._connection.request("start", argv=command, input=input, cwd=cwd, env=env)
        return Workload(self._connection, tuple(command), answer["pid"])

    # -- discovery ---------------------------------------------------------------------------

    def features(self) -> pd.DataFrame:
        """What the traced machine can do: feature, status (yes, no, unknown), reason, fix."""
        rows = self._connection.request("features")["features"]
        if self.target == "vm":
            rows = [row for row in rows if row["feature"] not in HOSTING]
        return features_frame(rows)

    def syscall_name(self, name: str) -> str:
        """The kernel function of a system call: "execve" -> "__x64_sys_execve"."""
        return str(self._connection.request("syscall_name", name=name)["name"])

    def kernel_functions(self, pattern: str = "*") -> list[str]:
        """Kernel functions that can be probed, by shell pattern: ``vfs_*``."""
        return list(self._connection.request("kernel_functions", pattern=pattern)["names"])

    def tracepoints(self, pattern: str = "*") -> list[str]:
        """Tracepoints as ``category:name``, by shell pattern: ``sched:*``."""
        return list(self._connection.request("tracepoints", pattern=pattern)["names"])

    def tracepoint_format(self, tp: str) -> str:
        """The fields of a tracepoint, as the kernel describes them."""
        return str(self._connection.request("tracepoint_format", tp=tp)["format"])

    def symbols(self, path: str, pattern: str = "*") -> pd.DataFrame:
        """Function symbols of a program or library on the traced machine: symbol, address."""
        answer = self._connection.request("symbols", path=str(path), pattern=pattern)
        return pd.DataFrame(answer["symbols"], columns=["symbol", "address"])

    # -- ending ------------------------------------------------------------------------------

    def close(self) -> None:
        """Detach everything, end the agent, and the guest if one was started."""
        self._finalizer()

    @property
    def closed(self) -> bool:
        return not self._finalizer.alive

    def __enter__(self) -> Lab:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        headers = self._hello.get("headers")
        borrowed = f", borrowed headers of {headers}" if headers not in (None, self.kernel) else ""
        state = ", closed" if self.closed else ""
        return (
            f"<Lab {self.target!r}: Linux {self.kernel} {self.arch}, BCC {self.bcc_version}"
            f"{borrowed}{state}>"
        )


class Workload:
    """A command that runs on the traced machine."""

    def __init__(self, connection: Connection, argv: tuple[str, ...], pid: int) -> None:
        self._connection, self.argv, self.pid = connection, argv, pid

    def wait(self) -> Completed:
        """Wait for its end. Interrupting the wait kills it."""
        try:
            answer = self._connection.request("wait", pid=self.pid)
        except KeyboardInterrupt:
            self._connection.request("stop", pid=self.pid, signal=signal.SIGKILL)
            raise
        split = answer["stdout_bytes"]
        stdout, stderr = (
            part.decode(errors="replace") for part in (answer.blob[:split], answer.blob[split:])
        )
        return Completed(
            self.argv, self.pid, answer["returncode"], stdout, stderr, answer["truncated"]
        )

    def stop(self) -> Completed:
        """End it with SIGTERM and wait for its end."""
        self._connection.request("stop", pid=self.pid, signal=signal.SIGTERM)
        return self.wait()

    def __repr__(self) -> str:
        return f"<Workload {self.pid}: {' '.join(self.argv)}>"


def _read_source(source: str | Path) -> str:
    """C text as it is; the path of a .c file is read."""
    if isinstance(source, Path) or (source.strip().endswith(".c") and "\n" not in source.strip()):
        path = Path(os.fspath(source).strip()).expanduser()
        try:
            return path.read_text()
        except OSError as error:
            raise ProgramError(f"Cannot read the C file {str(path)!r}: {error.strerror}.") from None
    if not source.strip():
        raise ProgramError("The C program is empty.")
    return source
