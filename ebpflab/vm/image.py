"""Recipe -> image: a root tree by mmdebstrap, made into a disk by mke2fs.

Neither needs a loop device or a mount of ours, so an ordinary user can do it, in a user
namespace of mmdebstrap's own making. As root, the same runs in private mount and process
namespaces: killed at any moment, nothing stays mounted and nothing keeps running.

The kernel and initrd are read back out of the finished disk, so what boots is what is in it.
"""

from __future__ import annotations

import json
import os
import pwd
import shlex
import subprocess
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from ebpflab.errors import MissingTool, VMError
from ebpflab.transport.base import OnStep
from ebpflab.vm import cache, process, recipe
from ebpflab.vm.logged import Runner
from ebpflab.vm.steps import Steps

PURPOSE = "Building the guest"
TREE_BYTES = 1_900_000_000  # measured: 1.1 GB installed, and the packages while they unpack
IMAGE_BYTES = 2_500_000_000  # measured: 1.2 GB of disk; up to 1.1 GB for the saved guest

DISK = "disk.raw"
"""An image's file system, only ever read."""

_KEYRINGS = ("debian-archive-keyring.gpg", "debian-archive-keyring.pgp")
_BOOT_FILES = ("vmlinuz", "initrd", "about.json")

_KERNEL = "linux-image-* linux-headers-* linux-kbuild-* linux-base* linux-binary-* linux-modules-*"

# What mmdebstrap calls its phases, and what a reader wants to know of them.
_PHASES = {
    "I: running apt-get update": "reading the package lists",
    "I: downloading packages": "downloading the base system",
    "I: extracting archives": "unpacking the base system",
    "I: installing essential packages": "installing the base system",
    "I: installing remaining packages": "installing the kernel, BCC, LLVM, gcc and Go",
    "ebpflab: building": "building the labs",
    "precompiled:": "precompiling the kernel's headers",
    "I: cleaning package lists": "tidying up",
}


def is_complete(path: Path) -> bool:
    """Whether there is an image at ``path``."""
    return cache.is_image(path)


def check_tools() -> None:
    """Raise MissingTool, or VMError, for whatever a build would stumble over."""
    as_user = os.geteuid() != 0
    process.need(PURPOSE, "mmdebstrap", "mke2fs", "debugfs", "newuidmap" if as_user else "unshare")
    if not any((Path("/usr/share/keyrings") / name).exists() for name in _KEYRINGS):
        raise process.missing(PURPOSE, ["Debian's keyring"], ["debian-archive-keyring"])
    if as_user:
        _check_subordinate_ids()


def _check_subordinate_ids() -> None:
    user = pwd.getpwuid(os.getuid()).pw_name
    files = {path: _lines(Path(path)) for path in ("/etc/subuid", "/etc/subgid")}
    lacking = [
        path
        for path, lines in files.items()
        if not any(line.split(":")[0] in (user, str(os.getuid())) for line in lines)
    ]
    if lacking:
        first = _first_free_id(line for lines in files.values() for line in lines)
        free = f"{first}-{first + 65535}"
        raise MissingTool(
            f"{PURPOSE} as the ordinary user {user} needs a range of subordinate ids, and there "
            f"is none for {user} in {' and '.join(lacking)}. Once: "
            f"sudo usermod --add-subuids {free} --add-subgids {free} {user}",
        )


def _first_free_id(lines: Iterable[str]) -> int:
    """The id after the last range of ``lines`` (name:first:count)."""
    ends = [100_000]
    for line in lines:
        with suppress(ValueError):
            _, first, count = line.split(":")
            ends.append(int(first) + int(count))
    return max(ends)


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def build(made_from: recipe.Recipe, progress: OnStep) -> Path:
    """The image of a recipe, built if need be. Call it under `cache.build_lock`."""
    final = cache.image_directory(made_from.hash)
    if is_complete(final):
        return final
    check_tools()
    cache.check_free_space({cache.root(): IMAGE_BYTES, cache.tree_parent(): TREE_BYTES})
    started = time.time()
    steps = Steps("building the guest", progress)
    with cache.fresh_directory(final) as building:
        runner = Runner(steps, building / "build.log")
        with cache.tree_directory(building) as tree:
            recipe.stage(tree / "stage")
            make_tree(
                runner,
                made_from.suite,
                made_from.packages,
                tree,
                ["sh /tmp/stage/provision/customize.sh /tmp/stage appliance"],
            )
            make_file_system(
                runner, tree / "root", building / DISK, recipe.MKE2FS_OPTIONS, recipe.DISK_SIZE
            )
            runner.run("removing the tree", process.empty_tree(tree / "root"))
        steps.begin("checking the disk")
        about = _take_boot_files(building)
        facts = {"suite": made_from.suite, "arch": made_from.arch, "created": started, **about}
        (building / "image.json").write_text(json.dumps(facts, indent=1) + "\n")
        steps.begin("waiting for the disk")
    steps.done()
    return final


