"""The local target: an agent as a child process, tracing this machine's own kernel.

The system's ``/usr/bin/python3``, which is where the distribution puts BCC, gets the agent over its
standard input, as on another machine. For an ordinary user it is started through ``sudo -n``, which
never asks: by the user's own rule for everything, or by the one that ``ebpflab setup-sudo`` writes
for a root-owned copy of the agent.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from ebpflab.errors import BccMissing, NeedsRoot, TargetError
from ebpflab.targets.child import ChildTransport
from ebpflab.targets.sudo import installed_starter
from ebpflab.transport import archive
from ebpflab.transport.base import OnStep, Target, Transport

SYSTEM_PYTHON = "/usr/bin/python3"
_START_SECONDS = 60.0


class Start(NamedTuple):
    """A command that starts the agent, and whether it has to be sent the agent."""

    command: list[str]
    sends: bool


class LocalTransport(ChildTransport):
    """An agent that is our child."""

    def __init__(self, start: Start) -> None:
        # PATH alone: nothing of a virtual environment or of PYTHON* variables goes to root.
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
        super().__init__(start.command, environment, cwd="/")
        if start.sends:
            # What goes wrong is seen at once: the hello does not come.
            self.deliver(archive.agent_parcel(), _START_SECONDS)

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

    def start(self) -> Start | None:
        """How to start the agent as root here; None when there is no way."""
        bootstrap = [SYSTEM_PYTHON, "-I", "-B", "-c", archive.bootstrap_source()]
        if os.geteuid() == 0:
            return Start(bootstrap, sends=True)
        starter = installed_starter()
        if starter and _sudo_allows([str(starter)]):
            return Start(["sudo", "-n", str(starter)], sends=False)
        if _sudo_allows(bootstrap):
            return Start(["sudo", "-n", *bootstrap], sends=True)
        return None

    def unavailable(self) -> str | None:
        if sys.platform != "linux":
            return "this is not Linux, so there is no BPF; use Lab('vm')"
        if not Path(SYSTEM_PYTHON).exists():
            return f"there is no {SYSTEM_PYTHON}, where distributions install BCC"
        if self.start() is None:
            return (
                "tracing this kernel needs root, and sudo would ask for a password; run"
                " `sudo ebpflab setup-sudo` once, or use Lab('vm'), which needs no root"
            )
        return None

    def connect(self, progress: OnStep) -> Transport:
        progress("starting the agent")
        reason = self.unavailable()
        start = self.start()
        if reason is not None or start is None:
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
        return LocalTransport(start)
