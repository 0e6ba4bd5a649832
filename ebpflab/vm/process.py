"""Other programs: finding them, and running them so that nothing of them can be left behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ebpflab.errors import MissingTool

PACKAGE_OF = {
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-system-aarch64": "qemu-system-arm",
    "qemu-img": "qemu-utils",
    "mmdebstrap": "mmdebstrap",
    "mke2fs": "e2fsprogs",
    "debugfs": "e2fsprogs",
    "newuidmap": "uidmap",
    "unshare": "util-linux",
    "ssh-keygen": "openssh-client",
}
"""The Debian and Ubuntu package of each program that is run."""

_KEEPER = Path(__file__).with_name("keeper.py")


def find(program: str) -> str | None:
    """The path of a program; also where ordinary users of Debian have no PATH to."""
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def need(purpose: str, *programs: str) -> list[str]:
    """The paths of ``programs``, or MissingTool naming every package that lacks."""
    found = {program: find(program) for program in programs}
    lacking = [program for program, path in found.items() if path is None]
    if lacking:
        raise missing(purpose, lacking, (PACKAGE_OF[program] for program in lacking))
    return [path for path in found.values() if path is not None]


def missing(purpose: str, what: Sequence[str], packages: Iterable[str]) -> MissingTool:
    """The error that says what to install."""
    names = " ".join(dict.fromkeys(packages))
    verb = "is" if len(what) == 1 else "are"
    return MissingTool(
        f"{purpose} needs {', '.join(what)}, which {verb} not installed. "
        f"On Debian or Ubuntu: sudo apt install {names}",
        packages=names.split(),
    )


def start(
    command: Sequence[str],
    *,
    inherit: Sequence[int] = (),
    output: int,
    error: int,
    env: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start ``command`` under a keeper, so that it ends when this process does.

    The descriptors of ``inherit`` keep their numbers in the command. The process returned is
    the keeper; it ends as the command ends.
    """
    owner = os.pidfd_open(os.getpid())
    try:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", str(_KEEPER), str(owner), *command],
            pass_fds=[owner, *inherit],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=error,
            env=env,
            cwd="/",  # ours may be closed to the user that a namespace makes of the command
            umask=0o022,  # ours would end up in the guest's tree
            start_new_session=True,
        )
    finally:
        os.close(owner)


def kill(keeper: subprocess.Popen[bytes]) -> None:
    """End a keeper, its command and all that the command started. May be called twice."""
    if keeper.poll() is None:
        os.killpg(keeper.pid, signal.SIGKILL)
        keeper.wait()


def as_tree_owner() -> list[str]:
    """The command that runs another as the owner of root trees: for an ordinary user, root of
    the namespace in which mmdebstrap had made them."""
    if os.geteuid() == 0:
        return []
    return [*need("Building the guest", "mmdebstrap"), "--unshare-helper"]


def empty_tree(tree: Path) -> list[str]:
    """The command that removes all in ``tree`` and nothing that may be mounted there."""
    return [*as_tree_owner(), "find", str(tree), "-mount", "-mindepth", "1", "-delete"]


def run_quietly(command: Sequence[str]) -> None:
    """Run a helper of which neither the output nor the success matters."""
    subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        cwd="/",
        start_new_session=True,
        check=False,
    )
