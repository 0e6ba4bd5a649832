"""Bytes that somebody else has written, read on both sides: no crash, no hang, no flood.

The same targets as ``.venv/bin/python tests/hard fuzz`` gives to atheris, for minutes; here
hypothesis makes some hundred inputs of each, damaged copies of good ones among them.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import fuzz
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ebpflab import Program
from ebpflab.decode import btf, spans
from ebpflab.errors import WireError
from ebpflab.protocol import framing
from ebpflab.transport.connection import Answer


@st.composite
def damaged(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """A good input, with some bytes put in the place of others."""
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(0, 4))):
        at, gone = draw(st.integers(0, len(data))), draw(st.integers(0, 8))
        data = data[:at] + draw(st.binary(max_size=8)) + data[at + gone :]
    return data


@pytest.mark.parametrize("target", fuzz.TARGETS)
def test_nothing_but_what_it_says_comes_of_any_bytes(target: str) -> None:
    seeds = fuzz.seeds(target)

    @settings(max_examples=100, suppress_health_check=list(HealthCheck))
    @given(st.one_of(st.binary(max_size=200), damaged(seeds)))
    def check(data: bytes) -> None:
        fuzz.TARGETS[target](data)

    check()


def test_a_batch_whose_records_do_not_add_up_is_refused() -> None:
    record = struct.pack("<II8s", 8, 0, b"12345678")
    for span in (record[:-4], record + struct.pack("<II", 900, 0), b"\0" * 12):
        with pytest.raises(framing.BadFrame):
            spans.count_records(span)


def table_of_types(*types: tuple[int, int, tuple[int, ...]]) -> bytes:
    """BTF of types (kind, size or type, the words of its members), all of them named ``x``."""
    data = b"".join(
        struct.pack(f"<III{len(words)}I", 1, kind << 24 | len(words) // 3, size, *words)
        for kind, size, words in types
    )
    header = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(data), len(data), 3)
    return header + data + b"\0x\0"


def test_types_that_contain_themselves_have_no_columns() -> None:
    array, struct_ = 3, 4
    twice = btf.Types(table_of_types((struct_, 8, (1, 1, 0, 1, 1, 0))))
    of_itself = btf.Types(table_of_types((array, 0, (1, 1, 7))))
    for types in (twice, of_itself):
        with pytest.raises(btf.NoSuchType, match="end"):
            types.columns_of(1)
    with pytest.raises(btf.NoSuchType, match="end"):
        of_itself.size_of(1)
    with pytest.raises(ValueError, match="damaged: type 1 refers to one that is not there"):
        btf.Types(table_of_types((struct_, 8, (1, 9, 0))))


def test_only_structs_have_members() -> None:
    """Those of an enum, read as a struct's, would reach behind the end of the table."""
    integer = btf.Types(table_of_types((1, 4, (32,))))
    assert integer.size_of(1) == 4
    with pytest.raises(btf.NoSuchType, match="x has no members"):
        integer.members(1)


@pytest.mark.parametrize("blob", [b"\0" * 99, table_of_types((4, 8, (1, 9, 0)))], ids=range(2))
def test_a_program_whose_types_make_no_sense_is_refused(blob: bytes) -> None:
    facts = {"functions": [], "log": "", "compiled": True, "attached": [], "maps": []}
    loaded = Answer({**facts, "headers": {"matching": True}}, blob)
    with pytest.raises(WireError, match="does not add up"):
        Program(SimpleNamespace(attrs={}), None, 1, "", loaded)  # type: ignore[arg-type]


PEAK = """
def peak_mib():  # not getrusage, which begins at what the parent had
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) // 1024
"""
AGENT_READS = (
    PEAK
    + """
import os, sys
sys.path.append("/usr/lib/python3/dist-packages")
from ebpflab.agent import session
from ebpflab.protocol import framing
session._work = lambda self: None
session.Session.begin = lambda self: None   # nobody answers: what does waiting cost?
request = b"".join(framing.control(dict(id=1, op="x", text="x" * (1 << 20))))
reader, writer = os.pipe()
if os.fork() == 0:
    os.close(reader)
    try:
        while True:
            os.write(writer, request)
    except BrokenPipeError:
        os._exit(0)
os.close(writer)
def end(status):
    print(peak_mib(), flush=True)
    os._exit(0)
session.main(reader, -1, end)
"""
)


def test_a_flood_of_requests_ends_the_session_and_not_the_memory() -> None:
    done = subprocess.run(
        [sys.executable, "-c", AGENT_READS], capture_output=True, text=True, timeout=120
    )
    assert "requests wait for an answer" in done.stderr
    assert int(done.stdout) < 400  # MiB


READ_NOTES = (
    PEAK
    + """
import sys
from ebpflab.agent.faults import Fault
from ebpflab.agent.processes import notes
try:
    notes.read(sys.argv[1])
except Fault as fault:
    print(fault, peak_mib())
"""
)


def test_an_elf_file_of_giant_parts_is_refused(tmp_path: Path) -> None:
    """A sparse file costs its maker nothing, and may say that its notes are 8 GiB of zeros."""
    data = bytearray(fuzz._probe_elf())
    at = struct.unpack_from("<Q", data, 40)[0] + 64  # the section of notes
    struct.pack_into("<QQ", data, at + 24, 4096, 8 << 30)
    path = tmp_path / "sparse"
    path.write_bytes(data)
    os.truncate(path, 9 << 30)
    command = [sys.executable, "-c", READ_NOTES, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "cut or damaged" in done.stdout, done.stderr
    assert int(done.stdout.split()[-1]) < 200  # MiB


def test_an_answer_may_hold_anything_that_json_can() -> None:
    """What the agent is asked by a notebook of another make is answered, not died of."""
    for request in ({}, {"id": [1], "op": 5}, {"id": 1, "op": "load"}, {"op": "__init__"}):
        fuzz.agent_reads(b"".join(framing.control(request)))
    deep = b"[" * 5000
    fuzz.agent_reads(framing.HEADER.pack(len(deep), framing.CONTROL) + deep)
