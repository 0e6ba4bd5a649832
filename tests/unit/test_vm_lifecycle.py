"""Which machine a guest gets, what happens when the better one fails, and how its end is told."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ebpflab import vm
from ebpflab.errors import VMError
from ebpflab.vm import accel, cache, image, lifecycle, qemu, warm
from ebpflab.vm.guest import Guest


class Guests:
    """Stands in for what would boot and resume: records it, and fails under KVM if told to."""

    def __init__(self) -> None:
        self.warmed: list[str] = []
        self.resumed: list[str] = []
        self.failing: str | None = None

    def is_warm(self, path: Path, machine: qemu.Machine) -> bool:
        return machine.accel in self.warmed

    def warm(self, path: Path, machine: qemu.Machine, progress: object) -> None:
        if self.failing == f"warm {machine.accel}":
            raise VMError("it hung\nits console")
        self.warmed.append(machine.accel)

    def resume(self, path: Path, machine: qemu.Machine, *others: object) -> str:
        if self.failing == f"resume {machine.accel}":
            raise VMError("it hung\nits console")
        self.resumed.append(machine.accel)
        return f"guest on {machine.accel}"


@pytest.fixture
def guests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Guests:
    """An image that exists, on a host whose KVM had passed its trial."""
    found = Guests()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache.root().mkdir(parents=True)
    monkeypatch.setattr(image, "is_complete", lambda path: True)
    monkeypatch.setattr(cache, "image_directory", lambda name: cache.root())
    monkeypatch.setattr(qemu, "identity", lambda arch: "this-qemu")
    monkeypatch.setattr(qemu, "program", lambda arch: "/usr/bin/qemu")
    monkeypatch.setattr(accel, "_DEVICE", tmp_path)
    accel.record(cache.root(), "amd64", accel.Accel("kvm", "a trial boot reached the kernel"))
    for name in ("is_warm", "warm", "resume"):
        monkeypatch.setattr(warm, name, getattr(found, name))
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    return found


def start() -> object:
    return lifecycle.start(print, b"parcel")


def test_a_guest_is_saved_once_and_resumed_each_time(guests: Guests) -> None:
    assert not vm.ready()
    assert start() == start() == "guest on kvm"
    assert (guests.warmed, guests.resumed) == (["kvm"], ["kvm", "kvm"])
    assert vm.ready()


@pytest.mark.parametrize("failing", ["warm kvm", "resume kvm"])
def test_kvm_that_fails_after_its_trial_is_given_up(guests: Guests, failing: str) -> None:
    guests.failing = failing
    assert start() == "guest on tcg"
    verdict = accel.verdict(cache.root(), "amd64")
    assert verdict == accel.Accel("tcg", "KVM worked until a guest was run: it hung")
    guests.failing = "nothing"
    assert start() == "guest on tcg"


def test_a_kvm_that_has_run_a_guest_is_tried_again(guests: Guests) -> None:
    assert start() == "guest on kvm"
    guests.failing = "resume kvm"
    assert start() == "guest on tcg"
    guests.failing = "nothing"
    assert start() == "guest on kvm"


def test_where_tcg_has_no_guest_and_cannot_get_one_the_failure_is_kvms(
    guests: Guests, monkeypatch: pytest.MonkeyPatch
) -> None:
    start()
    monkeypatch.setattr("os.access", lambda path, mode: path != cache.root())
    guests.failing = "resume kvm"
    with pytest.raises(VMError, match="it hung"):
        start()


def test_tcg_that_fails_has_nothing_to_fall_back_to(guests: Guests) -> None:
    accel.record(cache.root(), "amd64", accel.Accel("tcg", "no KVM"))
    guests.failing = "resume tcg"
    with pytest.raises(VMError, match="it hung"):
        start()


def test_a_qemu_that_takes_three_seconds_to_go_is_not_called_running() -> None:
    class Keeper:
        """Of a QEMU that was killed, on a busy machine."""

        def wait(self, timeout: float) -> int:
            if timeout < 3:
                raise subprocess.TimeoutExpired("keeper", timeout)
            return 128 + 9

    guest: Any = Guest.__new__(Guest)
    guest._ended, guest._keeper = None, Keeper()
    guest._console, guest._errors = os.memfd_create("console"), os.memfd_create("errors")
    try:
        assert guest.post_mortem() == "QEMU was killed by SIGKILL."
    finally:
        os.close(guest._console)
        os.close(guest._errors)
