"""BCC's own tools load unchanged: the C of Debian's bpfcc-tools, as each tool makes it.

A tool that plain BCC loads on this kernel and we do not is a failure. One that BCC itself cannot
load (a function that this kernel has no more) is none of ours, and is not counted.

Where the image has no precompiled headers for a tool, the guest takes 10 to 30 s to compile it, so
the suite loads the tools with small headers, in two parts, for a guest each (see
`parallel.group_of`). All of them:

    EBPFLAB_EVERY_BCC_TOOL=1 .venv/bin/python -m pytest tests/kernel/test_bcc_tools.py
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from ebpflab import Lab
from ebpflab.errors import EbpflabError

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]

SCRIPT = Path(__file__).with_name("bcc_tool_text.py").read_text()
AT_LEAST = 20  # of each part

SMALL_HEADERS = """
    exitsnoop syncsnoop threadsnoop syscount capable cpudist killsnoop trace stackcount wakeuptime
    offcputime offwaketime funcslower gethostlatency shmsnoop statsnoop profile runqlat runqslower
    oomkill wqlat hardirqs virtiostat llcstat netqtop sslsniff deadlock rdmaucma inject tcpsynbl
    execsnoop filelife ext4dist argdist biopattern cachestat dcstat funccount funcinterval
    funclatency klockstat memleak pidpersec softirqs vfscount vfsstat
"""
BIG_HEADERS = """
    bindsnoop biolatency biolatpcts biosnoop biotop bitesize compactsnoop dcsnoop drsnoop ext4slower
    filegone fileslower filetop mdflush mountsnoop nfsdist nfsslower
    readahead sofdsnoop solisten tcpaccept tcpcong tcpconnect tcpconnlat tcpdrop tcplife tcpretrans
    tcprtt tcpstates tcpsubnet tcptop tcptracer ttysnoop xfsdist xfsslower zfsdist zfsslower
"""
ARGUMENTS = {  # of the tools that need some to get as far as compiling
    "argdist": ["-C", "p::vfs_read(struct file *f, void *b, size_t count):size_t:count"],
    "biolatpcts": ["/dev/vda"],
    "deadlock": ["1"],
    "funccount": ["vfs_read"],
    "funcinterval": ["vfs_read"],
    "funclatency": ["vfs_read"],
    "funcslower": ["vfs_read"],
    "inject": ["kmalloc", "-P", "0.1", "vfs_read()"],
    "stackcount": ["vfs_read"],
    "trace": ["do_sys_openat2"],
    "ttysnoop": ["/dev/ttyS0"],
}
EVERY = os.environ.get("EBPFLAB_EVERY_BCC_TOOL")
WANTED = (SMALL_HEADERS + (BIG_HEADERS if EVERY else "")).split()
PARTS = {"part-1": WANTED[::2], "part-2": WANTED[1::2]}


class Outcomes:
    """What becomes of each tool, which is loaded once."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._texts: dict[str, Any] = {}
        self._known: dict[str, str | None] = {}

    def of(self, part: str, tool: str) -> str | None:
        """None if the tool was loaded, else what is wrong."""
        if tool not in self._texts:
            self._capture(PARTS[part])
        if tool not in self._known:
            self._known[tool] = _load(self._lab, self._texts[tool])
        return self._known[tool]

    def _capture(self, tools: list[str]) -> None:
        wanted = json.dumps({tool: ARGUMENTS.get(tool, []) for tool in tools})
        captured = self._lab.run(["/usr/bin/python3", "-", "capture", wanted], input=SCRIPT)
        self._texts |= json.loads(captured.stdout)


@pytest.fixture(scope="module")
def outcomes(lab: Lab) -> Outcomes:
    return Outcomes(lab)


def _load(lab: Lab, tool: dict[str, Any]) -> str | None:
    if "why" in tool:
        return f"it gave no program: {tool['why']}"
    try:
        lab.load(tool["text"], cflags=tool["cflags"]).close()
    except EbpflabError as error:
        plain = lab.run(["/usr/bin/python3", "-c", SCRIPT, "load"], input=json.dumps(tool))
        if plain.returncode == 0:
            return f"BCC LOADS IT AND WE DO NOT: {error}"
        return f"BCC does not load it either: {error}"
    return None


@pytest.mark.parametrize(
    ("part", "tool"), [(part, tool) for part, tools in PARTS.items() for tool in tools]
)
def test_what_bcc_loads_we_load(part: str, tool: str, outcomes: Outcomes) -> None:
    outcome = outcomes.of(part, tool)
    assert outcome is None or not outcome.startswith("BCC LOADS IT"), outcome


@pytest.mark.parametrize("part", PARTS)
def test_enough_tools_were_loaded(part: str, outcomes: Outcomes) -> None:
    results = {tool: outcomes.of(part, tool) for tool in PARTS[part]}
    refused = {tool: outcome for tool, outcome in results.items() if outcome is not None}
    for tool, outcome in refused.items():
        print(f"{tool}: {outcome.splitlines()[0]}")
    assert len(results) - len(refused) >= AT_LEAST, refused
