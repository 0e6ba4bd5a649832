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
import time
from pathlib import Path

from ebpflab.targets.base import Progress
from ebpflab.vm import cache, delivery, process, qemu
from ebpflab.vm.guest import Guest
from ebpflab.vm.logged import check_output
from ebpflab.vm.steps import Steps

_BOOT_SECONDS = 300.0  # ten times of what it takes here, for slow and busy machines
_RESUME_SECONDS = 60.0


def directory(image: Path, machine: qemu.Machine) -> Path:
    """Where the guest saved by this QEMU, for this accelerator, is or would be."""
    key = qemu.identity(machine.arch)
    if machine.accel == "kvm":
        key += f"-{_host_cpu()}"  # the guest has seen this processor's features
    return image / f"warm-{machine.accel}-{key}"


def is_warm(image: Path, machine: qemu.Machine) -> bool:
    return directory(image, machine).exists()


def warm(image: Path, machine: qemu.Machine, progress: Progress) -> Path:
    """The saved guest, made if need be. Call it under `cache.build_lock`."""
    final = directory(image, machine)
    if final.exists():
        return final
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
    image: Path, machine: qemu.Machine, parcel: bytes, interactive: int | None = None
) -> Guest:
    """A guest that carries on from what was saved, and runs the program in ``parcel``."""
    saved = directory(image, machine)
    lock = cache.hold(image)
    try:
        guest = Guest(
            lambda streams: qemu.resumed(
                machine, image, saved / "disk.qcow2", saved / "memory", streams
            ),
            lock,
            interactive,
        )
    finally:
        os.close(lock)
    try:
        with (saved / "state").open("rb") as state:
            guest.monitor.resume(state.fileno())
        guest.monitor.close()
        guest.send(parcel)
        guest.expect(delivery.RUN, _RESUME_SECONDS)
    except BaseException:
        guest.close()
        raise
    return guest


def _boot_and_save(image: Path, machine: qemu.Machine, building: Path, steps: Steps) -> None:
    disk, memory = building / "disk.qcow2", building / "memory"
    (qemu_img,) = process.need("Running the guest", "qemu-img")
    overlay = [qemu_img, "create", "-q", "-f", "qcow2", "-F", "raw", "-b", "../disk.raw"]
    # The base is found from where the overlay will be, not from where it is made.
    check_output([*overlay, "-u", str(disk), qemu_size(image)], "Making the guest's overlay")
    raise NotImplementedError
