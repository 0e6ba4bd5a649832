"""Commands run on the traced machine: ``lab.run`` and ``lab.start``.

Each has a thread that starts it, feeds it, reads what it prints and notes its end. What it has
started itself may go on, with its pipes; those are attended to for as long. A workload dies
with the agent: it is asked to (``PR_SET_PDEATHSIG``, prctl(2)), and its whole process group is
killed when the session ends in an orderly way. Where memory runs out, workloads go before the
agent. Under sudo a workload runs as the user who called sudo, not as root.
"""

import ctypes as ct
import errno
import fcntl
import os
import pwd
import selectors
import signal
import subprocess
import termios
import threading
import time
from functools import partial
from typing import IO, Any, Callable, Dict, List, NamedTuple, Optional, Tuple

from ebpflab.agent.faults import Fault
from ebpflab.protocol import messages

MAX_OUTPUT_BYTES = 4 << 20
_PIPE_BYTES = 64 << 10
_LATE_SECONDS = 1.0  # for what a command has started, to say the last of it
_PR_SET_PDEATHSIG = 1
_OOM_SCORE_ADJ = b"500"  # counts as half of the machine's memory: proc_pid_oom_score_adj(5)
_libc = ct.CDLL(None)


def _die_with_agent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _let_go_before_agent(pid: int) -> None:
    """Not in the child before exec: probes would count its open and write as the workload's."""
    try:
        with open(f"/proc/{pid}/oom_score_adj", "wb") as file:
            file.write(_OOM_SCORE_ADJ)
    except OSError:
        pass  # it has ended already


class _User(NamedTuple):
    """Popen's arguments for who a process is; None: who we are."""

    user: Optional[int] = None
    group: Optional[int] = None
    extra_groups: Optional[List[int]] = None


def _ordinary_user() -> _User:
    """The user who called sudo, where the agent got root through it."""
    if os.geteuid() != 0 or "SUDO_UID" not in os.environ:
        return _User()
    uid, gid = int(os.environ["SUDO_UID"]), int(os.environ["SUDO_GID"])
    name = os.environ.get("SUDO_USER", "")
    return _User(uid, gid, os.getgrouplist(name, gid) if name else [])


def _environment(user: Optional[int]) -> Dict[str, str]:
    """Our own, which is root's, but for what says who and where the user is."""
    known = {**os.environ, "PATH": os.environ.get("PATH") or os.defpath}
    if user is not None:
        try:
            entry = pwd.getpwuid(user)
            home, name = entry.pw_dir, entry.pw_name
        except KeyError:  # of a directory service that does not answer, say
            home, name = "/", os.environ.get("SUDO_USER", str(user))
        known.update(HOME=home, USER=name, LOGNAME=name)
    return known


def _unread_bytes(pipe: "IO[bytes]") -> int:
    size = ct.c_int()
    fcntl.ioctl(pipe, termios.FIONREAD, size)
    return size.value


