"""An sshd of our own on loopback, with keys of its own, and an ``ssh`` that knows them.

ssh reads its configuration from the home directory in the password file, whatever HOME says. So
that nothing of the developer's is read or changed, PATH leads to an ``ssh`` that names another.
"""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The address of an sshd that takes the key of ``folder / "bin" / "ssh"``."""
    port = _free_port()
    make_client(folder, [f"[127.0.0.1]:{port}", f"[localhost]:{port}"])
    Path("/run/sshd").mkdir(exist_ok=True)  # sshd insists on it, and a container may lack it
    options = {
        "ListenAddress": "127.0.0.1",
        "Port": port,
        "HostKey": folder / "host",
        "AuthorizedKeysFile": folder / "authorized",
        "PidFile": "none",
        "StrictModes": "no",  # the folder is below /tmp
        "UsePAM": "no",
    }
    command = ["/usr/sbin/sshd", "-D", "-e", "-f", "/dev/null"]
    command += [f"-o{name}={value}" for name, value in options.items()]
    with (folder / "sshd.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        _wait(port, server, folder / "sshd.log")
        yield f"ssh://root@127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def make_client(folder: Path, machines: Sequence[str], config: str = "") -> None:
    """Keys for a user and a host, and ``folder / "bin" / "ssh"``, which has the user's key, knows
    ``machines`` by the host's key, and goes by ``config`` otherwise."""
    for name in ("host", "user"):
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name)
    shutil.copy(folder / "user.pub", folder / "authorized")
    host_key = (folder / "host.pub").read_text()
    (folder / "known").write_text("".join(f"{name} {host_key}" for name in machines))
    (folder / "config").write_text(
        f"IdentityFile {folder / 'user'}\nIdentitiesOnly yes\n"
        f"UserKnownHostsFile {folder / 'known'}\nStrictHostKeyChecking yes\n{config}"
    )
    ssh = folder / "bin" / "ssh"
    ssh.parent.mkdir()
    real = shutil.which("ssh")
    assert real, "ssh is missing: apt-get install openssh-client"
    ssh.write_text(f'#!/bin/sh\nexec {real} -F {shlex.quote(str(folder / "config"))} "$@"\n')
    ssh.chmod(0o755)


def on_path(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Make ``ssh`` the one of `serving`."""
    patch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")


def _run(*command: object) -> None:
    subprocess.run([str(each) for each in command], check=True, capture_output=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        assert server.poll() is None, log.read_text()
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert time.monotonic() < deadline, f"sshd does not listen:\n{log.read_text()}"
            time.sleep(0.05)
    raise AssertionError(f"sshd does not listen:\n{log.read_text()}")
