"""The page that `make matrix` writes, from saved results of pytest."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

KINDS = """<testsuites><testsuite>
<testcase classname="tests.kernel.test_probe_kinds" name="test_it[kprobe]"/>
<testcase classname="tests.kernel.test_probe_kinds" name="test_it[return from Go]"><failure>
lab = ...
E           ebpflab.errors.HeadersError: BCC cannot compile | for this kernel
tests/kernel/test_probe_kinds.py:170: HeadersError</failure></testcase>
</testsuite></testsuites>"""
CHAPTERS = """<testsuites><testsuite>
<testcase classname="tests.notebooks.test_chapters" name="test_no_cell_writes_to_stderr"/>
<testcase classname="tests.notebooks.test_chapters" name="test_01_times_are_now"/>
<testcase classname="tests.notebooks.test_06_usdt" name="test_a"/>
<testcase classname="tests.notebooks.test_06_usdt" name="test_b"><failure>
E       AssertionError: assert 3 == 4
E       and more</failure></testcase>
<testcase classname="tests.notebooks.test_07_fentry" name="test_a"><error>
E           nbclient.exceptions.CellExecutionError: An error occurred while executing
E           HeadersError: BCC cannot compile | for this kernel</error></testcase>
</testsuite></testsuites>"""


@pytest.fixture(scope="module")
def report() -> ModuleType:
    path = Path(__file__).parents[1] / "matrix" / "compatibility.py"
    spec = importlib.util.spec_from_file_location("matrix_report", path)
    assert spec and spec.loader
    module = sys.modules["matrix_report"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_column_says_yes_or_how_many_and_why(report: ModuleType, tmp_path: Path) -> None:
    for name, text in (("kinds.xml", KINDS), ("chapters.xml", CHAPTERS)):
        (tmp_path / name).write_text(text)
    column = report.Column(
        suite="bookworm",
        about={"kernel": "6.1", "bcc": "0.26.0", "doctor": "knows it"},
        kinds=report.outcomes(tmp_path / "kinds.xml", report.KIND),
        chapters=report.outcomes(tmp_path / "chapters.xml", report.CHAPTER),
    )
    lines = report.page([column]).splitlines()
    assert "| bookworm | 6.1 | 0.26.0 | knows it |" in lines
    assert "| kprobe | yes |" in lines and "| return from Go | no (a) |" in lines
    cells = {line[3:5]: line.split("|")[2].strip() for line in lines if line.startswith("| [")}
    assert cells == {"01": "yes", "06": "1 of 2 (b)", "07": "no (a)"}
    reasons = [line for line in lines if line.startswith("- **")]
    assert reasons == [
        "- **a**: HeadersError: BCC cannot compile  for this kernel",
        "- **b**: AssertionError: assert 3 == 4",
    ]
