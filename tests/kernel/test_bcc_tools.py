"""BCC's own tools load unchanged: the C of Debian's bpfcc-tools, as each tool makes it.

A tool that plain BCC loads on this kernel and we do not is a failure. One that BCC itself cannot
load (a function that this kernel has no more) is none of ours, and is not counted.

Compiling takes the guest 3 s for the smallest headers and 10 s for linux/sched.h, so the suite
loads the tools with small headers, in two guests at once. All of them, half an hour:

    EBPFLAB_EVERY_BCC_TOOL=1 .venv/bin/python -m pytest tests/kernel/test_bcc_tools.py
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ebpflab import Lab
from ebpflab.errors import EbpflabError

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]

SCRIPT = Path(__file__).with_name("bcc_tool_text.py").read_text()
AT_LEAST = 40

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


@pytest.fixture(scope="module")
def outcomes(lab: Lab) -> Iterator[dict[str, Future[str | None]]]:
    """What becomes of each tool, as it becomes known: None when it was loaded, or what is wrong.

    Each of two guests has half of the tools.
    """
    found: dict[str, Future[str | None]] = {tool: Future() for tool in WANTED}
    ended = threading.Event()
    with Lab("vm") as second, ThreadPoolExecutor(2) as pool:
        for guest, half in ((lab, WANTED[::2]), (second, WANTED[1::2])):
            pool.submit(_load_all, guest, {tool: found[tool] for tool in half}, ended)
        yield found
        ended.set()


def _load_all(lab: Lab, found: dict[str, Future[str | None]], ended: threading.Event) -> None:
    try:
        wanted = {tool: ARGUMENTS.get(tool, []) for tool in found}
        captured = lab.run(["/usr/bin/python3", "-", "capture", json.dumps(wanted)], input=SCRIPT)
        texts = json.loads(captured.stdout)
        for tool, future in found.items():
            if ended.is_set():
                return
            future.set_result(_load(lab, texts[tool]))
    except Exception as error:
        for future in found.values():
            if not future.done():
                future.set_exception(error)


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


@pytest.mark.parametrize("tool", WANTED)
def test_what_bcc_loads_we_load(tool: str, outcomes: dict[str, Future[str | None]]) -> None:
    outcome = outcomes[tool].result()
    assert outcome is None or not outcome.startswith("BCC LOADS IT"), outcome


def test_enough_tools_were_loaded(outcomes: dict[str, Future[str | None]]) -> None:
    results = {tool: outcome.result() for tool, outcome in outcomes.items()}
    refused = {tool: outcome for tool, outcome in results.items() if outcome is not None}
    for tool, outcome in refused.items():
        print(f"{tool}: {outcome.splitlines()[0]}")
    assert len(results) - len(refused) >= AT_LEAST, refused
