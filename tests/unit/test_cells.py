"""Running a cell again closes what its last run made."""

from __future__ import annotations

import pytest

from ebpflab.display import cells


class Thing:
    def __init__(self, closed: list[Thing], *, fails: bool = False) -> None:
        self._closed, self._fails = closed, fails

    def close(self) -> None:
        self._closed.append(self)
        if self._fails:
            raise RuntimeError


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> list[Thing]:
    monkeypatch.setattr(cells, "_made", {})
    monkeypatch.setattr(cells, "current", lambda: ("cell", 1))
    return []


def again(monkeypatch: pytest.MonkeyPatch, run: int) -> None:
    monkeypatch.setattr(cells, "current", lambda: ("cell", run))
    cells.retire()


def test_the_last_one_is_closed_first_and_each_once(
    closed: list[Thing], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = Thing(closed), Thing(closed)
    for thing in (first, second):
        cells.adopt(thing)
    cells.retire()
    assert closed == []  # the same run
    again(monkeypatch, 2)
    assert closed == [second, first]
    again(monkeypatch, 3)
    assert closed == [second, first]


def test_what_could_not_be_closed_does_not_keep_the_others(
    closed: list[Thing], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = Thing(closed), Thing(closed, fails=True)
    for thing in (first, second):
        cells.adopt(thing)
    with pytest.raises(RuntimeError):
        again(monkeypatch, 2)
    again(monkeypatch, 3)
    assert closed == [second, first]
