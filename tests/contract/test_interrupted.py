"""What is interrupted while the agent works on it is done all the same, and then undone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from interrupts import Wait

from ebpflab import Lab, Program
from ebpflab.decode import btf
from ebpflab.errors import AttachError, ProgramError
from ebpflab.protocol.messages import STATS, OfProgram
from ebpflab.transport import connection

COUNT = r"""
BPF_ARRAY(hits, u64, 1);
int on_work(void *ctx) { hits.increment(0); return 0; }
"""
TYPED = r"""
struct seen { u64 number; };
BPF_RINGBUF_OUTPUT(calls, 8);
int on_work(void *ctx) {
  struct seen seen = {1};
  calls.ringbuf_output(&seen, sizeof(seen), 0);
  return 0;
}
"""


@contextmanager
def interrupted(patching: pytest.MonkeyPatch, lab: Lab) -> Iterator[None]:
    with patching.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(connection, "Future", Wait)
        yield
    lab.syscall_name("read")  # answered when that has been, and so has been undone


def attach(prog: Program, program: str) -> None:
    """With no other request before it, as `Program.attach_uprobe` has."""
    where = {"name": program, "sym": "work", "pid": -1}
    prog._attachments.attach("uprobe", "on_work", where)


def test_a_probe_is_taken_away(lab: Lab, program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with lab.load(COUNT) as prog:
        with interrupted(monkeypatch, lab):
            attach(prog, program)
        assert prog.attached == []
        lab.run([program, "3"])
        assert list(prog["hits"].frame()["value"]) == [0]


def test_a_probe_that_was_there_stays(
    lab: Lab, program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with lab.load(COUNT) as prog:
        attach(prog, program)
        with interrupted(monkeypatch, lab):
            attach(prog, program)
        assert prog.attached == [f"uprobe {program}:work -> on_work"]
        lab.run([program, "3"])
        assert list(prog["hits"].frame()["value"]) == [3]


def test_a_command_is_killed(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    own = os.getpid()  # other tests of this machine may be running this one
    with interrupted(monkeypatch, lab):
        lab.run(["/bin/sleep", f"7654.{own}"])
    until_gone = f"while pgrep -f 'sleep 7654[.]{own}'; do sleep 0.1; done"
    assert lab.run(["/bin/sh", "-c", until_gone]).returncode == 0


def test_a_detach_is_done(lab: Lab, program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with lab.load(COUNT) as prog:
        prog.attach_uprobe(name=program, sym="work", fn_name="on_work")
        with interrupted(monkeypatch, lab):
            prog.detach()
        assert prog.attached == []
        lab.run([program, "3"])
        assert list(prog["hits"].frame()["value"]) == [0]
        prog.attach_again()
        lab.run([program, "5"])
        assert list(prog["hits"].frame()["value"]) == [5]


@pytest.mark.local
def test_a_program_is_closed_when_the_notebook_did_not_come_to_know_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def at_this_moment(blob: bytes) -> None:
        raise KeyboardInterrupt

    with Lab("local") as lab:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(btf, "Types", at_this_moment)
            lab.load(TYPED)
        with pytest.raises(ProgramError, match="closed"):
            lab._connection.request(STATS, OfProgram(program=1))


def test_all_is_attached_again_or_nothing(lab: Lab, program: str) -> None:
    with lab.load(COUNT) as prog:
        process = lab.start(["/bin/sleep", "60"])
        prog.attach_uprobe(name=program, sym="work", fn_name="on_work")
        prog.attach_uprobe(name="c", sym="puts", fn_name="on_work", pid=process.pid)
        prog.detach()
        process.stop()
        for _ in range(2):  # the second time as the first
            with pytest.raises(AttachError, match=str(process.pid)):
                prog.attach_again()
            assert prog.attached == []
            lab.run([program, "3"])
            assert list(prog["hits"].frame()["value"]) == [0]
