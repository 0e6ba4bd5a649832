"""Runs every kind of probe and every chapter in a guest of each suite, and writes what was seen.

    .venv/bin/python tests/matrix/run_matrix.py [SUITE...]

All, or some: the others keep their last result.

                        build/matrix/
EBPFLAB_SUITE  pytest ---> SUITE-kinds.xml, SUITE-chapters.xml  ---> docs/compatibility.md
               Lab  -----> SUITE.json: kernel, BCC, and whether they suit one another
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from compatibility import CHAPTER, KIND, Column, outcomes, page

REPOSITORY = Path(__file__).parents[2]
RESULTS = REPOSITORY / "build" / "matrix"
SUITES = ("bookworm", "trixie", "trixie-backports")
RUNS = {
    "kinds": ["tests/kernel/test_probe_kinds.py"],
    "chapters": ["tests/notebooks", "-m", "vm", "--ignore=tests/notebooks/test_record.py"],
}
ABOUT = """
import json
from ebpflab import Lab
with Lab("vm") as lab:
    doctor = lab.features().set_index("feature")["reason"]["BCC for this kernel"]
    print(json.dumps({"kernel": lab.kernel, "bcc": lab.bcc_version, "doctor": doctor}))
"""


def run(suite: str) -> None:
    """Leave the results of one suite in build/matrix."""
    environment = {**os.environ, "EBPFLAB_SUITE": suite}
    RESULTS.mkdir(parents=True, exist_ok=True)
    about = subprocess.run(
        [sys.executable, "-c", ABOUT],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    (RESULTS / f"{suite}.json").write_text(about.stdout.splitlines()[-1])
    for name, arguments in RUNS.items():
        results = RESULTS / f"{suite}-{name}.xml"
        command = [sys.executable, "-m", "pytest", "-q", f"--junit-xml={results}", *arguments]
        # What fails there is what the page is about.
        subprocess.run(command, env=environment, cwd=REPOSITORY, check=False)


def main(wanted: list[str]) -> None:
    for suite in wanted or SUITES:
        run(suite)
    columns = [
        Column(
            suite=suite,
            about=json.loads((RESULTS / f"{suite}.json").read_text()),
            kinds=outcomes(RESULTS / f"{suite}-kinds.xml", KIND),
            chapters=outcomes(RESULTS / f"{suite}-chapters.xml", CHAPTER),
        )
        for suite in SUITES
        if (RESULTS / f"{suite}-chapters.xml").exists()
    ]
    (REPOSITORY / "docs" / "compatibility.md").write_text(page(columns))


if __name__ == "__main__":
    main(sys.argv[1:])
