"""A Vagrant box of our own, from the guest's recipe: for libvirt, with no registry of boxes.

    packages.txt, box-packages.txt,            tree ---> file system ---> disk ---> box
    image-packages.txt, box-image.sh   mmdebstrap  mke2fs     boot sector,    qcow2, metadata.json,
                                                              core.img        Vagrantfile, a key

The disk boots by GRUB, whose two parts stand where a BIOS looks for them: the boot sector, and
the sectors between it and the one partition. grub-mkimage makes them so that they find one
another there; nothing has to be mounted or installed, so an ordinary user can do it.

Vagrant logs in with a key of this box alone, so a box that is given away can be logged in to.
"""

from __future__ import annotations

import json
import struct
import tarfile
from collections.abc import Sequence
from pathlib import Path

from ebpflab.errors import VMError
from ebpflab.transport import archive
from ebpflab.transport.base import OnStep
from ebpflab.vm import cache, image, process, recipe
from ebpflab.vm.logged import Runner
from ebpflab.vm.steps import Steps

SECTOR_BYTES = 512
PARTITION_SECTOR = 2048
"""Where the partition begins: 1 MiB, as everywhere; core.img has the room before it."""

_DISK_GB = 20  # what it may grow to
_MKE2FS_OPTIONS = (
    *("-t", "ext4", "-L", "ebpflab"),
    *("-O", "^metadata_csum_seed"),  # which GRUB reads from 2.12 on, and Debian 12 has 2.06
    *("-E", f"offset={PARTITION_SECTOR * SECTOR_BYTES}"),
)
_VAGRANTFILE = """\
Vagrant.configure("2") do |config|
  config.ssh.private_key_path = File.expand_path("vagrant_key", __dir__)
end
"""


def build(path: Path, progress: OnStep) -> None:
    """Write a box to ``path``. Raises MissingTool or VMError."""
    made_from = recipe.current()
    if made_from.arch != "amd64":
        raise VMError(
            f"There is no box for {made_from.arch}: its boot loader is for x86-64. Use a public"
            " box, as the Vagrantfile does by itself."
        )
    image.check_tools()
    process.need(image.PURPOSE, "qemu-img", "ssh-keygen")
    path.parent.mkdir(parents=True, exist_ok=True)
    needed = {path.parent: image.IMAGE_BYTES, cache.tree_parent(): image.TREE_BYTES}
    steps = Steps("building the box", progress)
    with cache.build_lock(progress):
        cache.check_free_space({cache.root(): 2 * image.IMAGE_BYTES, **needed})
        with cache.scratch_directory(cache.root()) as building:
            runner = Runner(steps, building / "build.log")
            _make_disk(runner, made_from, building)
            steps.begin("packing it")
            _pack(building, path)
    steps.done()


def _make_disk(runner: Runner, made_from: recipe.Recipe, building: Path) -> None:
    lists = ("packages.txt", "box-packages.txt", "image-packages.txt")
    packages = [each for name in lists for each in recipe.packages(name, made_from.arch)]
    key, disk = building / "vagrant_key", building / "disk.raw"
    keygen, qemu_img = process.need(image.PURPOSE, "ssh-keygen", "qemu-img")
    comment = ["-C", "vagrant, in a box of ebpflab"]
    runner.run("making a key", [keygen, "-q", "-t", "ed25519", "-N", "", *comment, "-f", str(key)])
    with cache.tree_directory(building) as tree:
        stage = tree / "stage"
        stage.mkdir()
        for source in (archive.directory("provision") / "box-image.sh", key.with_suffix(".pub")):
            (stage / source.name).write_bytes(source.read_bytes())
        command = "sh /tmp/stage/box-image.sh /tmp/stage/vagrant_key.pub"
        image.make_tree(runner, made_from.suite, packages, tree, [command])
        size = f"{_DISK_GB << 20}k"
        image.make_file_system(runner, tree / "root", disk, _MKE2FS_OPTIONS, size)
        runner.run("removing the tree", process.empty_tree(tree / "root"))
    offset = PARTITION_SECTOR * SECTOR_BYTES
    image.take_out(f"{disk.name}?offset={offset}", ("boot.img", "core.img"), building)
    disk.chmod(0o600)
    boot, core = (building / "boot.img").read_bytes(), (building / "core.img").read_bytes()
    with disk.open("r+b") as file:
        file.write(start_of_disk(boot, core, disk.stat().st_size // SECTOR_BYTES))
    convert = [qemu_img, "convert", "-O", "qcow2", str(disk), str(building / "box.img")]
    runner.run("writing the disk", convert)


def start_of_disk(boot: bytes, core: bytes, sectors: int) -> bytes:
    """The boot sector with its table of one partition, then core.img, which it loads.

    Source: the layout of a PC's boot sector; GRUB's manual, "BIOS installation".
    """
    room = (PARTITION_SECTOR - 1) * SECTOR_BYTES
    if len(boot) != SECTOR_BYTES or len(core) > room:
        raise VMError(f"GRUB's parts have sizes of {len(boot)} and {len(core)} bytes.")
    # Bootable; places by sector, and none by cylinder; Linux (0x83).
    beyond = b"\xfe\xff\xff"
    length = sectors - PARTITION_SECTOR
    entry = struct.pack("<B3sB3sII", 0x80, beyond, 0x83, beyond, PARTITION_SECTOR, length)
    return boot[:446] + entry.ljust(64, b"\0") + b"\x55\xaa" + core


def _pack(building: Path, path: Path) -> None:
    metadata = {"provider": "libvirt", "format": "qcow2", "virtual_size": _DISK_GB + 1}
    (building / "metadata.json").write_text(json.dumps(metadata))
    (building / "Vagrantfile").write_text(_VAGRANTFILE)
    draft = path.with_name(f".{path.name}.part")
    try:
        with tarfile.open(draft, "w") as box:
            for name in CONTENTS:
                box.add(building / name, name, filter=_of_nobody)
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


CONTENTS: Sequence[str] = ("metadata.json", "Vagrantfile", "vagrant_key", "box.img")
"""The files of a box; the first three before the big one, so that `tar` finds them at once."""


def _of_nobody(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry
