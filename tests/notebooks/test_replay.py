"""Every chapter from its recording: no kernel, no root, no QEMU."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import chapters as reader
import pytest

from ebpflab import chapters
from ebpflab.replay import tape
from ebpflab.targets import replay

NAMES = sorted(path.stem for path in reader.NOTEBOOKS.glob("*.ipynb"))
REPOSITORY = reader.NOTEBOOKS.parent


def _tape(name: str) -> Path:
    return replay.CHAPTERS / f"{name}{tape.SUFFIX}"


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
    text = repr(tape.load(_tape(name)))
    for path in (str(REPOSITORY), sys.prefix, os.environ.get("TMPDIR", sys.prefix)):
        # Not within another: debug information of the guest names go-hello/work/main.go.
        assert not re.search(rf"(?<![\w/.-]){re.escape(path)}(?![\w.-])", text), path
    assert re.findall(r"/home/\w+|/Users/\w+|PRIVATE KEY|JPY_\w+|EBPFLAB_\w+", text) == []


def test_all_of_them_are_small() -> None:
    assert sum(_tape(name).stat().st_size for name in NAMES) < 20_000_000
