"""The agent's zip, and the bootstrap that takes it off a stream."""

from __future__ import annotations

import io
import struct
import subprocess
import zipfile

from ebpflab.transport import archive

SCRIPT = b"""
import os, sys, helper
os.write(1, helper.greet(os.read(0, 5)))
os.write(2, sys.argv[0].encode())
"""
HELPER = b"greet = lambda name: b'hello ' + name\n"


def run_bootstrap(stream: bytes) -> subprocess.CompletedProcess[bytes]:
    command = ["python3", "-c", archive.bootstrap_source()]
    return subprocess.run(command, input=stream, capture_output=True, timeout=120, check=False)


def test_what_is_sent_runs_on_the_same_stream() -> None:
    parcel = archive.parcel({"__main__.py": SCRIPT, "helper.py": HELPER})
    done = run_bootstrap(parcel + b"world")
    assert done.stdout == archive.RUN + b"hello world"
    assert done.stderr.startswith(b"/proc/self/fd/")


def test_a_stream_that_ends_early_runs_nothing() -> None:
    done = run_bootstrap(archive.parcel({"__main__.py": SCRIPT})[:-7])
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"ended before the agent had arrived" in done.stderr


def test_the_agent_is_whole_and_the_same_each_time() -> None:
    parcel = archive.agent_parcel()
    assert parcel == archive.agent_parcel()
    (size,) = struct.unpack("<I", parcel[:4])
    assert size == len(parcel) - 4
    with zipfile.ZipFile(io.BytesIO(parcel[4:])) as agent:
        assert agent.testzip() is None
        names = agent.namelist()
        assert agent.read("ebpflab/__init__.py") == b""
    assert {"__main__.py", "ebpflab/protocol/framing.py", "ebpflab/agent/session.py"} <= set(names)
    rest = ("ebpflab/agent/", "ebpflab/protocol/")
    assert all(name.startswith(rest) for name in names[2:])
