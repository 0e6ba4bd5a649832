"""What is asked of QEMU, without a QEMU."""

from __future__ import annotations

from pathlib import Path

import pytest

from ebpflab.errors import MissingTool
from ebpflab.vm import accel, process, qemu, warm

IMAGE = Path("/cache/image")
SAVED = Path("/a,b/warm")
STREAMS = qemu.Streams(wire=7, qmp=11, console=13)


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "find", lambda program: f"/usr/bin/{program}")


def resumed(machine: qemu.Machine) -> list[str]:
    return qemu.resumed(machine, IMAGE, SAVED / "disk.qcow2", SAVED / "memory", STREAMS)


def cold(machine: qemu.Machine) -> list[str]:
    return qemu.cold(machine, IMAGE, SAVED / "disk.qcow2", SAVED / "memory", STREAMS)


def test_a_guest_has_no_network_and_nothing_listens() -> None:
    command = resumed(qemu.Machine("amd64", "tcg"))
    assert command[command.index("-nic") + 1] == "none"
    assert not any(word in text for text in command for word in ("server", "tcp", "host=", "unix"))
    assert "socket,id=wire,fd=7" in command
    assert "socket,id=qmp,fd=11" in command
    assert "file,id=console,path=/dev/fd/13,append=on" in command


def test_resuming_changes_nothing_that_was_saved() -> None:
    command = resumed(qemu.Machine("amd64", "tcg"))
    assert "file=/a,,b/warm/disk.qcow2,if=none,id=disk,cache=unsafe,snapshot=on" in command
    assert any("mem-path=/a,,b/warm/memory,share=off" in text for text in command)
    assert command[-2:] == ["-incoming", "defer"]


def test_saving_and_resuming_are_of_one_machine() -> None:
    machine = qemu.Machine("amd64", "tcg")
    differ = {"share=on", "share=off", "snapshot=on", "-incoming", "defer"}
    before, after = (
        {part for text in command for part in text.split(",")} - differ
        for command in (cold(machine), resumed(machine))
    )
    assert before == after


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        (qemu.Machine("amd64", "tcg"), ("qemu-system-x86_64", "max", "ttyS0")),
        (qemu.Machine("amd64", "kvm"), ("qemu-system-x86_64", "host", "ttyS0")),
        (qemu.Machine("arm64", "tcg"), ("qemu-system-aarch64", "max", "ttyAMA0")),
    ],
)
def test_each_machine(machine: qemu.Machine, expected: tuple[str, str, str]) -> None:
    program, cpu, console = expected
    command = resumed(machine)
    assert command[0] == f"/usr/bin/{program}"
    assert command[command.index("-accel") + 1] == machine.accelerator
    assert command[command.index("-cpu") + 1] == cpu
    assert f"console={console} " in command[command.index("-append") + 1]


def test_an_interactive_console_is_a_socket() -> None:
    streams = qemu.Streams(7, 11, 13, console_is_socket=True)
    command = qemu.resumed(qemu.Machine("amd64", "tcg"), IMAGE, SAVED, SAVED, streams)
    assert "socket,id=console,fd=13" in command


def test_a_missing_qemu_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "find", lambda program: None)
    with pytest.raises(MissingTool, match="sudo apt install qemu-system-arm"):
        qemu.program("arm64")


def test_kvm_that_may_not_be_opened_is_not_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accel, "_DEVICE", tmp_path / "kvm")
    assert accel.choose(tmp_path, "amd64", print).reason == "this machine has no /dev/kvm"
    (tmp_path / "kvm").touch()
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert "usermod" in accel.choose(tmp_path, "amd64", print).reason


@pytest.mark.parametrize(
    ("qemu_does", "expected"),
    [
        ("echo '[0.0] Linux version 6.1' >/dev/fd/$console; sleep 97", ("kvm", "reached the")),
        ("echo 'KVM internal error. Suberror: 1' >&2; sleep 97", ("tcg", "Suberror: 1")),
        ("echo 'qemu: could not access KVM' >&2; kill -ABRT $$", ("tcg", "could not access")),
        ("sleep 97", ("tcg", "reached no kernel")),
    ],
)
def test_the_trial_of_kvm(
    qemu_does: str, expected: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accel, "_DEVICE", tmp_path)
    monkeypatch.setattr(accel, "_TRIAL_SECONDS", 1.0)
    monkeypatch.setattr(qemu, "identity", lambda arch: "this-qemu")
    monkeypatch.setattr(
        qemu, "trial", lambda machine, image, fd: ["sh", "-c", f"console={fd}; {qemu_does}"]
    )
    found = accel.choose(tmp_path, "amd64", print)
    assert found.name == expected[0]
    assert expected[1] in found.reason
    monkeypatch.setattr(qemu, "trial", lambda machine, image, fd: pytest.fail("tried again"))
    assert accel.choose(tmp_path, "amd64", print) == found


def test_a_verdict_holds_only_for_its_qemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qemu, "identity", lambda arch: "one")
    accel.record(tmp_path, "amd64", accel.Accel("kvm", "worked"))
    assert accel.verdict(tmp_path, "amd64") == accel.Accel("kvm", "worked")
    monkeypatch.setattr(qemu, "identity", lambda arch: "another")
    assert accel.verdict(tmp_path, "amd64") is None


@pytest.mark.parametrize("helped", ["  rom=<OnOffAuto>\n", "  readonly=<bool>\n"])
def test_memory_that_may_only_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, helped: str
) -> None:
    program = tmp_path / "qemu"
    program.write_text(f"#!/bin/sh\nprintf '{helped.strip()}'\n")
    program.chmod(0o755)
    monkeypatch.setattr(process, "find", lambda name: str(program))
    qemu.maps_what_it_may_only_read.cache_clear()
    machine = qemu.Machine("amd64", "tcg")
    assert qemu.maps_what_it_may_only_read(machine) == ("rom=" in helped)
    qemu.maps_what_it_may_only_read.cache_clear()
    command = qemu.resumed(machine, IMAGE, SAVED, SAVED / "memory", STREAMS, read_only=True)
    assert any(text.endswith("share=off,readonly=on,rom=off") for text in command)
    assert not any("readonly" in text for text in resumed(machine))


def test_a_copy_of_memory_keeps_its_holes(tmp_path: Path) -> None:
    source, target = tmp_path / "memory", tmp_path / "copy"
    with source.open("wb") as file:
        file.seek(5 << 20)
        file.write(b"x" * 4096)
        file.truncate(64 << 20)
    with target.open("w+b") as copy:
        warm._copy_data(source, copy.fileno())
    assert target.read_bytes() == source.read_bytes()
    assert target.stat().st_blocks * 512 < 1 << 20
