"""Commands run on the traced machine: ``lab.run`` and ``lab.start``.

Each has a thread that starts it, reads what it prints and waits for its end. A workload dies
with the agent: it is asked to (``PR_SET_PDEATHSIG``, prctl(2)), and its whole process group is
killed when the session ends in an orderly way. Where memory runs out, workloads go before the
agent. Under sudo a workload runs as the user who called sudo, not as root.
"""

import ctypes as ct
import errno
import os
import signal
import subprocess
import threading
from typing import Any, Callable, Dict, List, Optional, Tuple

from faults import Fault

MAX_OUTPUT_BYTES = 4 << 20
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


def _ordinary_user() -> Dict[str, Any]:
    """Popen arguments that give up root when the agent got it through sudo."""
    if os.geteuid() != 0 or "SUDO_UID" not in os.environ:
        return {}
    uid, gid = int(os.environ["SUDO_UID"]), int(os.environ["SUDO_GID"])
    name = os.environ.get("SUDO_USER", "")
    return {"user": uid, "group": gid, "extra_groups": os.getgrouplist(name, gid) if name else []}


class Workload(threading.Thread):
    """One command. ``pid`` is known once ``begin`` has returned."""

    def __init__(self, argv: List[str], stdin: bytes, cwd: Optional[str], env: Dict[str, str]):
        super().__init__(name=f"workload {argv[0]}", daemon=True)
        self._argv, self._stdin, self._cwd = argv, stdin, cwd
        self._env = {**os.environ, "PATH": os.environ.get("PATH") or os.defpath, **env}
        self._spawned = threading.Event()
        self._error: Optional[OSError] = None
        self._process: "Optional[subprocess.Popen[bytes]]" = None
        self._output: Dict[str, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}
        self._truncated = False

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
                **_ordinary_user(),
            )
            _let_go_before_agent(self._process.pid)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            self._error = error if isinstance(error, OSError) else OSError(str(error))
            return
        finally:
            self._spawned.set()
        readers = [
            threading.Thread(target=self._read, args=(name,), daemon=True) for name in self._output
        ]
        for reader in readers:
            reader.start()
        self._feed()
        self._process.wait()
        for reader in readers:
            reader.join(1)  # a grandchild may keep the pipe open for ever

    def _feed(self) -> None:
        assert self._process is not None and self._process.stdin is not None
        try:
            self._process.stdin.write(self._stdin)
            self._process.stdin.close()
        except BrokenPipeError:
            pass  # it did not read its input

    def _read(self, name: str) -> None:
        pipe, kept = getattr(self._process, name), self._output[name]
        with pipe:  # closed at its end: nobody may ever wait for this command
            while True:
                data = os.read(pipe.fileno(), 64 << 10)
                if not data:
                    return
                room = MAX_OUTPUT_BYTES - len(kept)
                kept += data[:room]
                self._truncated |= len(data) > room

    def result(self) -> Tuple[Dict[str, Any], bytes]:
        """What is known of the end, and stdout followed by stderr."""
        assert self._process is not None
        stdout, stderr = bytes(self._output["stdout"]), bytes(self._output["stderr"])
        told = {
            "pid": self._process.pid,
            "returncode": self._process.returncode,
            "stdout_bytes": len(stdout),
            "truncated": self._truncated,
        }
        return told, stdout + stderr

    def stop(self, signum: int) -> None:
        """Send a signal to the command and all that it started."""
        if self._process is not None and self.is_alive():
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

    def start(self, request: Dict[str, Any]) -> int:
        argv = request["argv"]
        if not argv or not all(isinstance(word, str) for word in argv):
            raise Fault("WorkloadError", "A command is a list of strings, the program first.")
        workload = Workload(
            argv, request.get("input", "").encode(), request.get("cwd"), request.get("env") or {}
        )
        pid = workload.begin()
        self._all[pid] = workload
        return pid

    def wait(self, pid: int, then: Callable[[Dict[str, Any], bytes], None]) -> None:
        """Call ``then`` with the result once the command has ended."""
        workload = self._get(pid)

        def wait() -> None:
            workload.join()
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
