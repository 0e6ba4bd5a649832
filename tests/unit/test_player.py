"""Which answers a recording gives, to cells that are run in order, again, or not at all."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from ebpflab import errors
from ebpflab.replay import tape
from ebpflab.replay.player import Player, Reply
from ebpflab.replay.tape import Batch, Exchange, Tape

LOAD = {"op": "load", "source": "int f;", "cflags": [], "headers": None, "usdt_contexts": []}
MAPS = [{"name": "events", "stream": 5}, {"name": "counts", "stream": None}]
LOADED = {"ok": {"maps": MAPS, "messages": None}}
LOOK = {"op": "table", "program": 1, "name": "counts"}


def recorded() -> Tape:
    """Three cells: one loads, one runs two commands and collects, one collects with a live view."""

    def cell(
        number: int, asked: dict[str, Any], said: dict[str, Any], sent: int, blob: bytes = b""
    ) -> Exchange:
        return Exchange(asked, said, blob, sent, number, aside=False)

    def view(sent: int, blob: bytes) -> Exchange:
        return Exchange(LOOK, {"ok": {}}, blob, sent, None, aside=True)

    items: list[Batch | Exchange] = [
        cell(0, {**LOAD, "program": 1}, LOADED, 0),
        cell(1, {"op": "start", "argv": ["ls"]}, {"ok": {"pid": 11}}, 1),
        Batch(5, 0, b"one"),
        cell(1, {"op": "sync", "streams": [5]}, {"ok": {}}, 2),
        cell(1, {"op": "start", "argv": ["ls"]}, {"ok": {"pid": 12}}, 4),
        Batch(5, 3, b"two"),
        Batch(99, 0, b"of a program that is not there"),
        cell(1, {"op": "sync", "streams": [5]}, {"ok": {}}, 7),
        view(8, b"a"),
        Batch(5, 3, b"three"),
        view(10, b"b"),
        cell(2, {"op": "sync", "streams": [5]}, {"ok": {}}, 11),
        view(12, b"c"),
    ]
    header = {
        "hello": {"kernel": "6.12", "arch": "x86_64", "bcc": "0.31"},
        "date": "2026-11-20T10:00:00+00:00",
        "seed": 7,
        "cells": [[tape.text_name(f"text {n}"), f"id-{n}"] for n in range(3)],
    }
    return Tape(header, items)


def test_what_is_answered_again_and_again_is_stored_once(tmp_path: Path) -> None:
    part = random.Random(1).randbytes(3 << 20)  # nothing that could be compressed
    whole = recorded()
    again = [Exchange(LOOK, {"ok": {"n": n}}, part, 0, None, aside=True) for n in range(5)]
    Tape(whole.header, [*whole.items, *again]).save(tmp_path / "parts")
    assert tape.load(tmp_path / "parts").items == [*whole.items, *again]
    assert (tmp_path / "parts").stat().st_size < 2 * len(part)


class Notebook:
    """Runs cells against a player, and keeps what the stream of its program has got."""

    def __init__(self) -> None:
        self.player, self.got = Player(recorded()), list[bytes]()
        self.stream = self.runs = 0

    def ask(self, run: tuple[str, int] | None, aside: bool = False, **request: Any) -> Reply:
        reply = self.player.reply({"id": 1, **request}, run, aside)
        self.got += [batch.data for batch in reply.batches]
        return reply

    def cell(self, name: str, *requests: dict[str, Any]) -> list[dict[str, Any]]:
        self.runs += 1
        return [self.ask((name, self.runs), **request).said for request in requests]

    def load(self, program: int = 40) -> None:
        (said,) = self.cell("text 0", {**LOAD, "program": program})
        self.stream = said["ok"]["maps"][0]["stream"]

    @property
    def work(self) -> list[dict[str, Any]]:
        start = {"op": "start", "argv": ["ls"]}
        sync = {"op": "sync", "streams": [self.stream]}
        return [start, sync, start, sync]


def test_in_order_each_answer_comes_after_what_was_seen_before_it() -> None:
    notebook = Notebook()
    notebook.load()
    said = notebook.cell("text 1", *notebook.work)
    assert [said[0]["ok"]["pid"], said[2]["ok"]["pid"]] == [11, 12]
    assert notebook.got == [b"one", b"two"]


@pytest.mark.parametrize("name", ["text 1", "id-1"])
def test_a_cell_that_runs_again_sees_the_same_again(name: str) -> None:
    notebook = Notebook()
    notebook.load()
    for _ in range(2):
        notebook.got.clear()
        said = notebook.cell(name, *notebook.work)
        assert [said[0]["ok"]["pid"], said[2]["ok"]["pid"]] == [11, 12]
        assert notebook.got == [b"one", b"two"]


def test_a_program_that_is_loaded_again_has_new_streams_with_the_same_rows() -> None:
    notebook = Notebook()
    notebook.load(40)
    before = notebook.stream
    notebook.cell("text 1", *notebook.work)
    notebook.got.clear()
    notebook.load(41)
    assert notebook.stream != before
    notebook.cell("text 1", *notebook.work)
    assert notebook.got == [b"one", b"two"]


def test_a_cell_that_is_skipped_leaves_no_rows() -> None:
    notebook = Notebook()
    notebook.load()
    notebook.cell("text 2", {"op": "sync", "streams": [notebook.stream]})
    assert notebook.got == []


def test_what_came_between_two_cells_comes_with_the_second() -> None:
    notebook = Notebook()
    notebook.load()
    notebook.cell("text 1", *notebook.work)
    notebook.cell("text 2", {"op": "sync", "streams": [notebook.stream]})
    assert notebook.got == [b"one", b"two", b"three"]


def test_a_live_view_goes_on_up_to_the_next_cell_and_then_sees_nothing_new() -> None:
    notebook = Notebook()
    notebook.load(40)
    notebook.cell("text 1", *notebook.work)
    look = {**LOOK, "program": 40}
    assert [notebook.ask(None, aside=True, **look).blob for _ in range(4)] == [b"a", *[b"b"] * 3]
    assert notebook.got == [b"one", b"two", b"three"]
    notebook.cell("text 2", {"op": "sync", "streams": [notebook.stream]})
    assert notebook.ask(None, aside=True, **look).blob == b"c"
    assert notebook.got == [b"one", b"two", b"three"]


def test_outside_of_a_notebook_requests_are_answered_in_order() -> None:
    notebook = Notebook()
    (said,) = notebook.ask(None, **LOAD, program=7).said["ok"]["maps"][:1]
    notebook.stream = said["stream"]
    pids = [notebook.ask(None, **each).said["ok"].get("pid") for each in notebook.work]
    assert pids == [11, None, 12, None] and notebook.got == [b"one", b"two"]


def test_a_cell_of_the_readers_own_gets_what_is_there_and_moves_nothing_back() -> None:
    notebook = Notebook()
    notebook.load()
    notebook.cell("text 1", *notebook.work)
    (said,) = notebook.cell("my own", {"op": "start", "argv": ["ls"]})
    assert said["ok"]["pid"] == 12
    notebook.cell("text 2", {"op": "sync", "streams": [notebook.stream]})
    assert notebook.got == [b"one", b"two", b"three"]


def test_a_changed_program_is_refused_with_the_line_and_what_to_do() -> None:
    said = Notebook().cell("text 0", {**LOAD, "source": "int f ;", "program": 1})[0]
    error = errors.from_fault(said["fault"])
    assert isinstance(error, errors.NotRecorded)
    for told in (
        "Linux 6.12",
        "2026-11-20",
        "no recording of this C program",
        "it has 1 program",
        "line 1",
        "int f;",
        "int f ;",
        'Lab("vm")',
    ):
        assert told in str(error)


def test_other_flags_are_refused_as_such() -> None:
    said = Notebook().cell("text 0", {**LOAD, "cflags": ["-DX"], "program": 1})[0]
    assert "same text, with other cflags" in said["fault"]["message"]


def test_a_command_that_was_not_run_is_refused_with_the_closest() -> None:
    said = Notebook().cell("text 1", {"op": "start", "argv": ["ls", "-l"]})[0]
    assert "ls -l\nwas not run" in said["fault"]["message"]
    assert said["fault"]["message"].count("  ls\n") == 1


def test_any_other_request_is_refused_by_name() -> None:
    said = Notebook().cell("text 1", {"op": "tracepoints", "pattern": "sched:*"})[0]
    assert "'tracepoints'" in said["fault"]["message"] and "sched:*" in said["fault"]["message"]


def test_closing_what_was_never_closed_does_not_fail() -> None:
    notebook = Notebook()
    notebook.load(40)
    (said,) = notebook.cell("text 2", {"op": "close", "program": 40})
    assert (
        said["ok"]["stats"]["functions"] == {} and "does not tell" in said["ok"]["stats"]["problem"]
    )


def test_a_tape_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "one.tape.xz"
    whole = recorded()
    whole.save(path)
    assert tape.load(path) == whole
    assert [each.name for each in path.parent.iterdir()] == ["one.tape.xz"]


@pytest.mark.parametrize("cut", [0, 5, -9])
def test_a_tape_that_is_cut_off_or_none_is_named(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "one.tape.xz"
    recorded().save(path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(errors.RecordingError, match=r"one\.tape\.xz"):
        tape.load(path)


def test_a_tape_of_another_version_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "one.tape.xz"
    monkeypatch.setattr(tape, "FORMAT", 0)
    recorded().save(path)
    monkeypatch.undo()
    with pytest.raises(errors.RecordingError, match="another version"):
        tape.load(path)
