"""Every chapter from its recording: no kernel, no root, no QEMU."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chapters as reader
import pytest

from ebpflab.notebook import chapters
from ebpflab.replay import tape

NAMES = sorted(path.stem for path in reader.NOTEBOOKS.glob("*.ipynb"))
REPOSITORY = reader.NOTEBOOKS.parent


def _tape(name: str) -> Path:
    return tape.CHAPTERS / f"{name}{tape.SUFFIX}"


@pytest.fixture
def nothing_to_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without QEMU, sudo, ssh and a guest's image, where the chapter asks for no target.

    Were another one than the recording asked for, there would be none.
    """
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("EBPFLAB_TARGET", "replay")


@pytest.mark.parametrize("name", NAMES)
def test_its_recording_is_of_the_chapter_as_it_is(name: str) -> None:
    why = chapters.stale(reader.NOTEBOOKS / f"{name}.ipynb")
    assert why is None, f"{why}: `make recordings`, or `ebpflab record notebooks/{name}.ipynb`"


@pytest.mark.usefixtures("nothing_to_trace")
@pytest.mark.parametrize("name", NAMES)
def test_it_runs_from_top_to_bottom(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JPY_SESSION_NAME", f"notebooks/{name}.ipynb")
    played = reader.run(name)
    outputs = [each for cell in played.cells.values() for each in cell.get("outputs", [])]
    printed = "".join(each["text"] for each in outputs if each.get("name") == "stdout")
    header = tape.load(_tape(name)).header
    kernel, date = header["hello"]["kernel"], header["date"][:10]
    (line,) = re.findall("Nothing is traced: .*", printed)
    assert f"a recording of Linux {kernel} " in line and f"made on {date}" in line
    assert not [each for each in outputs if each.get("name") == "stderr"]


def test_the_recorded_repair_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    # On a busy machine it may not be, and whoever reads the chapter without a kernel would wonder.
    monkeypatch.setenv("EBPFLAB_TARGET", "replay:10-flame-graphs")
    played = reader.run("10-flame-graphs")
    before, after = map(int, re.findall(r"answered (\d+) requests", played.text("repaired")))
    assert 2 * before < after


def test_recorded_reader_stood_still_while_records_were_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Likewise: on a busy machine it may empty the ring once more, and more records arrive.
    monkeypatch.setenv("EBPFLAB_TARGET", "replay:08-perf-events")
    needed = ["lab", "burst-source", "burst-run", "burst-which"]
    played = reader.run("08-perf-events", only=needed)
    numbers = re.findall(r"^(?:produced|delivered|lost) +(\d+)$", played.text("burst-run"), re.M)
    assert [int(number) for number in numbers] == [6900, 56, 6844]
    assert "from 0 to 55" in played.text("burst-which")


@pytest.mark.parametrize("name", NAMES)
def test_it_holds_nothing_of_the_machine_that_made_it(name: str) -> None:
    assert _of_a_machine(tape.load(_tape(name))) == []


@pytest.mark.parametrize(
    "planted",
    [b"\0%b\0", b"%b", b"src=%b/labs", b"/home/ann/x", b"/home/\xc3\xa9ve", b"JPY_SESSION_NAME=x"],
)
def test_path_of_this_machine_is_found_wherever_a_tape_has_it(planted: bytes) -> None:
    data = planted.replace(b"%b", os.fsencode(REPOSITORY))
    text = data.decode()
    for item in (
        tape.Batch(0, 0, b"\0" + data),
        tape.Exchange({}, {}, b"\0" + data, 0, None, False),
        tape.Exchange({"op": "start", "argv": [text]}, {}, b"", 0, None, False),
        tape.Exchange({}, {"ok": {text: 1}}, b"", 0, None, False),
    ):
        assert _of_a_machine(tape.Tape({"chapter": "x"}, [item])) != []
    assert _of_a_machine(tape.Tape({"cells": [[text]]}, [])) != []


@pytest.mark.parametrize("path", ["go-hello%s/main.go", "%s.go", "/opt%s"])
def test_part_of_another_path_is_no_path_of_this_machine(path: str) -> None:
    item = tape.Batch(0, 0, path.replace("%s", str(REPOSITORY)).encode())
    assert _of_a_machine(tape.Tape({}, [item])) == []


def _of_a_machine(played: tape.Tape) -> list[bytes]:
    """What in a tape names files or variables of the machine that made it."""
    # Each text once: a tape repeats the parts of a traced program, 04-uprobes six times over.
    text = b"\n".join(set(_texts(played)))
    found = re.findall(rb"/(?:home|Users)/[\w\x80-\xff]+|PRIVATE KEY|(?:JPY|EBPFLAB)_\w+", text)
    for path in (str(REPOSITORY), sys.prefix, os.environ.get("TMPDIR", sys.prefix)):
        # Not within another: debug information of the guest names go-hello/work/main.go. The path
        # comes first in the expression, so that `re` searches for it as a whole.
        path_re = re.escape(os.fsencode(path))
        found += re.findall(rb"%b(?<![\w/.-]%b)(?![\w.-])" % (path_re, path_re), text)
    return found


def _texts(part: Any) -> Iterator[bytes]:
    """All bytes and strings in a part of a tape, as bytes."""
    if isinstance(part, bytes):
        yield part
    elif isinstance(part, str):
        yield part.encode(errors="surrogatepass")
    elif isinstance(part, dict):
        for pair in part.items():
            yield from _texts(pair)
    elif isinstance(part, (list, tuple)):
        for each in part:
            yield from _texts(each)
    elif isinstance(part, (tape.Tape, tape.Batch, tape.Exchange)):
        yield from _texts(vars(part))
    else:
        assert part is None or isinstance(part, (bool, int, float)), type(part)


def test_all_of_them_are_small() -> None:
    assert sum(_tape(name).stat().st_size for name in NAMES) < 20_000_000
