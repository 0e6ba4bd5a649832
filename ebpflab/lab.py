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

import pandas as pd

from ebpflab.binaries.golang import GoBinary, GoRuntime, open_binary
from ebpflab.display import cells, rich
from ebpflab.display.progress import Progress, notice
from ebpflab.errors import ProgramError, TargetError, WorkloadError
from ebpflab.program import Program
from ebpflab.protocol import messages
from ebpflab.targets import choose
from ebpflab.targets.features import HOSTING, features_frame
from ebpflab.transport.closing import Closing
from ebpflab.transport.connection import Connection
from ebpflab.usdt import USDT


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
    """True when it printed more than is kept (4 MiB of each), or what it started still prints."""


class Lab(Closing):
    """A machine to trace. Also a context manager; `close` detaches and ends everything.

    ``target`` is "auto" (the first of local, vm and replay that can do what the chapters need),
    "local", "vm", another machine as "ssh://user@host", or "replay", which plays the recording of
    the chapter that runs ("replay:01-kprobes" names one). The environment variable EBPFLAB_TARGET
    overrides "auto". Raises a TargetError that says what to do when no machine can be had.

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
                    now = messages.SetClock(realtime_ns=time.time_ns())
                    clock = self._connection.request(messages.SET_CLOCK, now).ok
                    hello["clock_offset_ns"] = clock["clock_offset_ns"]
            except BaseException:
                self.close()
                raise
        self.target, self.kernel, self.arch = chosen.name, hello["kernel"], hello["arch"]
        self.bcc_version: str = hello["bcc"]
        self.agent_pid: int = hello["pid"]
        self._hello = hello
        self._headers: str | None = None  # the release that they are of
        self._idents = itertools.count(1)
        self._programs: weakref.WeakSet[Program] = weakref.WeakSet()
        self._compile_seconds = 0.0  # of the last program that was compiled
        self.recording: messages.RecordingFacts | None = hello.get("recording")
        """Where nothing is traced: chapter, date and target of the recording that is played."""
        if why:
            notice(why)
        if self.recording is not None:
            notice(f"Nothing is traced: this is {self._described()}.")
        cells.adopt(self)

    @property
    def attrs(self) -> dict[str, object]:
        """Where data comes from; every DataFrame carries it in its ``attrs``.

        ``clock_offset_ns`` added to ``bpf_ktime_get_ns()`` is nanoseconds since 1970, UTC.
        """
        return {
            "target": self.target,
            "kernel": self.kernel,
            "arch": self.arch,
            "bcc": self.bcc_version,
            "clock_offset_ns": self._hello["clock_offset_ns"],
            **({"recorded": self.recording["date"]} if self.recording else {}),
        }

    def _described(self) -> str:
        """The machine in words, and when it was recorded."""
        machine = f"Linux {self.kernel} {self.arch}, BCC {self.bcc_version}"
        if self.recording is None:
            return machine
        return f"a recording of {machine}, made on {self.recording['date'][:10]}"

    # -- programs ----------------------------------------------------------------------------

    def load(
        self,
        source: str | Path,
        *,
        cflags: Sequence[str] = (),
        headers: str | None = None,
        usdt_contexts: Sequence[USDT] = (),
    ) -> Program:
        """Compile a BPF program: C text, or the path of a ``.c`` file.

        Running the same notebook cell again closes the program that it loaded before. The same
        text is not compiled twice in the life of a lab. ``headers`` names a kernel headers tree
        to use whatever it matches. The probes of ``usdt_contexts`` (`Lab.usdt`) are attached
        at once. Raises CompileError, HeadersError; AttachError, VerifierError for USDT probes.
        """
        cells.retire()
        text = _read_source(source)
        contexts = [usdt._wanted() for usdt in usdt_contexts]
        ident = next(self._idents)
        try:
            with Progress("Compiling the program") as progress:
                known = self._compile_seconds
                progress(f"clang, {known:.0f} s the last time" if known else "clang")
                asked = messages.Load(
                    program=ident,
                    source=text,
                    cflags=list(cflags),
                    headers=headers,
                    usdt_contexts=contexts,
                )
                answer = self._connection.request(messages.LOAD, asked, c_source=text)
            program = Program(self, self._connection, ident, text, answer, contexts)
            loaded = answer.ok
            if program.compiled and "compilation" in loaded:
                self._compile_seconds = loaded["compilation"]["seconds"]
        except BaseException:  # interrupted, it is loaded all the same, in a moment
            self._connection.tell(messages.CLOSE, messages.OfProgram(program=ident))
            raise
        self._programs.add(program)
        cells.adopt(program)
        if not loaded["headers"]["matching"] and not self._headers:
            notice(
                f"This kernel ({self.kernel}) has no headers of its own: borrowing those of"
                f" {loaded['headers']['headers']}, which is safe for uprobes and tracepoints."
            )
        self._headers = loaded["headers"]["headers"]
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
        command = [argv] if isinstance(argv, str) else [_word(each) for each in argv]
        if not isinstance(input, str):
            raise WorkloadError(f"input= is text (str), and is of type {type(input).__name__}.")

        def workload(started: messages.OfProcess) -> Workload:
            return Workload(self._connection, tuple(command), started["pid"])

        asked = messages.Start(argv=command, input=input, cwd=cwd, env=env)
        answer = self._connection.request(
            messages.START, asked, undo=lambda started: workload(started).kill()
        )
        return workload(answer.ok)

    # -- discovery ---------------------------------------------------------------------------

    def features(self) -> pd.DataFrame:
        """What the traced machine can do: feature, status (yes, no, unknown), reason, fix."""
        rows = self._connection.request(messages.FEATURES, messages.Nothing()).ok["features"]
        if "vm" in (self.target, self.recording and self.recording["target"]):
            rows = [row for row in rows if row["feature"] not in HOSTING]
        return features_frame(rows)

    def syscall_name(self, name: str) -> str:
        """The kernel function of a system call: "execve" -> "__x64_sys_execve"."""
        return self._connection.request(messages.SYSCALL_NAME, messages.ByName(name=name)).ok[
            "name"
        ]

    def kernel_functions(self, pattern: str = "*") -> list[str]:
        """Kernel functions that can be probed, by shell pattern: ``vfs_*``."""
        asked = messages.ByPattern(pattern=pattern)
        return self._connection.request(messages.KERNEL_FUNCTIONS, asked).ok["names"]

    def tracepoints(self, pattern: str = "*") -> list[str]:
        """Tracepoints as ``category:name``, by shell pattern: ``sched:*``."""
        asked = messages.ByPattern(pattern=pattern)
        return self._connection.request(messages.TRACEPOINTS, asked).ok["names"]

    def tracepoint_format(self, tp: str) -> str:
        """The fields of a tracepoint, as the kernel describes them."""
        return self._connection.request(
            messages.TRACEPOINT_FORMAT, messages.OfTracepoint(tp=tp)
        ).ok["format"]

    def symbols(self, path: str, pattern: str = "*") -> pd.DataFrame:
        """Function symbols of a program or library on the traced machine: symbol, address."""
        asked = messages.SymbolsOf(path=str(path), pattern=pattern)
        rows = self._connection.request(messages.SYMBOLS, asked).ok["symbols"]
        return pd.DataFrame(rows, columns=["symbol", "address"])

    def go_functions(self, path: str, pattern: str = "*") -> pd.DataFrame:
        """Functions of a Go program, by shell pattern: symbol, address, size_bytes.

        In a pattern, ``[`` begins a set of characters: write ``*`` for what is in brackets, as in
        ``main.Map*``. Raises UnknownEvent or AttachError where there is no Go program to read.

        >>> lab.go_functions(path, "main.*")                          # doctest: +SKIP
        """
        return self._go(path).frame(pattern)

    def go_runtime(self, path: str) -> GoRuntime:
        """The Go runtime in a program: its version, and what C needs to find the goroutine.

        >>> prog = lab.load(source, cflags=lab.go_runtime(path).cflags)   # doctest: +SKIP
        """
        return self._go(path).runtime()

    def _go(self, path: str) -> GoBinary:
        return GoBinary(open_binary(self._connection, str(path)))

    def usdt(self, path: str | Path | None = None, pid: int | None = None) -> USDT:
        """The USDT probes of a program or library, to be enabled and given to `load`.

        Of every process that uses it, now or later; with ``pid`` of that one alone. Raises
        UnknownEvent when the file is missing or has none; AttachError when the process does not
        use it.

        >>> usdt = lab.usdt("/opt/ebpflab/labs/usdt-c/usdt_loop")     # doctest: +SKIP
        >>> usdt.enable_probe(probe="step", fn_name="on_step")        # doctest: +SKIP
        >>> prog = lab.load(source, usdt_contexts=[usdt])             # doctest: +SKIP
        """
        return USDT(self._connection, str(path or ""), pid)

    def usdt_probes(self, path: str | Path) -> pd.DataFrame:
        """The USDT probes of a program or library, a row for each place where one can be hit.

        Columns: provider, probe, arguments (size, negative when signed, and where it is:
        ``-4@%edi``), semaphore (its address, 0 where there is none), address. No rows where
        the file has no probes. Raises UnknownEvent when it is missing.
        """
        rows = self._connection.request(messages.USDT_PROBES, messages.OfFile(path=str(path))).ok[
            "probes"
        ]
        return pd.DataFrame(
            rows, columns=["provider", "probe", "arguments", "semaphore", "address"]
        ).astype({"semaphore": "uint64", "address": "uint64"})

    # -- ending ------------------------------------------------------------------------------

    def close(self) -> None:
        """Detach everything, end the agent, and the guest if one was started."""
        self._finalizer()

    @property
    def closed(self) -> bool:
        return not self._finalizer.alive

    @property
    def lost(self) -> TargetError | None:
        """Why this lab cannot be asked any more, or None while it can."""
        return self._connection.lost

    def __repr__(self) -> str:
        headers = self._headers
        borrowed = f", borrowed headers of {headers}" if headers not in (None, self.kernel) else ""
        state = ", closed" if self.closed else ""
        return f"<Lab {self.target!r}: {self._described()}{borrowed}{state}>"

    def _repr_html_(self) -> str:
        """Which machine is traced, and which programs are there; for notebooks."""
        facts = [
            ("kernel", f"Linux {self.kernel} {self.arch}"),
            ("BCC", self.bcc_version),
            ("kernel headers", self._headers or ""),
        ]
        if self.recording is not None:
            facts.insert(0, ("recording", f"of {self.recording['date'][:10]}; nothing is traced"))
        card = rich.card(f"Lab {self.target!r}{', closed' if self.closed else ''}", facts)
        open_ones = [program for program in self._programs if not program.closed]
        rows = [(", ".join(p.functions), "; ".join(p.attached) or "-") for p in open_ones]
        return card + rich.table(["program", "attached"], rows)


class Workload:
    """A command that runs on the traced machine."""

    def __init__(self, connection: Connection, argv: tuple[str, ...], pid: int) -> None:
        self._connection, self.argv, self.pid = connection, argv, pid

    def wait(self) -> Completed:
        """Wait for its end. Interrupting the wait kills it."""
        try:
            answer = self._connection.request(messages.WAIT, messages.OfProcess(pid=self.pid))
        except KeyboardInterrupt:
            self.kill()
            raise
        ended = answer.ok
        split = ended["stdout_bytes"]
        stdout, stderr = (
            part.decode(errors="replace") for part in (answer.blob[:split], answer.blob[split:])
        )
        return Completed(
            self.argv, self.pid, ended["returncode"], stdout, stderr, ended["truncated"]
        )

    def kill(self) -> None:
        """End it with SIGKILL, and wait for nothing. Where it has ended, nothing happens."""
        self._connection.tell(messages.STOP, messages.Stop(pid=self.pid, signal=signal.SIGKILL))

    def stop(self) -> Completed:
        """End it with SIGTERM and wait for its end."""
        self._connection.request(messages.STOP, messages.Stop(pid=self.pid, signal=signal.SIGTERM))
        return self.wait()

    def __repr__(self) -> str:
        return f"<Workload {self.pid}: {' '.join(self.argv)}>"


def _word(given: object) -> str:
    """One word of a command: a string, or a path."""
    if isinstance(given, str | Path):
        return str(given)
    raise WorkloadError(
        "A command is a list of strings, the program first, and this one has"
        f" {given!r}, of type {type(given).__name__}: write {_unquoted(given)!r}."
    )


def _unquoted(given: object) -> str:
    return given.decode(errors="replace") if isinstance(given, bytes) else str(given)


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
