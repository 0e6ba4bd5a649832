"""Guests with an sshd: each connection to a port of ours is a guest of its own.

    ssh ---> port on loopback ---> this process ---> the guest's virtio port ---> sshd -i

No guest has a network: sshd, which takes the place of the agent, speaks on the only stream that
there is. So what is tested is two machines with kernels of their own, and an ssh between them.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import own_sshd

from ebpflab.transport import archive
from ebpflab.vm import lifecycle
from ebpflab.vm.guest import Guest

_SSHD_CONFIG = """\
HostKey /run/host_key
AuthorizedKeysFile /run/authorized
StrictModes no
UsePAM no
"""
_PROGRAM = """
import os, subprocess, time
time.clock_settime(time.CLOCK_REALTIME, {now})
os.makedirs("/run/sshd", exist_ok=True)
for path, text in {files!r}.items():
    with open(path, "w") as file:
        file.write(text)
os.chmod("/run/host_key", 0o600)
subprocess.run({script!r}, shell=True, check=True, stdin=subprocess.DEVNULL, stdout=2)
os.execv("/usr/sbin/sshd", ["/usr/sbin/sshd", "-i", "-e", "-f", "/run/sshd_config"])
"""
# Not locked, as an account without a password is; and nothing that sudo asks can be answered.
_USERS = """
set -e
for name in engineer student; do useradd --create-home --password '*' --shell /bin/bash $name; done
echo 'engineer ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/engineer
"""


class Machine:
    """A name that ssh knows; whoever connects is in a new guest, where ``script`` has run."""

    def __init__(self, name: str, script: str = "") -> None:
        self.name, self.script = name, _USERS + script
        self.guests: list[Guest] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]

    def serve(self, folder: Path) -> None:
        """Take connections, for those whose key is in ``folder``, until `close`."""
        files = {
            "/run/host_key": (folder / "host").read_text(),
            "/run/authorized": (folder / "authorized").read_text(),
            "/run/sshd_config": _SSHD_CONFIG,
        }
        threading.Thread(target=self._accept, args=(files,), daemon=True).start()

    def _accept(self, files: dict[str, str]) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            program = _PROGRAM.format(now=time.time(), files=files, script=self.script)
            parcel = archive.parcel({"__main__.py": program.encode()})
            guest = lifecycle.start(lambda text: None, parcel)
            self.guests.append(guest)
            threading.Thread(target=_copy, args=(connection, guest), daemon=True).start()

    def end(self) -> None:
        """What a power cut does: the guests end, and so do their connections."""
        for guest in self.guests:
            guest.close()

    def close(self) -> None:
        self._listener.close()
        self.end()


def make_client(folder: Path, machines: Sequence[Machine]) -> None:
    """An ssh that knows ``machines`` by their names (see `own_sshd.on_path`)."""
    config = "".join(
        f"Host {machine.name}\n  HostName 127.0.0.1\n  Port {machine.port}\n"
        f"  HostKeyAlias {machine.name}\n"
        for machine in machines
    )
    own_sshd.make_client(folder, [machine.name for machine in machines], config)


def _copy(connection: socket.socket, guest: Guest) -> None:
    """Copy both ways until one side ends."""
    ways = {connection: guest.wire, guest.wire: connection}
    try:
        while True:
            for source in select.select(list(ways), [], [])[0]:
                data = source.recv(1 << 16)
                if not data:
                    return
                ways[source].sendall(data)
    except (OSError, ValueError):  # the guest was closed, and its socket with it
        return
    finally:
        connection.close()
        guest.close()
