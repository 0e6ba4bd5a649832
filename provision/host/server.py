"""JupyterLab on notebooks/, for this machine alone: on loopback, behind Jupyter's token."""

from __future__ import annotations

import os
from pathlib import Path

from stop import say

AS_ROOT = """\
You are root, so every notebook and whatever it fetches runs as root, too. It is served all
      the same, on loopback and behind a token; an ordinary user with the guest is safer."""


def serve(repository: Path) -> None:
    """Become JupyterLab. It prints its address, with the token, when it is ready."""
    command = [
        str(repository / ".venv/bin/jupyter-lab"),
        "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.root_dir={repository / 'notebooks'}",
        "--Application.log_level=WARN",  # so that the address is the last thing on the screen
    ]
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        command.append("--no-browser")
    if os.geteuid() == 0:
        command.append("--allow-root")
        say(AS_ROOT)
    say("Starting JupyterLab. Open the address with the token below; Ctrl-C ends it.")
    os.execv(command[0], command)
