"""Ending an agent that is a child of ours."""

from __future__ import annotations

import pytest

from ebpflab.errors import TargetError
from ebpflab.targets import child

DETACHING = ["/bin/sh", "-c", "read _; sleep 1"]
STUCK = ["/bin/sh", "-c", "sleep 60"]


class Child(child.ChildTransport):
    def post_mortem(self) -> str:
        return "It has ended."


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "_END_SECONDS", 0.1)
    monkeypatch.setattr(child, "_ROOTS_END_SECONDS", 0.5)


def may_not(transport: child.ChildTransport, patching: pytest.MonkeyPatch) -> None:
    """The child is sudo, and we are not root."""

    def kill() -> None:
        raise PermissionError

    patching.setattr(transport._process, "kill", kill)


def test_what_does_not_end_is_killed() -> None:
    transport = Child(STUCK)
    transport.close()
    assert transport.ending() == -9


def test_sudo_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "_ROOTS_END_SECONDS", 60)
    transport = Child(DETACHING)
    may_not(transport, monkeypatch)
    transport.close()
    assert transport.ending() == 0


def test_sudo_that_does_not_end_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    transport = Child(STUCK)
    with monkeypatch.context() as patch:
        may_not(transport, patch)
        with pytest.raises(TargetError, match=f"sudo kill -9 {transport._process.pid}"):
            transport.close()
    transport.close()
    assert transport.ending() == -9
