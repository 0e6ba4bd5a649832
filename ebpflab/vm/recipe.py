"""The recipe of every guest: where its files are, what they amount to, and their hash.

An image is named after a hash over everything that went into it. So a changed recipe is
simply another image, and an image whose name matches the recipe never needs to be checked.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ebpflab import agent
from ebpflab.errors import VMError
from ebpflab.transport.archive import directory

DEFAULT_SUITE = "trixie"
BACKPORTS = "-backports"
"""A suite that ends so is the one before it with the kernel, and no more, of its backports."""

GUEST_FILES = (
    "packages.txt",
    "customize.sh",
    "bootstrap.py",
    "ebpflab-agent.service",
    "prefixes.txt",
)
"""What of ``provision/`` ends up in a guest; the rest of that directory is for hosts."""
AGENT_FILES = ("programs/precompiled.py",)
"""What of the agent does: the rest of it is sent at each start."""

DISK_SIZE = "6G"
MMDEBSTRAP_OPTIONS = (
    "--variant=minbase",
    "--dpkgopt=force-unsafe-io",  # a build that loses power is thrown away anyway
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
)
# Not the builder's: with their XDG_CACHE_HOME, Go's cache was not where the guest looks for it.
ENVIRONMENT = (
    "HOME=/root",
    "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
    "DEBIAN_FRONTEND=noninteractive",
)
# No journal: an image is never mounted again after an unclean end, its overlays are dropped.
MKE2FS_OPTIONS = ("-t", "ext4", "-L", "ebpflab", "-O", "^has_journal", "-m", "0")

_DEBIAN_ARCH = {"x86_64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


@dataclass(frozen=True)
class Recipe:
    """What an image is made from; building needs no more than this."""

    suite: str
    arch: str
    packages: tuple[str, ...]
    hash: str


def current(suite: str | None = None) -> Recipe:
    """The recipe as its files stand now, of the suite that EBPFLAB_SUITE names if not of another.

    Debian's releases (bookworm, trixie) are suites, and so is trixie-backports.
    """
    suite = suite or os.environ.get("EBPFLAB_SUITE") or DEFAULT_SUITE
    arch = host_arch()
    return Recipe(suite, arch, packages("packages.txt", arch), _hash(suite, arch))


def packages(name: str, arch: str) -> tuple[str, ...]:
    """What a list in ``provision/`` names."""
    listed = (directory("provision") / name).read_text(encoding="utf-8")
    names = (line.partition("#")[0].strip() for line in listed.splitlines())
    return tuple(name.replace("@ARCH@", arch) for name in names if name)


def host_arch() -> str:
    """Debian's name of this machine's processor: a guest of another would only be slower."""
    machine = platform.machine()
    try:
        return _DEBIAN_ARCH[machine]
    except KeyError:
        raise VMError(
            f"There is no guest for {machine} processors; ebpflab knows x86_64 and aarch64."
        ) from None


def stage(target: Path) -> None:
    """Copy what the guest gets into ``target``, as customize.sh expects it."""
    for name, path in _sources():
        copy = target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)


def _sources() -> Iterator[tuple[str, Path]]:
    provision = directory("provision")
    for name in GUEST_FILES:
        yield f"provision/{name}", provision / name
    for name in AGENT_FILES:
        yield f"provision/{Path(name).name}", Path(agent.__file__).parent / name
    labs = directory("labs")
    for path in sorted(labs.rglob("*")):
        if path.is_file() and not _is_product(path):
            yield f"labs/{path.relative_to(labs)}", path


def _is_product(path: Path) -> bool:
    """Whether ``make`` on this machine made the file; the guest makes its own."""
    if "__pycache__" in path.parts:
        return True
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def _hash(suite: str, arch: str) -> str:
    options = (suite, arch, DISK_SIZE, *MMDEBSTRAP_OPTIONS, *ENVIRONMENT, *MKE2FS_OPTIONS)
    digest = hashlib.sha256("\0".join(options).encode())
    for name, path in _sources():
        digest.update(f"\0{name}\0{path.stat().st_mode & 0o100}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]
