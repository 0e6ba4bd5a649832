"""The ssh target: an agent on another machine, reached by the system's own ``ssh``.

The user's configuration and keys count, as in a terminal; ssh is told never to ask. Nothing is
written on the other machine: its python3 gets the bootstrap (`provision/bootstrap.py`) as its
program text, and takes the agent off standard input. It runs as root, through ``sudo -n`` where
the user is not root, and needs nothing there but python3-bpfcc.

When the connection ends, however it ends, the agent's input ends, and it detaches everything.
"""

from __future__ import annotations

import re
import shlex
import shutil
from urllib.parse import urlsplit

from ebpflab.errors import MissingTool, NeedsRoot, TargetError
from ebpflab.targets.child import ChildTransport
from ebpflab.transport import archive
from ebpflab.transport.base import OnStep, Target, Transport

_CONNECT_SECONDS = 60.0
# Ask nothing; notice within 15 seconds that the other machine, or the network, has gone.
_OPTIONS = ("-T", "-oBatchMode=yes", "-oServerAliveInterval=5", "-oServerAliveCountMax=3")

# What ssh, sudo or the other machine's shell say, and what that means for the reader.
_CAUSES: tuple[tuple[str, type[TargetError], str], ...] = (
    (
        r"Host key verification failed|REMOTE HOST IDENTIFICATION HAS CHANGED",
        TargetError,
        "its host key is not the one that is known, or not known yet. Connect once in a terminal"
        " and compare the fingerprint; `ssh-keygen -R HOST` forgets an old key.",
    ),
    (
        r"Permission denied",
        TargetError,
        "it takes none of your keys. `ssh-copy-id` puts one there; a key with a passphrase must"
        " be in ssh-agent.",
    ),
    (r"Could not resolve hostname", TargetError, "there is no machine of that name."),
    (
        r"Connection refused",
        TargetError,
        "nothing listens there. Is sshd running, and is this its port?",
    ),
    (r"Connection timed out|No route to host", TargetError, "it does not answer. Is it on?"),
    (
        r"sudo: .*password is required|sudo: .*terminal is required|not in the sudoers",
        NeedsRoot,
        "its sudo asks for a password, and the agent must be root there. Log in as root, or allow"
        " this user `sudo -n` there.",
    ),
    (r"sudo: .*not found", NeedsRoot, "you are not root there, and it has no sudo."),
    (
        r"python3: .*(?:not found|No such file)",
        TargetError,
        "it has no /usr/bin/python3. Install it there with python3-bpfcc.",
    ),
)


class SshTransport(ChildTransport):
    """An agent at the other end of an ssh."""

    def __init__(self, host: str, command: list[str]) -> None:
        self._host = host
        super().__init__(command)

    def start(self) -> None:
        """Send the agent, and wait until it runs. Raises the TargetError for what went wrong."""
        said = self.deliver(archive.agent_parcel(), _CONNECT_SECONDS)
        if len(said) < len(archive.RUN):
            raise self._refused()
        if said != archive.RUN:
            raise TargetError(
                f"Cannot trace {self._host}: its shell prints text of its own, beginning with"
                f" {said!r}, before a command runs. Make its start-up files (.bashrc and the like)"
                " silent where there is no terminal."
            )

    def _refused(self) -> TargetError:
        self.ending()
        said = "\n".join(line for line in self.said() if line.strip("@"))
        for pattern, kind, meaning in _CAUSES:
            if re.search(pattern, said):
                return kind(f"Cannot trace {self._host}: {meaning}\nIt said: {said}")
        why = f"it said: {said}" if said else f"no answer in {_CONNECT_SECONDS:.0f} seconds"
        return TargetError(f"Cannot trace {self._host}: {why}.")

    def post_mortem(self) -> str:
        self.ending()
        said = self.said()[-3:]
        return f"The connection to {self._host} ended." + (
            f" ssh said last: {' '.join(said)}" if said else ""
        )


class SshTarget(Target):
    """Another machine: ``ssh://user@host`` or ``ssh://user@host:port``."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        host = parts.hostname or "-"
        if parts.scheme != "ssh" or host.startswith("-") or parts.path.strip("/") or parts.query:
            raise TargetError(
                f"{url!r} is not an address for ssh. Write ssh://host, ssh://user@host or"
                " ssh://user@host:port."
            )
        self.name = url.rstrip("/")

    def command(self) -> list[str]:
        """The ssh that starts the agent there."""
        agent = shlex.join(["/usr/bin/python3", "-I", "-B", "-c", archive.bootstrap_source()])
        as_root = f'if [ "$(id -u)" = 0 ]; then exec {agent}; else exec sudo -n {agent}; fi'
        # sh by name: the login shell there may be any.
        limit = f"-oConnectTimeout={_CONNECT_SECONDS:.0f}"
        return ["ssh", *_OPTIONS, limit, self.name, f"exec sh -c {shlex.quote(as_root)}"]

    def unavailable(self) -> str | None:
        if shutil.which("ssh") is None:
            return "there is no ssh here; install it (Debian: openssh-client)"
        return None

    def connect(self, progress: OnStep) -> Transport:
        reason = self.unavailable()
        if reason is not None:
            raise MissingTool(f"Cannot trace {self.name}: {reason}.")
        progress(f"connecting to {self.name}")
        transport = SshTransport(self.name, self.command())
        try:
            transport.start()
        except BaseException:
            transport.close()
            raise
        return transport
