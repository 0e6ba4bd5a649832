"""The Python of one submission, confined: what kernels/python3/kernel.json starts.

    confined.py CONNECTION_FILE

bubblewrap gives it a file system that it cannot write but for a small /tmp in memory, without
anybody's home, the other submissions, the solutions and the hidden tests; processes of its own,
which all end with it; and no network. prlimit(1) limits memory and the number of processes. The
VM that its Lab() starts lives in there, too, on an image that it can only read.

Where root grades, it runs as a user of its own, since root is exempt from the limit of processes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

from ebpflab.vm import cache, recipe

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]

GRADED_USER = 60999
TMP_BYTES = 1 << 30
"""What it may write to /tmp, its VM's disk included, and under QEMU before 8.2 a copy of what the
VM's memory is at the start (400 MB); and as much again to /dev/shm."""
ADDRESS_SPACE_BYTES = 4 << 30
"""Of each process: QEMU with its guest of 1 GiB takes 3."""
PROCESSES = 200

_HIDDEN = ("/home", "/root", "/run", "/mnt", "/media", "/srv", "/var/cache", "/var/tmp")
_IN_MEMORY = ("/tmp", "/dev/shm")  # what lies there outside is hidden, too
# What students of a server may not see either: hub/server/jupyterhub_config.py. Git has it all.
HIDDEN_HERE = ("course", "hub", "classroom/course/source", "tests", ".git")
_EVERYBODYS_IMAGES = cache.EVERYBODYS


def main() -> None:
    connection = Path(sys.argv[1])
    if os.getuid() == 0:
        cache.open_to_readers(_image())  # one that is older than other readers are
        for path in (connection.parent, connection):
            os.chown(path, GRADED_USER, GRADED_USER)
    command = [*sandbox(connection.parent), *limits(), *kernel(connection)]
    os.execvp(command[0], command)


def sandbox(runtime: Path) -> list[str]:
    """bubblewrap's options, in their order: later ones are laid over earlier ones."""
    image = _image()
    path = f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin"
    return [
        *("bwrap", "--die-with-parent", "--ro-bind", "/", "/", "--proc", "/proc"),
        *("--dev", "/dev", "--dev-bind-try", "/dev/kvm", "/dev/kvm"),
        *("--size", str(TMP_BYTES), "--tmpfs", "/dev/shm", "--remount-ro", "/dev"),
        *_hidden(_HIDDEN),
        *("--size", str(TMP_BYTES), "--perms", "1777", "--tmpfs", "/tmp"),
        *_shown(Path(sys.base_prefix)),
        *_shown(Path(sys.prefix)),
        *_shown(REPOSITORY),
        *_hidden(str(REPOSITORY / name) for name in HIDDEN_HERE),
        *_shown(image, _EVERYBODYS_IMAGES / image.name),
        *_parents(runtime),
        *("--bind", str(runtime), str(runtime), "--chdir", "/tmp"),
        *("--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--clearenv"),
        *("--setenv", "PATH", path, "--setenv", "LANG", "C.UTF-8"),
        # QEMU takes /var/tmp where it is told /tmp, and a folder of it where it is told that.
        *("--perms", "1777", "--dir", "/tmp/own", "--setenv", "TMPDIR", "/tmp/own"),
        *("--setenv", "HOME", "/tmp/own"),
        *("--setenv", "EBPFLAB_TARGET", "vm", "--setenv", "PYTHONPATH", str(HERE)),
    ]


def limits() -> list[str]:
    """The command that limits another one."""
    user = str(GRADED_USER)
    other_user = ["setpriv", "--reuid", user, "--regid", user, "--clear-groups", "--no-new-privs"]
    return [
        *(other_user if os.getuid() == 0 else ()),
        *("prlimit", f"--as={ADDRESS_SPACE_BYTES}", f"--nproc={PROCESSES}", "--core=0", "--"),
    ]


def kernel(connection: Path) -> list[str]:
    """The command of the kernel itself."""
    startup = "--IPKernelApp.exec_lines=import startup"
    history = "--HistoryManager.enabled=False"
    return [sys.executable, "-m", "ipykernel_launcher", "-f", str(connection), startup, history]


def _image() -> Path:
    return cache.image_directory(recipe.current().hash)


def _shown(source: Path, place: Path | None = None) -> list[str]:
    """Options that show ``source``, read-only, where a hidden folder may cover it."""
    place = place or source
    return [*_parents(place), "--ro-bind", str(source), str(place)]


def _parents(place: Path) -> list[str]:
    """Options that make the folders above ``place`` anew where they are hidden.

    Left to --bind, bubblewrap makes them with mode 0700, as root where root grades, and the
    graded user could not enter them. --dir leaves a folder that exists as it is.
    """
    above = reversed(place.parents)
    covers = (*_HIDDEN, *_IN_MEMORY)
    made = [path for path in above if any(path.is_relative_to(cover) for cover in covers)]
    return [word for path in made for word in ("--perms", "0755", "--dir", str(path))]


def _hidden(paths: Iterable[str]) -> list[str]:
    """What is not there needs no hiding, nor could it be hidden in what is read-only."""
    return [word for path in paths if Path(path).is_dir() for word in ("--tmpfs", path)]


if __name__ == "__main__":
    main()
