"""``make hard``: the long forms of this folder, and docs/hard-life.md of what came of them.

    faults    the tests of this folder, with a thousand cycles and 200 interrupts
    fuzz      atheris on each target, for so many minutes in all
    soak      every chapter again and again in one guest, for so many minutes
    replay    the same of the chapters' recordings: many more rounds, of the notebook's half alone

    .venv/bin/python tests/hard [faults] [fuzz MINUTES] [soak MINUTES] [replay MINUTES]

Each part leaves its figures in build/hard; the page is written from those that are there.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

import fuzz
import report
import soak

HERE = Path(__file__).parent
FIGURES = fuzz.REPOSITORY / "build" / "hard"
MINUTES = {"fuzz": 14.0, "soak": 30.0, "replay": 10.0}


def main(words: list[str]) -> int:
    FIGURES.mkdir(parents=True, exist_ok=True)
    failed = False
    left = words or ["faults", *MINUTES]
    while left:
        part = left.pop(0)
        minutes = MINUTES.get(part, 0)
        if left and left[0].replace(".", "").isdigit():
            minutes = float(left.pop(0))
        failed |= PARTS[part](minutes)
        report.write(FIGURES)
    return int(failed)


def _keep(part: str, figures: object) -> None:
    made = {"date": datetime.now(UTC).strftime("%Y-%m-%d"), "figures": figures}
    (FIGURES / f"{part}.json").write_text(json.dumps(made, indent=1))


def _faults(_: float) -> bool:
    file = FIGURES / "faults.xml"
    command = [sys.executable, "-m", "pytest", str(HERE), f"--junitxml={file}"]
    done = subprocess.run(command, env={**os.environ, "EBPFLAB_HARD": "1"})
    cases = []
    for case in ElementTree.parse(file).iter("testcase"):
        told = [child.tag for child in case if child.tag in ("failure", "error", "skipped")]
        figures = {each.get("name"): each.get("value") for each in case.iter("property")}
        cases.append({"name": case.get("name"), "ended": [*told, "passed"][0], "figures": figures})
    _keep("faults", cases)
    return done.returncode != 0


def _fuzz(minutes: float) -> bool:
    if find_spec("atheris") is None:
        raise SystemExit("Fuzzing takes atheris, which `make hard` installs: pip install atheris")
    found = []
    for target in fuzz.TARGETS:
        found.append(fuzz.fuzz(target, int(60 * minutes / len(fuzz.TARGETS)), FIGURES))
        print(found[-1], flush=True)
    _keep("fuzz", found)
    return any(each["status"] for each in found)


def _soak(minutes: float) -> bool:
    soak.soak(minutes, functools.partial(_sampled, "soak"))
    return False


def _replay(minutes: float) -> bool:
    soak.soak(minutes, functools.partial(_sampled, "replay"), replay=True)
    return False


def _sampled(part: str, samples: list[dict[str, object]]) -> None:
    print(json.dumps(samples[-1]), flush=True)
    _keep(part, samples)


PARTS = {"faults": _faults, "fuzz": _fuzz, "soak": _soak, "replay": _replay}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