class Workload(threading.Thread):
    """One command. ``pid`` is known once ``begin`` has returned, the result once it ``ended``."""

    def __init__(self, argv: List[str], stdin: bytes, cwd: Optional[str], env: Dict[str, str]):
        super().__init__(name=f"workload {argv[0]}", daemon=True)
        self._argv, self._unfed, self._cwd = argv, memoryview(stdin), cwd
        self._user = _ordinary_user()
        self._env = {**_environment(self._user.user), **env}
        self._spawned = threading.Event()
        self._error: Optional[OSError] = None
        self._process: "Optional[subprocess.Popen[bytes]]" = None
        self._output: Dict[str, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}
        self._truncated = self._cut = False
        self._late_after: Optional[float] = None
        self.ended = threading.Event()

    def begin(self) -> int:
        self.start()
        self._spawned.wait()
        if self._error is not None:
            raise Fault("WorkloadError", self._why(self._error), argv=self._argv)
        assert self._process is not None
        return self._process.pid

    def _why(self, error: OSError) -> str:
        command, what = self._argv[0], error.strerror or str(error)
        if self._cwd and error.filename == self._cwd:
            return f"Could not start {command!r} in the folder {self._cwd!r}: {what}."
        text = f"Could not start {command!r} on the traced machine: {what}."
        if error.errno == errno.ENOENT and len(self._argv) == 1 and " " in command:
            return f"{text} A command is a list of words: {command.split()}."
        if error.errno == errno.ENOENT and "/" not in command:
            return f"{text} It is in none of the folders of PATH ({self._env['PATH']})."
        if error.errno == errno.EACCES:
            return f"{text} It is a folder, or a file that is not marked as a program (chmod +x)."
        return text

    def run(self) -> None:
        # This thread starts the process and lives until it has ended: the kernel sends the
        # parent-death signal when the *thread* that forked ends (prctl(2)).
        try:
            self._process = subprocess.Popen(
                self._argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=self._cwd,
                env=self._env,
                start_new_session=True,
                preexec_fn=_die_with_agent,
                user=self._user.user,
                group=self._user.group,
                extra_groups=self._user.extra_groups,
            )
            _let_go_before_agent(self._process.pid)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            self._error = error if isinstance(error, OSError) else OSError(str(error))
            return
        finally:
            self._spawned.set()
        try:
            self._attend(self._process)
        finally:
            self.ended.set()

    def _attend(self, process: "subprocess.Popen[bytes]") -> None:
        """Feed the command and read what it prints, until nobody has its pipes any more."""
        assert process.stdin is not None
        os.set_blocking(process.stdin.fileno(), False)
        # Its end has a descriptor, too: others may hold its pipes, and never use them.
        ends = os.pidfd_open(process.pid)
        with selectors.DefaultSelector() as events, open(ends, "rb", 0) as end:
            events.register(end, selectors.EVENT_READ, self._note_end)
            events.register(process.stdin, selectors.EVENT_WRITE, self._feed)
            for name, pipe in self._open_pipes():
                events.register(pipe, selectors.EVENT_READ, partial(self._read, name))
            while events.get_map():
                ready = events.select(self._patience_seconds())
                # Its end comes last: what the others have to read is then read as well.
                for key, _ in sorted(ready, key=lambda each: each[0].fileobj is end):
                    file: Any = key.fileobj
                    if not key.data(file):
                        events.unregister(file)
                        file.close()
                self._tell_end()

    def _open_pipes(self) -> "List[Tuple[str, IO[bytes]]]":
        """What it prints into, as far as somebody still has it."""
        pipes = [(name, getattr(self._process, name)) for name in self._output]
        return [(name, pipe) for name, pipe in pipes if not pipe.closed]

    def _patience_seconds(self) -> Optional[float]:
        if self._late_after is None or self.ended.is_set():
            return None
        return max(self._late_after - time.monotonic(), 0)

    def _tell_end(self) -> None:
        """Set ``ended`` when all is said, or when it is late for those that it has started."""
        if self._late_after is None:
            return
        pipes = self._open_pipes()
        if not pipes:
            self._cut = False
        elif self.ended.is_set() or time.monotonic() < self._late_after:
            return
        else:
            self._cut = any(_unread_bytes(pipe) for _, pipe in pipes)
        self.ended.set()

    # Each of these attends to one file, and tells whether it has to be attended to again.

    def _note_end(self, _: object) -> bool:
        assert self._process is not None
        self._process.wait()
        for name, pipe in self._open_pipes():  # all of its own, however late we are
            left = _unread_bytes(pipe)
            while left > 0:
                left -= self._read(name, pipe)
        self._late_after = time.monotonic() + _LATE_SECONDS
        return False

    def _feed(self, pipe: "IO[bytes]") -> bool:
        try:
            self._unfed = self._unfed[os.write(pipe.fileno(), self._unfed[:_PIPE_BYTES]) :]
        except BlockingIOError:
            return True
        except BrokenPipeError:
            return False  # it did not read its input
        return len(self._unfed) > 0

    def _read(self, name: str, pipe: "IO[bytes]") -> int:
        data, kept = os.read(pipe.fileno(), _PIPE_BYTES), self._output[name]
        room = MAX_OUTPUT_BYTES - len(kept)
        kept += data[:room]
        self._truncated |= len(data) > room
        return len(data)

    def result(self) -> Tuple[messages.Ended, bytes]:
        """What is known of the end, and stdout followed by stderr."""
        assert self._process is not None
        stdout, stderr = bytes(self._output["stdout"]), bytes(self._output["stderr"])
        told: messages.Ended = {
            "pid": self._process.pid,
            "returncode": self._process.returncode,
            "stdout_bytes": len(stdout),
            "truncated": self._truncated or self._cut,
        }
        return told, stdout + stderr

    def stop(self, signum: int) -> None:
        """Send a signal to the command and all that it started."""
        if self._process is not None and not self.ended.is_set():
            try:
                os.killpg(self._process.pid, signum)
            except ProcessLookupError:
                pass


class Workloads:
    """Every command of a session, by process id."""

    def __init__(self) -> None:
        self._all: Dict[int, Workload] = {}

    @property
    def pids(self) -> List[int]:
        """The commands whose end has not been waited for."""
        return list(self._all)

    def start(self, request: messages.Start) -> int:
        argv = request["argv"]
        if not argv or not all(isinstance(word, str) for word in argv):
            raise Fault("WorkloadError", "A command is a list of strings, the program first.")
        workload = Workload(
            argv, request.get("input", "").encode(), request.get("cwd"), request.get("env") or {}
        )
        pid = workload.begin()
        self._all[pid] = workload
        return pid

    def wait(self, pid: int, then: Callable[[messages.Ended, bytes], None]) -> None:
        """Call ``then`` with the result once the command has ended."""
        workload = self._get(pid)

        def wait() -> None:
            workload.ended.wait()
            self._all.pop(pid, None)
            then(*workload.result())

        threading.Thread(target=wait, name=f"wait {pid}", daemon=True).start()

    def stop(self, pid: int, signum: int) -> None:
        self._get(pid).stop(signum)

    def _get(self, pid: int) -> Workload:
        workload = self._all.get(pid)
        if workload is None:
            raise Fault("WorkloadError", f"No command with process id {pid} is running here.")
        return workload

    def close(self) -> None:
        for workload in list(self._all.values()):
            workload.stop(signal.SIGKILL)
