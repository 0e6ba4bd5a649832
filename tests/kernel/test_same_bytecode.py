"""Precompiled headers change nothing of what BCC makes of a program: instruction by instruction.

Of BCC's tools each second one is compared; all of them with EBPFLAB_EVERY_BCC_TOOL=1.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_bcc_tools import ARGUMENTS, BIG_HEADERS, EVERY, SMALL_HEADERS

from ebpflab import Lab
from ebpflab.replay import tape
from ebpflab.transport import archive

HERE = Path(__file__).parent
TAPES = sorted((HERE.parents[1] / "ebpflab" / "replay" / "chapters").glob("*.tape.xz"))
PREFIXES = HERE.parents[1] / "provision" / "prefixes.txt"
EVERY_TOOL = (SMALL_HEADERS + BIG_HEADERS).split()
TOOLS = EVERY_TOOL if EVERY else EVERY_TOOL[::2]
AT_LEAST_TOOLS = 30
SYSTEM_PYTHON = "/usr/bin/python3"


def programs_of_chapters() -> Iterator[dict[str, Any]]:
    """Each program of each chapter, as its tape has it."""
    for path in TAPES:
        known: list[dict[str, Any]] = []
        for item in tape.load(path).items:
            if isinstance(item, tape.Exchange) and item.asked["op"] == "load":
                program = {"text": item.asked["source"], "cflags": item.asked["cflags"]}
                if program not in known:
                    known.append(program)
        for number, program in enumerate(known):
            yield {"name": f"{path.name.split('.')[0]}, program {number}", **program}


def programs_of(tools: list[str]) -> list[dict[str, Any]]:
    """The programs of Debian's BCC tools, as each tool makes them for this kernel."""
    wanted = {tool: ARGUMENTS.get(tool, []) for tool in tools}
    capture = [SYSTEM_PYTHON, str(HERE / "bcc_tool_text.py"), "capture", json.dumps(wanted)]
    found = json.loads(subprocess.run(capture, capture_output=True, check=True).stdout)
    return [{"name": tool, **each} for tool, each in found.items() if "text" in each]


def compared(programs: list[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    folder.chmod(0o755)
    agent = folder / "agent.zip"
    agent.write_bytes(archive.agent())
    done = subprocess.run(
        [SYSTEM_PYTHON, str(HERE / "compile_both.py"), str(agent), str(folder)],
        input=json.dumps(programs),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def check(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that compile, which are the same; the others are compiled again, without."""
    for each in results:
        assert each["differ"] == {}, each
        if each["complaint"]:
            assert each["again"] is True, each
    return [each for each in results if not each["complaint"]]


@pytest.mark.local
def test_programs_of_chapters_are_the_same(tmp_path: Path) -> None:
    programs = list(programs_of_chapters())
    compiled = check(compared(programs, tmp_path))
    # The others need tracepoints, which this machine may not show, or are mistakes on purpose.
    assert len(compiled) > len(programs) / 2
    assert sum(each["lines"] for each in compiled) > 1000


@pytest.mark.local
def test_bcc_tools_are_the_same(tmp_path: Path) -> None:
    compiled = check(compared(programs_of(TOOLS), tmp_path))
    assert len(compiled) >= AT_LEAST_TOOLS, [each["name"] for each in compiled]
    assert sum(each["instructions"] for each in compiled) > 5_000
    assert any(len(each["includes"]) > 2 for each in compiled)


@pytest.mark.local
def test_errors_of_syntax_are_the_same_and_not_compiled_again(tmp_path: Path) -> None:
    good = "#include <linux/sched.h>\nint f(void *ctx) { int x = (1); return x; }\n"
    slips = {"int x = (1);": "int x = (1)", "(1)": "(1", "return x; }": "return x;", "= (": "= ) ("}
    programs = [
        {"name": old, "text": good.replace(old, new), "cflags": []} for old, new in slips.items()
    ]
    for each in compared(programs, tmp_path):
        assert each["complaint"] and each["again"] is False, each
        assert each["differ"] == {}, each


@pytest.mark.vm
def test_image_brings_headers_that_clang_accepts_in_the_guest(lab: Lab) -> None:
    """Another BCC, another LLVM: one program for each prefix in the image."""
    for prefix in ["", *PREFIXES.read_text().split("\n\n")]:
        text = f"{prefix}\nBPF_HASH(seen, u32, u64);\nint f(void *ctx) {{ return 0; }}"
        with lab.load(text) as prog:
            compilation = prog.stats().attrs["compilation"]
        assert compilation["includes"] == prefix.splitlines(), compilation
