"""The command `ebpflab`: what it prints, and its exit status."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import types
from datetime import datetime
from pathlib import Path

import pytest

from ebpflab import cli
from ebpflab.errors import TargetError, VMError
from ebpflab.targets import sudo

ROWS = [
    {"feature": "uprobes", "status": "yes", "reason": "/sys/bus/uprobe is there", "fix": ""},
    {
        "feature": "kernel headers",
        "status": "no",
        "reason": "none for 6.18.44; uprobes and USDT probes can borrow those of 6.1.0-54-amd64",
        "fix": 'use the guest, Lab("vm"), which `make vm` builds',
    },
]

TABLE = """\
yes      uprobes                /sys/bus/uprobe is there
no       kernel headers         none for 6.18.44; uprobes and USDT
                                probes can borrow those of
                                6.1.0-54-amd64
                                -> use the guest, Lab("vm"), which `make
                                   vm` builds"""


def test_table_fits_the_terminal_and_keeps_words_whole() -> None:
    assert cli.table(ROWS, 72) == TABLE
    assert cli.table(ROWS, 1) == cli.table(ROWS, 60)


@pytest.fixture
def works(monkeypatch: pytest.MonkeyPatch) -> None:
    target = types.SimpleNamespace(name="vm", unavailable=lambda: None)
    monkeypatch.setattr(cli, "choose", lambda name: (target, "Tracing a VM, because."))
    monkeypatch.setattr(cli, "own_features", lambda: ROWS)


@pytest.mark.usefixtures("works")
def test_doctor_ends_with_the_choice(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "Lab() works here. Tracing a VM, because."


@pytest.mark.usefixtures("works")
def test_doctor_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said == {"features": ROWS, "target": "vm", "verdict": said["verdict"]}


@pytest.mark.usefixtures("works")
def test_doctor_says_what_to_do_where_nothing_works(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def nothing(name: str) -> None:
        raise TargetError("No machine to trace. Run: make vm")

    monkeypatch.setattr(cli, "choose", nothing)
    assert cli.main(["doctor"]) == 1
    assert capsys.readouterr().out.endswith("No machine to trace. Run: make vm\n")


@pytest.mark.usefixtures("works")
def test_doctor_checks_the_target_that_was_wished_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    target = types.SimpleNamespace(name="local", unavailable=lambda: "Needs root.")
    monkeypatch.setattr(cli, "choose", lambda name: (target, "as EBPFLAB_TARGET says"))
    assert cli.main(["doctor"]) == 1
    assert capsys.readouterr().out.endswith("Needs root.\n")


@pytest.fixture
def guest(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """`ebpflab.vm` that only takes note of what was asked of it."""
    asked: list[tuple[object, ...]] = []
    vm = types.ModuleType("ebpflab.vm")
    image = types.SimpleNamespace(
        hash="0123456789abcdef",
        suite="trixie",
        kernel="6.12.57+deb13-cloud-amd64",
        bcc="0.31.0",
        size_bytes=1_234_000_000,
        created=datetime(2026, 1, 2, 3, 4),
        accel="tcg",
        current=True,
    )

    def build(progress: object) -> Path:
        asked.append(("build",))
        assert callable(progress)
        progress("unpacking")
        return Path("/cache/image")

    vm.__dict__.update(
        build=build,
        images=lambda: [image] * (not asked),
        remove=lambda name: asked.append(("remove", name)),
        shell=lambda: 7,
    )
    monkeypatch.setitem(sys.modules, "ebpflab.vm", vm)
    monkeypatch.setattr("ebpflab.vm", vm, raising=False)
    return asked


def test_vm_commands(guest: list[tuple[object, ...]], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["vm", "list"]) == 0
    head, line = capsys.readouterr().out.splitlines()
    assert head.split() == ["HASH", "SUITE", "KERNEL", "BCC", "SIZE", "CREATED", "ACCEL"]
    cells = "0123456789ab trixie 6.12.57+deb13-cloud-amd64 0.31.0 1,234 MB 2026-01-02 03:04"
    assert line.split() == [*cells.split(), "tcg", "current"]
    assert cli.main(["vm", "build"]) == 0
    assert capsys.readouterr().out == "unpacking\nThe guest is ready: /cache/image\n"
    assert cli.main(["vm", "rm", "0123"]) == 0
    assert cli.main(["vm", "shell"]) == 7
    assert guest == [("build",), ("remove", "0123")]
    capsys.readouterr()
    assert cli.main(["vm", "list"]) == 0
    assert "ebpflab vm build" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("raised", "status", "said"),
    [
        (VMError("Building the guest: the disk is full."), 1, "ebpflab: Building the guest: the"),
        (KeyboardInterrupt(), 130, "ebpflab: interrupted."),
    ],
)
def test_failures_are_one_message(
    guest: list[tuple[object, ...]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    raised: BaseException,
    status: int,
    said: str,
) -> None:
    def fail() -> None:
        raise raised

    monkeypatch.setattr(sys.modules["ebpflab.vm"], "shell", fail)
    assert cli.main(["vm", "shell"]) == status
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error


def test_output_that_nobody_reads_is_no_traceback() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [Path(sys.executable).with_name("ebpflab"), "vm", "list"]
    ended = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (141, "")


def test_setup_sudo_asks_before_it_writes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written: list[str] = []
    monkeypatch.setattr(sudo, "user_to_allow", lambda: "alice")
    monkeypatch.setattr(sudo, "install", written.append)
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("builtins.input", lambda question: "")
    assert cli.main(["setup-sudo"]) == 1
    assert "alice ALL=(root) NOPASSWD" in capsys.readouterr().out
    assert written == []
    monkeypatch.setattr("builtins.input", lambda question: "y")
    assert cli.main(["setup-sudo"]) == 0
    assert written == ["alice"]


def test_setup_sudo_without_a_terminal_needs_yes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written: list[str] = []
    monkeypatch.setattr(sudo, "user_to_allow", lambda: "alice")
    monkeypatch.setattr(sudo, "install", written.append)
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(isatty=lambda: False))
    assert cli.main(["setup-sudo"]) == 1
    assert "--yes" in capsys.readouterr().err
    assert cli.main(["setup-sudo", "--yes"]) == 0
    assert written == ["alice"]


def test_setup_sudo_remove(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sudo, "remove", lambda: [Path("/etc/sudoers.d/ebpflab")])
    assert cli.main(["setup-sudo", "--remove"]) == 0
    assert capsys.readouterr().out == "Removed /etc/sudoers.d/ebpflab\n"
    monkeypatch.setattr(sudo, "remove", list)
    assert cli.main(["setup-sudo", "--remove"]) == 0
    assert "nothing to remove" in capsys.readouterr().out


@pytest.mark.parametrize("command", [[], ["doctor"], ["vm"], ["vm", "build"], ["setup-sudo"]])
def test_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([*command, "--help"])
    assert ended.value.code == 0
    assert "usage: ebpflab" in capsys.readouterr().out


def test_no_command_is_a_usage_error() -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([])
    assert ended.value.code == 2


def test_the_real_doctor() -> None:
    """As it is installed. Whatever the machine: a table, a verdict, 0 or 1, no traceback."""
    command = [Path(sys.executable).with_name("ebpflab"), "doctor"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode in (0, 1), done.stderr
    assert done.stderr == ""
    table, verdict = done.stdout.rsplit("\n\n", 1)
    assert ("running as root" in table) == (os.geteuid() == 0)
    assert (done.returncode == 0) == verdict.startswith("Lab() works here.")
