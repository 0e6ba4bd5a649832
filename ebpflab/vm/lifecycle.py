"""What can be done with guests: build an image, list, remove, start one, see whether one could be.

Whatever is missing on the way to a running guest is made on the way, under the build lock; the
usual start, with everything there, takes no lock but the guest's own.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from ebpflab.errors import EbpflabError, VMError
from ebpflab.transport.base import OnStep
from ebpflab.vm import accel, cache, image, qemu, recipe, warm
from ebpflab.vm.guest import Guest

Result = TypeVar("Result")

_ACCELERATORS = ("kvm", "tcg")


@dataclass(frozen=True)
class ImageInfo:
    """An image in the cache."""

    hash: str
    suite: str
    kernel: str
    bcc: str
    size_bytes: int
    """On the disk, saved guests included."""
    created: datetime
    current: bool
    """Made from the recipe as it is now; else no lab will use it again."""
    warm: tuple[str, ...]
    """The accelerators for which a guest is saved."""
    accel: str | None
    """What guests run on here, once that is known; ``accel_reason`` says why."""
    accel_reason: str


def build(progress: OnStep) -> Path:
    """The image of the current recipe, with a guest of it saved; made if need be.

    Raises MissingTool or VMError, and then leaves nothing behind but the log it names.
    """
    made_from = recipe.current()
    path = _image_of(made_from, progress)
    _on_best_machine(path, made_from.arch, progress, lambda machine: None)
    return path


def start(
    progress: OnStep,
    parcel: bytes,
    console: socket.socket | None = None,
) -> Guest:
    """A new guest that runs the program in ``parcel`` (see transport/archive.py)."""
    made_from = recipe.current()
    path = _image_of(made_from, progress)
    return _on_best_machine(
        path, made_from.arch, progress, lambda machine: warm.resume(path, machine, parcel, console)
    )


def ready() -> bool:
    """Whether a lab would start at once: the current recipe's image is there, and warm."""
    try:
        made_from = recipe.current()
        path = cache.image_directory(made_from.hash)
        return image.is_complete(path) and bool(_warm_accelerators(path, made_from.arch))
    except EbpflabError:
        return False


def unavailable() -> str | None:
    """Why no guest can be had here, with the fix; None when one can."""
    try:
        made_from = recipe.current()
        qemu.program(made_from.arch)
        if not image.is_complete(cache.image_directory(made_from.hash)):
            image.check_tools()
    except EbpflabError as error:
        return str(error)
    return None


def images() -> list[ImageInfo]:
    """Every image in the cache, oldest first."""
    return [_describe(path) for path in cache.image_directories()]


def _image_of(made_from: recipe.Recipe, progress: OnStep) -> Path:
    path = cache.image_directory(made_from.hash)
    if not image.is_complete(path):
        with cache.build_lock(progress):
            image.build(made_from, progress)
    return path


def _on_best_machine(
    path: Path, arch: str, progress: OnStep, use: Callable[[qemu.Machine], Result]
) -> Result:
    """``use`` the machine that is fastest here. Where KVM still fails then, TCG does instead.

    A KVM that has run a guest here before is tried again by the next lab: it fails of a machine
    that is too busy, say, and the verdict would make every lab slow until the host boots.
    """
    machine = qemu.Machine(arch, accel.choose(path, arch, progress).name)
    slower = qemu.Machine(arch, "tcg")
    proven = warm.is_warm(path, machine)
    try:
        _warm(path, machine, progress)
        return use(machine)
    except VMError as error:
        if machine == slower or not (os.access(path, os.W_OK) or warm.is_warm(path, slower)):
            raise
        reason = str(error).splitlines()[0]
    if not proven:
        failed = f"KVM worked until a guest was run: {reason}"
        accel.record(path, arch, accel.Accel("tcg", failed))
    progress(f"KVM failed; going on without it, which is slower: {reason}")
    _warm(path, slower, progress)
    return use(slower)


def _warm(path: Path, machine: qemu.Machine, progress: OnStep) -> None:
    if not warm.is_warm(path, machine):
        with cache.build_lock(progress):
            warm.warm(path, machine, progress)


def _warm_accelerators(path: Path, arch: str) -> tuple[str, ...]:
    return tuple(name for name in _ACCELERATORS if warm.is_warm(path, qemu.Machine(arch, name)))


def _describe(path: Path) -> ImageInfo:
    facts = json.loads((path / "image.json").read_text())
    known = accel.verdict(path, facts["arch"])
    return ImageInfo(
        hash=path.name,
        suite=facts["suite"],
        kernel=facts["kernel"],
        bcc=facts["bcc"],
        size_bytes=cache.size_bytes(path),
        created=datetime.fromtimestamp(facts["created"], UTC),
        current=recipe.current(facts["suite"]).hash == path.name,
        warm=_warm_accelerators(path, facts["arch"]),
        accel=known.name if known else None,
        accel_reason=known.reason if known else "",
    )
