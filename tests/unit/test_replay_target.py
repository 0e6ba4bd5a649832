"""When Lab() plays a recording, of which chapter, and how it says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from ebpflab import Lab, targets
from ebpflab.errors import NotRecorded, RecordingError, TargetError
from ebpflab.replay import tape
from ebpflab.replay.tape import Batch, Exchange, Tape
from ebpflab.targets.local import LocalTarget
from ebpflab.targets.replay import ReplayTarget, chapters, running_notebook
from ebpflab.targets.vm import VmTarget

HELLO = {
    "protocol": 1,
    "kernel": "6.12.0-test",
    "arch": "x86_64",
    "bcc": "0.31.0",
    "pid": 320,
    "clock_offset_ns": 5,
}
FEATURES = [{"feature": name, "status": "yes", "reason": "", "fix": ""} for name in ("BCC", "KVM")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A recording of a lab that asked for features, and ran a command."""
    header = {"hello": HELLO, "date": "2026-11-20T10:00:00+00:00", "chapter": "01-kprobes"}
    said = {"ok": {"returncode": 0, "stdout_bytes": 2, "truncated": False}}
    asked = [
        Exchange({"op": "features"}, {"ok": {"features": FEATURES}}, b"", 0, None, False),
        Exchange(
            {"op": "start", "argv": ["ls"], "input": "", "cwd": None, "env": None},
            {"ok": {"pid": 11}},
            b"",
            1,
            None,
            False,
        ),
        Batch(7, 0, b"of nobody"),
        Exchange({"op": "wait", "pid": 11}, said, b"hi", 2, None, False),
    ]
    tape_path = tmp_path / "one.tape.xz"
    Tape({**header, "target": "vm", "seed": 1, "cells": []}, asked).save(tape_path)
    return tape_path


@pytest.fixture
def nothing_to_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalTarget, "unavailable", lambda _: "no root")
    monkeypatch.setattr(VmTarget, "unavailable", lambda _: "no QEMU")
    monkeypatch.delenv("EBPFLAB_TARGET", raising=False)
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)


def test_a_lab_says_that_it_is_a_recording_of_which_kernel_and_when(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Lab(f"replay:{path}") as lab:
        said = capsys.readouterr().out
        for text in (said, repr(lab)):
            assert "a recording of Linux 6.12.0-test x86_64, BCC 0.31.0, made on 2026-11-20" in text
        assert said.count("\n") == 1 and said.startswith("Nothing is traced: ")
        assert "of 2026-11-20; nothing is traced" in lab._repr_html_()
        attrs = lab.attrs
    assert (attrs["target"], attrs["recorded"]) == ("replay", "2026-11-20T10:00:00+00:00")
    assert lab.closed and "closed" in repr(lab)


def test_it_answers_what_was_recorded_and_refuses_the_rest(path: Path) -> None:
    with Lab(f"replay:{path}") as lab:
        done = lab.run(["ls"])
        assert (done.pid, done.stdout) == (11, "hi")
        with pytest.raises(NotRecorded, match="'tracepoint_format'"):
            lab.tracepoint_format("sched:sched_switch")
        assert list(lab.features()["feature"]) == ["BCC"], "as for the guest that was recorded"


@pytest.mark.usefixtures("nothing_to_trace")
def test_it_comes_last_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JPY_SESSION_NAME", "/lessons/01-kprobes.ipynb")
    target, why = targets.choose("auto")
    assert target.name == "replay" and "no QEMU" in why and "\n" not in why
    monkeypatch.setattr(VmTarget, "unavailable", lambda _: None)
    assert targets.choose("auto")[0].name == "vm"
    monkeypatch.setenv("EBPFLAB_TARGET", "replay")
    assert targets.choose("auto")[1] == "Playing 'replay', as EBPFLAB_TARGET says."


@pytest.mark.usefixtures("nothing_to_trace")
def test_outside_of_a_chapter_there_is_nothing_to_play() -> None:
    with pytest.raises(TargetError, match=r"(?s)local: .*vm: no QEMU.*replay: .*no notebook"):
        targets.choose("auto")


@pytest.mark.parametrize(
    ("session", "name"),
    [
        ("notebooks/01-kprobes.ipynb", "01-kprobes"),
        ("01-kprobes-Copy1.ipynb", "01-kprobes"),
        ("mine.ipynb", None),
        ("", None),
    ],
)
def test_a_chapter_is_found_by_the_notebooks_name(
    monkeypatch: pytest.MonkeyPatch, session: str, name: str | None
) -> None:
    monkeypatch.setenv("JPY_SESSION_NAME", session)
    assert running_notebook() == (Path(session).stem or None)
    reason = ReplayTarget().unavailable()
    assert reason is None if name else reason is not None and "01-kprobes" in reason


def test_a_recording_that_is_not_there_gets_the_closest() -> None:
    target = targets.choose("replay:01-kprobs")[0]
    with pytest.raises(RecordingError, match=r"'01-kprobs'.*Closest matches: 01-kprobes"):
        target.connect(lambda step: None)


def test_what_is_shipped_can_be_read() -> None:
    for name in chapters():
        played = tape.load(ReplayTarget(name)._path() or Path())
        assert played.header["chapter"] == name and played.header["target"] == "vm"
        assert len(played.items) > 10
