"""Results of pytest, one file a suite and question, made into the page docs/compatibility.md."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

KIND = re.compile(r"\[(.+)\]$")
"""A test of test_probe_kinds.py is about the kind between the brackets."""
CHAPTER = re.compile(r"test_(\d\d)_")
"""A test of tests/notebooks is about the chapter in its name, or its file's."""

_NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
_HEAD = """\
# Which kernel can what

Written by `make matrix`, which boots a guest of each suite (`EBPFLAB_SUITE=bookworm`), runs every
kind of probe over a workload of 1,009 events, and every chapter with the tests of what it shows.
**yes**: every event was seen, every test passed. Otherwise the number says how many tests of the
chapter passed, and the letter what the first of the others met.
"""


@dataclass
class Outcome:
    """How the tests about one thing ended."""

    passed: int = 0
    failed: int = 0
    reason: str = ""


@dataclass(frozen=True)
class Column:
    """A guest, and how it did."""

    suite: str
    about: dict[str, str]
    kinds: dict[str, Outcome]
    chapters: dict[str, Outcome]


def outcomes(results: Path, about: re.Pattern[str]) -> dict[str, Outcome]:
    """The outcome of each thing that ``about`` finds in a test's name."""
    found: dict[str, Outcome] = {}
    for case in ElementTree.parse(results).iter("testcase"):
        what = about.search(case.get("name", "")) or about.search(case.get("classname", ""))
        if what is None:
            continue
        outcome = found.setdefault(what.group(1), Outcome())
        problem = case.find("failure") if case.find("error") is None else case.find("error")
        if problem is None:
            outcome.passed += 1
        else:
            outcome.failed += 1
            outcome.reason = outcome.reason or _in_words(problem.text or "")
    return found


def page(columns: list[Column]) -> str:
    """The page as Markdown: one table of kinds, one of chapters, and the reasons below."""
    reasons: list[str] = []
    kinds = list(dict.fromkeys(name for column in columns for name in column.kinds))
    chapters = {
        path.name[:2]: f"[{path.stem}](../notebooks/{path.name})"
        for path in sorted(_NOTEBOOKS.glob("[0-9]*.ipynb"))
    }
    parts = [_HEAD, _guests(columns), "## Kinds of probes\n"]
    rows = [[name, *(_cell(c.kinds.get(name), reasons) for c in columns)] for name in kinds]
    parts += [_table(["", *(c.suite for c in columns)], rows), "## Chapters\n"]
    rows = [
        [link, *(_cell(c.chapters.get(number), reasons) for c in columns)]
        for number, link in chapters.items()
        if any(number in c.chapters for c in columns)
    ]
    parts.append(_table(["", *(c.suite for c in columns)], rows))
    if reasons:
        parts.append("## What was met\n")
        parts.append("".join(f"- **{_letter(n)}**: {text}\n" for n, text in enumerate(reasons)))
    return "\n".join(parts)


def _guests(columns: list[Column]) -> str:
    rows = [[c.suite, c.about["kernel"], c.about["bcc"], c.about["doctor"]] for c in columns]
    return _table(["suite", "kernel", "BCC", "what `doctor` says of the two"], rows)


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(outcome: Outcome | None, reasons: list[str]) -> str:
    if outcome is None:
        return "not run"
    if not outcome.failed:
        return "yes"
    if outcome.reason not in reasons:
        reasons.append(outcome.reason)
    letter = _letter(reasons.index(outcome.reason))
    if not outcome.passed:
        return f"no ({letter})"
    return f"{outcome.passed} of {outcome.passed + outcome.failed} ({letter})"


def _letter(number: int) -> str:
    return chr(ord("a") + number)


def _in_words(traceback: str) -> str:
    """The exception of a test's traceback: its line, or what a cell of a chapter raised."""
    raised = re.findall(
        r"^(?:E +)?((?:\w+\.)*\w*(?:Error|Lost|Missing|Event|Name): .*)$", traceback, re.MULTILINE
    )
    lines = raised or [line for line in traceback.splitlines() if line.startswith("E ")] or ["?"]
    text = re.sub(r"^(?:E +)?(?:ebpflab\.errors\.)?", "", lines[-1] if raised else lines[0])
    return re.sub(r"[|`]", "", text).strip()[:400]
