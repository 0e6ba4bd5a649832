"""Chapter 10 on a real kernel, in the VM: what a reader would see, and that it is true."""

from __future__ import annotations

import re

import pytest
from chapters import Chapter, run

pytestmark = [pytest.mark.vm, pytest.mark.timeout(600)]

ANSWER = '''my_lines = r"""
    if (key.pid != TARGET)
        return 0;
    counts.increment(key);
"""
my_source = on_cpu_source.replace("    counts.increment(key);", my_lines)'''


@pytest.fixture(scope="module")
def flames() -> Chapter:
    return run("10-flame-graphs", answers={"exercise-2-answer": ANSWER})


def picture(chapter: Chapter, cell: str) -> str:
    """What the flame graph of a cell says in words; there is a page and a picture as well."""
    (told,) = [o["data"] for o in chapter.cells[cell].outputs if "image/png" in o.get("data", {})]
    assert "<iframe" in told["text/html"]
    return str(told["text/plain"])


def test_no_cell_writes_to_stderr(flames: Chapter) -> None:
    for name, cell in flames.cells.items():
        streams = [output.get("name") for output in cell.get("outputs", [])]
        assert "stderr" not in streams, name


def test_the_hot_function_is_found(flames: Chapter) -> None:
    samples = int(flames.text("run").split(" samples in")[0].split()[-1])
    assert 100 < samples < 1.3 * 5 * 99
    assert "main · user · hot" in flames.text("ours")
    assert flames.text("ours").splitlines()[-1].startswith("checksum")
    found = re.search(r"checksum: (\d+) of the (\d+) samples of main, (\d+)%", flames.text("share"))
    assert found and 58 <= int(found[3]) <= 82
    assert picture(flames, "flame").startswith(f"<FlameGraph 'hot, 99 samples a second': {samples}")
    assert "samples in" in picture(flames, "go")


def test_the_repair_is_compared(flames: Chapter) -> None:
    before, after = map(int, re.findall(r"answered (\d+) requests", flames.text("repaired")))
    assert after > before
    assert "red has grown, blue has shrunk" in picture(flames, "repaired")


def test_waiting_is_seen_off_the_cpu(flames: Chapter) -> None:
    said = re.search(
        r"compare: ([\d.]+) ms", picture(flames, "off-cpu").replace("CPU':", "compare:")
    )
    assert said and 300 <= float(said[1]) < 400
    measured = re.match(
        r"(\d+) ms; your prediction: None \(no answer yet\)", flames.text("exercise-1-check")
    )
    asked = re.search(r"--sleep (\d) (\d+)", flames.text("exercise-1"))
    assert measured and asked
    truth = int(asked[1]) * int(asked[2])
    assert truth <= int(measured[1]) < 1.2 * truth + 20


def test_failures_are_told(flames: Chapter) -> None:
    assert "asks for 1,000,000,000 samples a second" in flames.text("storm")
    assert "sample_freq=99" in flames.text("storm")
    assert re.search(r"Lost: [\d,]+ samples \(\d", picture(flames, "small"))


def test_the_exercise_has_a_solution(flames: Chapter) -> None:
    assert flames.text("exercise-2-check").endswith("1 processes in your table (right)\n")
