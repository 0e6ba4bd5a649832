"""Lab("local") from a Python that is not the system's: BCC is found all the same, and only there.

A venv, conda and pyenv each put a python3 of their own first on PATH and set variables that Python
or the dynamic loader look at. What PyPI calls `bcc` may have been installed on the notebook's side.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.local

USE = r"""
import json
from ebpflab import Lab
with Lab("local") as lab, lab.load("int f(void *ctx) { return 0; }") as prog:
    found = lab.features().set_index("feature").loc["BCC"]
    said = lab.run(["/usr/bin/python3", "-I", "-c", "import sys; print(sys.prefix)"]).stdout
    print(json.dumps([prog.functions, found["status"], found["reason"], said]))
"""


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """An environment whose programs and modules must not be taken for the system's."""
    folders = {name: tmp_path / name for name in ("bin", "shims", "lib", "modules")}
    for folder in folders.values():
        folder.mkdir()
    for name in ("bin", "shims"):
        for program in ("python3", "python", "sudo", "clang"):
            path = folders[name] / program
            path.write_text("#!/bin/sh\necho 'a program of the environment was run' >&2\nexit 3\n")
            path.chmod(0o755)
    (folders["modules"] / "bcc.py").write_text("# PyPI's bcc is another project\n")
    (folders["lib"] / "libbcc.so.0").write_text("not a library\n")
    return tmp_path


ENVIRONMENTS = {
    "venv": {"VIRTUAL_ENV": "{prefix}", "PATH": "{prefix}/bin:{PATH}"},
    "conda": {
        "CONDA_PREFIX": "{prefix}",
        "CONDA_DEFAULT_ENV": "ebpflab",
        "PATH": "{prefix}/bin:{PATH}",
        "LD_LIBRARY_PATH": "{prefix}/lib",
    },
    "pyenv": {
        "PYENV_ROOT": "{prefix}",
        "PYENV_VERSION": "3.13.0",
        "PATH": "{prefix}/shims:{prefix}/bin:{PATH}",
    },
}


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_bcc_is_the_systems(prefix: Path, name: str) -> None:
    known = {"prefix": str(prefix), "PATH": os.environ["PATH"]}
    variables = {key: value.format_map(known) for key, value in ENVIRONMENTS[name].items()}
    variables["PYTHONPATH"] = str(prefix / "modules")
    done = subprocess.run(
        [sys.executable, "-c", USE],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    functions, status, reason, python = json.loads(done.stdout.splitlines()[-1])
    assert functions == ["f"] and status == "yes"
    assert reason.startswith("/usr/bin/python3 imports BCC ") and "/dist-packages/bcc" in reason
    assert python == "/usr\n"
