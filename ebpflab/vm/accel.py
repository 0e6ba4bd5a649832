"""Whether KVM can be used: tried, never assumed.

`/dev/kvm` may exist and not work (nested, under a hypervisor that hides half of it), which
shows as a QEMU that aborts or hangs. So the image's own kernel is booted with it until its
first line is on the console. The verdict is kept beside the image, for this QEMU and until the
host boots again.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from ebpflab.transport.base import OnStep
from ebpflab.vm import process, qemu

_DEVICE = Path("/dev/kvm")
_TRIAL_SECONDS = 10.0
_FIRST_LINE = b"Linux version"
_STANDSTILL = "KVM internal error"


@dataclass(frozen=True)
class Accel:
    """``kvm`` or ``tcg``, and why."""

    name: str
    reason: str


def choose(image: Path, arch: str, progress: OnStep) -> Accel:
    """The accelerator for guests of ``image``; the first time after a boot takes a trial."""
    if not _DEVICE.exists():
        return Accel("tcg", "this machine has no /dev/kvm")
    if not os.access(_DEVICE, os.R_OK | os.W_OK):
        return Accel("tcg", "you may not open /dev/kvm: sudo usermod --append --groups kvm $USER")
    known = verdict(image, arch)
    if known is None:
        progress("trying whether KVM works here")
        known = _try_kvm(image, arch)
        record(image, arch, known)
    return known


def verdict(image: Path, arch: str) -> Accel | None:
    """What was found out for this QEMU since the host booted."""
    try:
        kept = json.loads((image / "accel.json").read_text())
    except (OSError, ValueError):
        return None
    if kept.pop("of", None) != _circumstances(arch):
        return None
    return Accel(**kept)


def record(image: Path, arch: str, found: Accel) -> None:
    """Keep a verdict; later guests go by it. Of everybody's image only its owner can."""
    if not os.access(image, os.W_OK):
        return
    text = json.dumps({**asdict(found), "of": _circumstances(arch)})
    draft = image / f"accel.json.{os.getpid()}"
    draft.write_text(text)
    draft.replace(image / "accel.json")


def _circumstances(arch: str) -> str:
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{qemu.identity(arch)} {boot_id}"


def _try_kvm(image: Path, arch: str) -> Accel:
    console = os.memfd_create("ebpflab-trial-console")
    errors = os.memfd_create("ebpflab-trial-errors")
    command = qemu.trial(qemu.Machine(arch, "kvm"), image, console)
    keeper = process.start(command, inherit=[console], output=subprocess.DEVNULL, error=errors)
    try:
        return _watch(keeper, console, errors)
    finally:
        process.kill(keeper)
        os.close(console)
        os.close(errors)


def _watch(keeper: subprocess.Popen[bytes], console: int, errors: int) -> Accel:
    deadline = time.monotonic() + _TRIAL_SECONDS
    while time.monotonic() < deadline:
        ended = keeper.poll()
        if _FIRST_LINE in os.pread(console, 1 << 16, 0):
            return Accel("kvm", "a trial boot reached the kernel")
        complaint = os.pread(errors, 200, 0).decode(errors="replace").split("\n")[0]
        # After an internal error of KVM, QEMU lives on with a guest that stands still.
        if ended is not None or _STANDSTILL in complaint:
            return Accel("tcg", f"a trial boot with KVM failed: {complaint or f'status {ended}'}")
        time.sleep(0.02)
    return Accel("tcg", f"a trial boot with KVM reached no kernel in {_TRIAL_SECONDS:.0f} s")
