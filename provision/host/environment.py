"""The .venv: the notebook side's Python packages, at the versions of constraints.txt.

`.venv/ebpflab.json` is written last and says what the .venv was made of. While that is still
true there is nothing to do; an interrupted installation has no such file and is done again.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from stop import Stop, say


def ensure(repository: Path, extras: Iterable[str]) -> None:
    """Make .venv hold ebpflab itself (as a link to this repository) with these extras."""
    stamp = repository / ".venv" / "ebpflab.json"
    wanted, old = describe(repository, extras), read(stamp)
    same_place = all(old.get(key) == wanted[key] for key in ("repository", "python"))
    if same_place and old["pins"] == wanted["pins"]:
        if set(wanted["extras"]) <= set(old["extras"]):
            return
        wanted["extras"] = sorted({*wanted["extras"], *old["extras"]})
    stamp.unlink(missing_ok=True)
    if not same_place:
        create(repository)
        wanted["python"] = python_of(repository)
    install(repository, wanted["extras"])
    stamp.write_text(json.dumps(wanted))


def describe(repository: Path, extras: Iterable[str]) -> dict[str, Any]:
    """What a .venv made now would be made of."""
    files = [repository / "pyproject.toml", repository / "constraints.txt"]
    return {
        "repository": str(repository),
        "python": python_of(repository),
        "pins": hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest(),
        "extras": sorted(extras),
    }


def python_of(repository: Path) -> str:
    """The Python that .venv is tied to; it changes when the system's Python is upgraded."""
    return os.path.realpath(repository / ".venv/bin/python")


def read(stamp: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(stamp.read_text()))
    except (OSError, ValueError):
        return {}


def require_readable(repository: Path) -> None:
    """Stop where other users, as a hub's students are, cannot start .venv's Python."""
    python = repository / ".venv/bin/python"
    for file in (python, python.resolve()):
        for above in reversed(file.parents):
            if not above.stat().st_mode & 0o001:
                raise Stop(
                    f"students are users of their own, and may not enter {above}, where\n"
                    f"{file} is. Put this repository where all may read it, and make .venv\n"
                    "with the system's Python: rm -r .venv && make hub PYTHON=/usr/bin/python3"
                )


def create(repository: Path) -> None:
    say(f"Making .venv with {sys.executable}")
    made = subprocess.run([sys.executable, "-m", "venv", "--clear", repository / ".venv"])
    if made.returncode != 0:
        raise Stop(
            f"{sys.executable} could not make .venv; the reason stands above. On Debian and\n"
            "Ubuntu: sudo apt-get install python3-venv"
        )


def install(repository: Path, extras: list[str]) -> None:
    """Install in two steps, so that the build tool is pinned like everything else."""
    say("Installing Python packages into .venv")
    pip(repository, "hatchling")
    pip(repository, "--no-build-isolation", "-e", f".[{','.join(extras)}]")


def pip(repository: Path, *arguments: str) -> None:
    command = [".venv/bin/python", "-m", "pip", "install", "--disable-pip-version-check"]
    command += ["-c", "constraints.txt", *arguments]
    if subprocess.run(command, cwd=repository).returncode != 0:
        raise Stop(
            "pip could not install what .venv needs; the reason stands above. It needs the\n"
            "network once (or a PIP_INDEX_URL that is reachable); then do this again."
        )
