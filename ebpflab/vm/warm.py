"""A guest that has booted, imported bcc, compiled a program, and been saved right there.

Booting takes half a minute under TCG, resuming a tenth of a second. What is saved:

    memory      the guest's RAM, a file that QEMU had mapped while it ran
    state       its devices, as QEMU migrates them (half a megabyte)
    disk.qcow2  what it wrote while it booted, over the image's disk.raw
    warm.json   who saved it

All of it is only read from then on, so any number of guests can resume from it at once.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from ebpflab.errors import VMError
from ebpflab.transport import archive
from ebpflab.transport.base import OnStep
from ebpflab.vm import cache, process, qemu
from ebpflab.vm.guest import Guest, scratch_directory
from ebpflab.vm.image import DISK
from ebpflab.vm.logged import check_output
from ebpflab.vm.steps import Steps

# Time-outs: many times what it takes here, for slow and busy machines. KVM has TCG to fall
# back to, and so less patience.
_BOOT_SECONDS = {"kvm": 120.0, "tcg": 300.0}
_BOOTS = 3
_RESUME_SECONDS = {"kvm": 30.0, "tcg": 60.0}


def directory(image: Path, machine: qemu.Machine) -> Path:
    """Where the guest saved by this QEMU, for this accelerator, is or would be."""
    key = qemu.identity(machine.arch)
    if machine.accel == "kvm":
        key += f"-{_host_cpu()}"  # the guest has seen this processor's features
    return image / f"warm-{machine.accel}-{key}"


def is_warm(image: Path, machine: qemu.Machine) -> bool:
    return directory(image, machine).exists()


def warm(image: Path, machine: qemu.Machine, progress: OnStep) -> Path:
    """The saved guest, made if need be. Call it under `cache.build_lock`."""
    final = directory(image, machine)
    if final.exists():
        return final
    if not os.access(image, os.W_OK):
        raise VMError(
            f"The image {image} is not yours to write, and holds no guest saved for"
            f" {machine.accel} by the QEMU that is installed now. Its owner makes one with"
            " `ebpflab vm build`."
        )
    cache.check_free_space({image: 2 * qemu.MEMORY_MIB << 20})
    steps = Steps("warming the guest", progress)
    with cache.fresh_directory(final) as building:
        _boot_and_save(image, machine, building, steps)
        facts = {"accel": machine.accel, "saved": time.time(), "qemu": _version(machine)}
        (building / "warm.json").write_text(json.dumps(facts, indent=1) + "\n")
        steps.begin("writing it to the disk")
    for other in image.glob(f"warm-{machine.accel}-*"):
        if other != final:  # saved by a QEMU since replaced; guests that run keep their files
            shutil.rmtree(other, ignore_errors=True)
    steps.done()
    return final


def resume(
    image: Path, machine: qemu.Machine, parcel: bytes, console: socket.socket | None = None
) -> Guest:
    """A guest that carries on from what was saved, and runs the program in ``parcel``."""
    saved = directory(image, machine)
    with _memory_for(saved / "memory", image, machine) as (memory, read_only):
        line = partial(
            qemu.resumed, machine, image, saved / "disk.qcow2", memory, read_only=read_only
        )
        guest = Guest(image, line, console)
    try:
        guest.monitor.resume((saved / "state").read_bytes())
        guest.send(parcel)
        guest.expect(archive.RUN, _RESUME_SECONDS[machine.accel])
    except BaseException:
        guest.close()
        raise
    return guest


@contextmanager
def _memory_for(memory: Path, image: Path, machine: qemu.Machine) -> Iterator[tuple[Path, bool]]:
    """The file for QEMU to map, and whether it may only read it.

    A QEMU that wants to write what it then maps privately gets, of memory that is not ours to
    write, a copy, which has a name until it is open.
    """
    if os.access(memory, os.W_OK):
        yield memory, False
    elif qemu.maps_what_it_may_only_read(machine):
        yield memory, True
    else:
        with tempfile.NamedTemporaryFile(dir=scratch_directory(image)) as copy:
            _copy_data(memory, copy.fileno())
            yield Path(copy.name), False


def _copy_data(source: Path, target: int) -> None:
    """Copy a file with its holes, which are most of a guest's memory."""
    with source.open("rb") as file:
        size, place = os.fstat(file.fileno()).st_size, 0
        os.truncate(target, size)
        while place < size:
            try:
                place = os.lseek(file.fileno(), place, os.SEEK_DATA)
            except OSError:  # ENXIO: nothing but a hole from here on
                return
            end = os.lseek(file.fileno(), place, os.SEEK_HOLE)
            os.lseek(target, place, os.SEEK_SET)
            while place < end:
                place += os.sendfile(target, file.fileno(), place, end - place)


def _boot_and_save(image: Path, machine: qemu.Machine, building: Path, steps: Steps) -> None:
    """Boot until a boot is sound: every lab would inherit a kernel that has stumbled."""
    for attempt in range(1, _BOOTS + 1):
        try:
            _boot_once(image, machine, building, steps)
            return
        except VMError:
            if attempt == _BOOTS:
                raise
            steps.begin(f"that boot went wrong; booting again, {attempt + 1} of {_BOOTS}")
            for leftover in building.iterdir():
                leftover.unlink()


def _boot_once(image: Path, machine: qemu.Machine, building: Path, steps: Steps) -> None:
    disk, memory = building / "disk.qcow2", building / "memory"
    (qemu_img,) = process.need("Running the guest", "qemu-img")
    # The path of the base is relative to the overlay's, which is to move along with the image.
    base = ("-b", f"../{DISK}", "-F", "raw")
    check_output([qemu_img, "create", "-q", "-f", "qcow2", *base, str(disk)], "Making a disk")
    steps.begin("booting")
    guest = Guest(image, partial(qemu.cold, machine, image, disk, memory))
    try:
        guest.expect(archive.READY, _BOOT_SECONDS[machine.accel], steps.tick)
        if guest.kernel_complaints():
            raise VMError(f"The guest's kernel stumbled while it booted. {guest.post_mortem()}")
        steps.begin("saving it")
        (building / "state").write_bytes(guest.monitor.save())
        guest.monitor.execute("quit")
        guest.wait()
    finally:
        guest.close()


def _version(machine: qemu.Machine) -> str:
    text = check_output([qemu.program(machine.arch), "--version"], "Asking QEMU for its version")
    return text.partition("version ")[2].split()[0]


def _host_cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
    features = re.findall(r"^(?:model name|flags|Features)\s*:.*$", lines, re.MULTILINE)
    return hashlib.sha256("\n".join(features).encode()).hexdigest()[:8]