def make_tree(
    runner: Runner, suite: str, packages: Sequence[str], tree: Path, commands: Sequence[str]
) -> None:
    """``tree / "root"``: a system with ``packages`` in which ``commands`` have run, as root.

    While they run, ``tree / "stage"`` is at /tmp/stage in it.
    """
    (mmdebstrap,) = process.need(PURPOSE, "mmdebstrap")
    environment = " ".join(recipe.ENVIRONMENT)
    stage = shlex.quote(str(tree / "stage"))
    command = [
        *_contained(),
        mmdebstrap,
        f"--mode={'unshare' if os.geteuid() else 'root'}",
        "--format=directory",
        *recipe.MMDEBSTRAP_OPTIONS,
        *_kernel_of_backports(suite),
        f"--include={','.join(packages)}",
        f"--customize-hook=copy-in {stage} /tmp",
        *(f'--customize-hook=chroot "$1" env -i {environment} {each}' for each in commands),
        '--customize-hook=rm -rf "$1/tmp/stage"',
        suite.removesuffix(recipe.BACKPORTS),
        str(tree / "root"),
    ]
    runner.run("preparing", command, _phase_of)


def _kernel_of_backports(suite: str) -> list[str]:
    """Options that take the kernel, and nothing else, from a suite's backports."""
    base = suite.removesuffix(recipe.BACKPORTS)
    if base == suite:
        return []
    sources = f"s/ {base} main/ {suite} main/p"  # on whichever mirror mmdebstrap has chosen
    pin = f"Package: {_KERNEL}\\nPin: release n={suite}\\nPin-Priority: 900\\n"
    return [
        f'--setup-hook=sed -n "{sources}" "$1"/etc/apt/sources.list '
        '>"$1"/etc/apt/sources.list.d/backports.list',
        f"--setup-hook=printf '{pin}' >\"$1\"/etc/apt/preferences.d/backports",
    ]


def _contained() -> list[str]:
    """What makes root's mounts and processes vanish with the builder."""
    if os.geteuid() != 0:
        return []
    (unshare,) = process.need(PURPOSE, "unshare")
    return [unshare, "--mount", "--pid", "--fork", "--kill-child"]


def make_file_system(
    runner: Runner, root: Path, disk: Path, options: Sequence[str], size: str
) -> None:
    """Write the tree at ``root`` into the new file ``disk``, by mke2fs with these options."""
    (mke2fs,) = process.need(PURPOSE, "mke2fs")
    # Inside the namespace we are another user, to whom the directory of `disk` is closed, but
    # who can open again what it inherits, if the file's own mode lets it.
    with disk.open("wb") as output:
        disk.chmod(0o666)
        command = [*process.as_tree_owner(), mke2fs, "-q", "-F", *options, "-d", str(root)]
        command += ["/dev/stdout", size]
        runner.run("writing the disk", command, output=output.fileno())
    disk.chmod(0o444)


def take_out(disk: str, names: Iterable[str], building: Path) -> None:
    """Copy files of /boot/ebpflab in ``disk``, as debugfs calls it, into ``building``."""
    (debugfs,) = process.need(PURPOSE, "debugfs")
    for name in names:
        request = f"dump /boot/ebpflab/{name} {name}"
        subprocess.run(
            [debugfs, "-R", request, disk], cwd=building, capture_output=True, check=False
        )
        # debugfs reports success whatever happens.
        if not (building / name).exists() or not (building / name).stat().st_size:
            raise VMError(f"The disk that was built lacks /boot/ebpflab/{name}.")


def _take_boot_files(building: Path) -> dict[str, str]:
    take_out(DISK, _BOOT_FILES, building)
    about: dict[str, str] = json.loads((building / "about.json").read_text())
    (building / "about.json").unlink()
    return about


def _phase_of(line: str) -> str | None:
    """The progress to report when mmdebstrap prints ``line``."""
    return next((phase for begin, phase in _PHASES.items() if line.startswith(begin)), None)
