"""The local target: an agent as a child process, tracing this machine's own kernel.

As root the agent is started directly, by the system's ``/usr/bin/python3``, which is where the
distribution puts BCC. As an ordinary user it is started through ``sudo -n``, which never asks: the
user's own rule for everything, or the one that ``ebpflab setup-sudo`` writes for a root-owned copy
of the agent.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from ebpflab import agent
from ebpflab.errors import BccMissing, NeedsRoot, TargetError
from ebpflab.sudo import installed_starter
from ebpflab.targets.base import Progress, Target, Transport
from ebpflab.targets.child import ChildTransport

SYSTEM_PYTHON = "/usr/bin/python3"


class LocalTransport(ChildTransport):
    """An agent that is our child."""

    def __init__(self, command: list[str]) -> None:
        # PATH alone: nothing of a virtual environment or of PYTHON* variables goes to root.
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
        super().__init__(command, environment, cwd="/")

    def post_mortem(self) -> str:
        code = self.ending()
        if code is None:
            return "The agent closed its output and still runs."
        how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
        last = self.said()[-3:]
        return f"The agent {how}." + (f" It said last: {' '.join(last)}" if last else "")


def _sudo_allows(command: list[str]) -> bool:
    """True when sudo would run ``command`` without asking (``sudo -n -l``, sudo(8))."""
    sudo = shutil.which("sudo")
    if sudo is None:
        return False
    asked = subprocess.run([sudo, "-n", "-l", *command], capture_output=True, check=False)
    return asked.returncode == 0


class LocalTarget(Target):
    """This machine."""

    name = "local"

    def command(self) -> list[str] | None:
        """How to start the agent as root here; None when there is no way."""
        ours = Path(agent.__file__).parent
        if os.geteuid() == 0:
            return [SYSTEM_PYTHON, "-I", "-B", str(ours)]
        starter = installed_starter()
        commands = [[str(starter)]] if starter else []
        for command in (*commands, [SYSTEM_PYTHON, "-I", "-B", str(ours)]):
            if _sudo_allows(command):
                return ["sudo", "-n", *command]
        return None

    def unavailable(self) -> str | None:
        if sys.platform != "linux":
            return "this is not Linux, so there is no BPF; use Lab('vm')"
        if not Path(SYSTEM_PYTHON).exists():
            return f"there is no {SYSTEM_PYTHON}, where distributions install BCC"
        if self.command() is None:
            return (
                "tracing this kernel needs root, and sudo would ask for a password; run"
                " `sudo ebpflab setup-sudo` once, or use Lab('vm'), which needs no root"
            )
        return None

    def connect(self, progress: Progress) -> Transport:
        progress("starting the agent")
        reason = self.unavailable()
        command = self.command()
        if reason is not None or command is None:
            kind = NeedsRoot if reason and "root" in reason else TargetError
            raise kind(f"Cannot trace this machine: {reason}.")
        found = subprocess.run(
            [SYSTEM_PYTHON, "-I", "-c", "import importlib.util as u; exit(not u.find_spec('bcc'))"],
            check=False,
        )
        if found.returncode != 0:
            raise BccMissing(
                f"Cannot trace this machine: its {SYSTEM_PYTHON} has no module bcc. Install it"
                " with `sudo apt-get install python3-bpfcc` (PyPI's `bcc` is something else)."
            )
        return LocalTransport(command)
