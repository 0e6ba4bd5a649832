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

from ebpflab import arguments
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
    """A command that has ended on the traced machine.

    Returned by `Lab.run`, `Workload.wait` and `Workload.stop`. ``stdout`` and ``stderr`` are text;
    bytes that are not UTF-8 become U+FFFD.

    >>> done = lab.run(["/bin/ls", "-l", "/"])
    >>> done.argv, done.returncode, done.truncated
    (('/bin/ls', '-l', '/'), 0, False)
    """

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
    overrides "auto".

    Raises TargetError when no machine can be had, with what to do; RecordingError when there is no
    such recording. Once the lab is closed or its agent has ended, requests raise a TargetError,
    such as ConnectionLost. A recording raises NotRecorded for what was not asked when it was made.

    >>> with Lab("replay:01-kprobes") as lab:
    ...     lab.kernel, lab.arch
    Nothing is traced: this is a recording of Linux 6.12...
    ('6.12.118+deb13-cloud-amd64', 'x86_64')
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

        Keys: target, kernel, arch, bcc, clock_offset_ns, and, of a recording, recorded (its date).
        ``clock_offset_ns`` added to ``bpf_ktime_get_ns()`` is nanoseconds since 1970, UTC.

        >>> lab.attrs["kernel"], lab.attrs["bcc"]
        ('6.12.118+deb13-cloud-amd64', '0.31.0')
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
        """Compile a BPF program and return it as a `Program`.

        ``source`` is C text, or the path of a ``.c`` file. ``cflags`` are further flags of clang:
        macros (``-DPID=1``), folders of headers (``-I``), warnings, the dialect. ``headers`` is the
        path of a kernel headers tree to use, whatever it matches. The probes of ``usdt_contexts``
        (`Lab.usdt`) are attached at once, as are functions whose name says where
        (``TRACEPOINT_PROBE``, ``KFUNC_PROBE``, ``kprobe__...``).

        Running the same notebook cell again closes the program that it loaded before. The same text
        is not compiled twice in the life of a lab.

        Raises CompileError with the line of your C; HeadersError when kernel headers are missing;
        ProgramError when there is no C to compile, for other flags, and when the kernel cannot make
        a map. For what attaches at once: UnknownEvent, AttachError, VerifierError.

        >>> lab.load(source).functions
        ['syscall__execve']
        """
        cells.retire()
        text = _read_source(source)
        if isinstance(cflags, str):
            raise ProgramError(
                f"cflags= is a list of clang's options, and is the text {cflags!r}. Write"
                f" cflags={cflags.split()}."
            )
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

        ``argv`` is a list of strings or paths, the program first; no shell reads it. ``input`` is
        the text of its standard input, ``cwd`` its folder, and ``env`` is added to its environment.
        Returns a `Completed`. Interrupting the notebook kernel kills the command. Raises
        WorkloadError when it cannot start, or when ``argv`` or ``input`` is of another type.

        >>> lab.run(["/bin/ls", "-l", "/"]).returncode
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
        """Start a command on the traced machine and return at once.

        Parameters and exceptions are those of `run`. Returns a `Workload`, with the process id in
        ``pid``. The command is killed when the lab is closed.

        >>> lab.start(["/usr/bin/python3", "-c", writer]).pid
        407
        """
        command = [argv] if isinstance(argv, str) else [_word(each) for each in argv]
        if not isinstance(input, str):
            raise WorkloadError(f"input= is text (str), and is of type {type(input).__name__}.")
        cwd = None if cwd is None else arguments.path("cwd", cwd)
        env = arguments.environment(env)

        def workload(started: messages.OfProcess) -> Workload:
            return Workload(self._connection, tuple(command), started["pid"])

        asked = messages.Start(argv=command, input=input, cwd=cwd, env=env)
        answer = self._connection.request(
            messages.START, asked, undo=lambda started: workload(started).kill()
        )
        return workload(answer.ok)

    # -- discovery ---------------------------------------------------------------------------

    def features(self) -> pd.DataFrame:
        """Return what the traced machine can do, a row for each feature.

        Columns, all text: feature; status, a categorical of "yes", "no" and "unknown"; reason; fix,
        which is empty where nothing has to be done.

        >>> lab.features().set_index("feature").loc[["BTF", "kprobes"], "status"].to_dict()
        {'BTF': 'yes', 'kprobes': 'yes'}
        """
        rows = self._connection.request(messages.FEATURES, messages.Nothing()).ok["features"]
        if "vm" in (self.target, self.recording and self.recording["target"]):
            rows = [row for row in rows if row["feature"] not in HOSTING]
        return features_frame(rows)

    def syscall_name(self, name: str) -> str:
        """Return the kernel function of the system call ``name``.

        Raises UnknownEvent, with the closest names. Source: Linux 4.17, commit fa697140f9a2, since
        when the function's name begins with the architecture.

        >>> lab.syscall_name("execve")
        '__x64_sys_execve'
        """
        return self._connection.request(messages.SYSCALL_NAME, messages.ByName(name=name)).ok[
            "name"
        ]

    def kernel_functions(self, pattern: str = "*") -> list[str]:
        """Return the names of kernel functions that can be probed, sorted.

        ``pattern`` is a shell pattern, such as ``vfs_*``. Source: ``available_filter_functions`` of
        tracefs (Documentation/trace/ftrace.rst), or /proc/kallsyms where that is missing.

        >>> lab.kernel_functions("*sys_execve*")[-2:]
        ['__x64_sys_execve', '__x64_sys_execveat']
        """
        asked = messages.ByPattern(pattern=pattern)
        return self._connection.request(messages.KERNEL_FUNCTIONS, asked).ok["names"]

    def tracepoints(self, pattern: str = "*") -> list[str]:
        """Return the tracepoints of the kernel as ``category:name``, sorted.

        ``pattern`` is a shell pattern of the whole name, such as ``sched:*``. Raises AttachError
        where tracefs is not mounted.

        >>> lab.tracepoints("sched:sched_process_*")[:2]
        ['sched:sched_process_exec', 'sched:sched_process_exit']
        """
        asked = messages.ByPattern(pattern=pattern)
        return self._connection.request(messages.TRACEPOINTS, asked).ok["names"]

    def tracepoint_format(self, tp: str) -> str:
        """Return the fields of a tracepoint, as the text of its ``format`` file in tracefs.

        ``tp`` is ``category:name``. Raises UnknownEvent, with the closest names; AttachError where
        tracefs is not mounted. Source: Documentation/trace/events.rst.

        >>> print(lab.tracepoint_format("syscalls:sys_enter_bpf"))
        name: sys_enter_bpf
        ID: 559
        format:
        ...
        """
        return self._connection.request(
            messages.TRACEPOINT_FORMAT, messages.OfTracepoint(tp=tp)
        ).ok["format"]

    def symbols(self, path: str, pattern: str = "*") -> pd.DataFrame:
        """Return the function symbols of a program or library on the traced machine.

        ``path`` is a path, or a library's short name such as "c"; ``pattern`` is a shell pattern.
        Columns: symbol (text, sorted), address (int64, as linked). No rows where the file names no
        functions. Raises UnknownEvent when there is no such file.

        >>> lab.symbols(path, "main.*").head(2)
                  symbol  address
        0  main.checksum  4851072
        1      main.deep  4851168
        """
        asked = messages.SymbolsOf(path=str(path), pattern=pattern)
        rows = self._connection.request(messages.SYMBOLS, asked).ok["symbols"]
        return pd.DataFrame(rows, columns=["symbol", "address"])

    def go_functions(self, path: str, pattern: str = "*") -> pd.DataFrame:
        """Return the functions of a Go program, by address.

        ``path`` is the program, ``pattern`` a shell pattern. In a pattern, ``[`` begins a set of
        characters: write ``*`` for what is in brackets, as in ``main.Map*``. Columns: symbol
        (text), address (int64, as linked), size_bytes (int64). Raises UnknownEvent when there is no
        such file; AttachError when it is not a Go program, or is stripped.

        >>> lab.go_functions(path, "main.[dk]*")
               symbol  address  size_bytes
        0  main.known  4851008          36
        1   main.deep  4851168         187
        """
        return self._go(path).frame(pattern)

    def go_runtime(self, path: str) -> GoRuntime:
        """Return the Go runtime in a program: its version, and what C needs to find the goroutine.

        ``path`` is the program. Returns a `GoRuntime`. Raises UnknownEvent when there is no such
        file, AttachError when it is not a Go program.

        >>> lab.go_runtime(path)
        GoRuntime(version='go1.24.4', machine='x86_64', goid_offset=160)
        >>> prog = lab.load(source, cflags=lab.go_runtime(path).cflags)
        """
        return self._go(path).runtime()

    def _go(self, path: str) -> GoBinary:
        return GoBinary(open_binary(self._connection, str(path)))

    def usdt(self, path: str | Path | None = None, pid: int | None = None) -> USDT:
        """Return the USDT probes of a program or library, to be enabled and given to `load`.

        ``path`` is the file, probed in every process that uses it, now or later. ``pid`` limits
        that to one process; without ``path``, it is the program that this process runs.

        Raises UnknownEvent when the file is missing or has no probes; AttachError when there is no
        such process, or it does not use the file; ProgramError when neither is given.

        >>> usdt = lab.usdt("/opt/ebpflab/labs/usdt-c/usdt_loop")
        >>> usdt.enable_probe(probe="usdt_loop:step", fn_name="on_step")
        >>> prog = lab.load(source, usdt_contexts=[usdt])
        """
        pid = None if pid is None else arguments.process("pid", pid)
        return USDT(self._connection, arguments.path("path", path or ""), pid)

    def usdt_probes(self, path: str | Path) -> pd.DataFrame:
        """Return the USDT probes of a program or library, a row for each place of a probe.

        ``path`` is the file. Columns: provider, probe, arguments (text: each one's size in bytes,
        negative when signed, and where it is, as in ``-4@%edi``), semaphore (uint64: its address, 0
        where there is none), address (uint64). No rows where the file has no probes. Raises
        UnknownEvent when it is missing.

        >>> lab.usdt_probes(path)[["provider", "probe", "arguments"]]
            provider probe                       arguments
        0  usdt_loop  step  -4@%edx 8@(%rdi,%rax,8) 8@%rcx
        1  usdt_loop  done                         -4@%ebx
        """
        rows = self._connection.request(messages.USDT_PROBES, messages.OfFile(path=str(path))).ok[
            "probes"
        ]
        return pd.DataFrame(
            rows, columns=["provider", "probe", "arguments", "semaphore", "address"]
        ).astype({"semaphore": "uint64", "address": "uint64"})

    # -- ending ------------------------------------------------------------------------------

    def close(self) -> None:
        """Detach everything, end the agent, and the guest if one was started.

        May be called twice. Rows that have arrived stay readable.

        >>> lab.close()
        >>> lab.closed, len(prog["starts"].frame())
        (True, 0)
        """
        self._finalizer()

    @property
    def closed(self) -> bool:
        """Whether the lab was closed.

        >>> lab.closed
        False
        """
        return not self._finalizer.alive

    @property
    def lost(self) -> TargetError | None:
        """The TargetError that ended this lab, or None while it can be used.

        >>> lab.lost is None
        True
        >>> lab.close()
        >>> print(lab.lost)
        This lab is closed. Make a new one with Lab().
        """
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
    """A command that runs on the traced machine; made by `Lab.start`.

    ``argv`` is the command, ``pid`` its process id there.

    >>> workload = lab.start(["/usr/bin/python3", "-c", writer])
    >>> workload.stop().returncode
    -15
    """

    def __init__(self, connection: Connection, argv: tuple[str, ...], pid: int) -> None:
        self._connection, self.argv, self.pid = connection, argv, pid
        self._completed: Completed | None = None

    def wait(self) -> Completed:
        """Wait for the command's end and return it as a `Completed`.

        Interrupting the wait kills the command. Waiting again returns the same.

        >>> lab.start(["/bin/ls", "-l", "/"]).wait().returncode
        0
        """
        if self._completed is not None:
            return self._completed
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
        self._completed = Completed(
            self.argv, self.pid, ended["returncode"], stdout, stderr, ended["truncated"]
        )
        return self._completed

    def kill(self) -> None:
        """Send SIGKILL to the command and its process group, and return at once.

        Nothing happens where the command has ended.

        >>> workload.kill()
        """
        self._connection.tell(messages.STOP, messages.Stop(pid=self.pid, signal=signal.SIGKILL))

    def stop(self) -> Completed:
        """Send SIGTERM to the command and its process group, and wait for the command's end.

        Returns a `Completed`, whose ``returncode`` is -15 where the signal ended it; where the
        command has ended before, that of then. Source: signal(7).

        >>> workload.stop().returncode
        -15
        """
        if self._completed is None:
            asked = messages.Stop(pid=self.pid, signal=signal.SIGTERM)
            self._connection.request(messages.STOP, asked)
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
            return path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            raise ProgramError(
                f"The C file {str(path)!r} is not UTF-8: byte {error.object[error.start]:#x} in"
                f" line {line} is no character of it. Save it as UTF-8."
            ) from None
        except OSError as error:
            raise ProgramError(f"Cannot read the C file {str(path)!r}: {error.strerror}.") from None
    if not source.strip():
        raise ProgramError("The C program is empty.")
    return source
