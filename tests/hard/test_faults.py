"""Faults: the error has a name, rows so far are kept, nothing stays attached, the next cell works.

A killed notebook is in `tests/contract/test_endings.py`; the guest's faults are in
`test_guest_faults.py`.
"""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from counting import COUNTER, Counted

import ebpflab
from ebpflab.errors import ConnectionLost, TargetError, WireError
from ebpflab.protocol import framing
from ebpflab.transport import archive

Counting = Callable[[str], Counted]
local = pytest.mark.local
pytestmark = pytest.mark.timeout(900)


# -- the agent -----------------------------------------------------------------------------------


@local
def test_an_agent_that_stood_still_for_ten_seconds_has_lost_nothing(
    counted: Counting,
) -> None:
    it = counted("local")
    agent = it.lab.agent_pid
    script = f"kill -STOP {agent}; {it.path} 1009; sleep 10; kill -CONT {agent}"
    assert it.lab.run(["/bin/sh", "-c", script]).returncode == 0
    assert (it.rows(), it.prog["seen"].lost) == (1009, 0)
    assert it.calls(2) == 1011


KILLED, ODD = (ConnectionLost, "was killed by signal 9"), (WireError, "not our protocol")
# What the agent's end of the wire says, and the error that comes of it.
BROKEN: dict[str, tuple[bytes, tuple[type[TargetError], str]]] = {
    "nothing more": (b"", KILLED),
    "a frame cut in the middle": (framing.HEADER.pack(1000, framing.BATCH) + b"cut", KILLED),
    "garbage": (b"GET / HTTP/1.1\r\n\r\n", ODD),
    "a giant length": (framing.HEADER.pack(0xFFFFFFFF, framing.CONTROL), ODD),
}


@local
@pytest.mark.parametrize("name", BROKEN)
def test_a_wire_that_breaks_is_named_and_rows_stay_and_nothing_else(
    counted: Counting, name: str
) -> None:
    said, (error, why) = BROKEN[name]
    it = counted("local")
    with it.staying() as pid:
        assert it.calls(7) == 7
        assert it.is_probed(pid)
        _say_in_its_place(it, said)
        if error is ConnectionLost:
            os.kill(it.lab.agent_pid, signal.SIGKILL)
        for ask in (lambda: it.lab.run(["true"]), lambda: it.lab.load(COUNTER)):
            with pytest.raises(error, match=why):
                ask()
        assert it.rows() == 7
        deadline = time.monotonic() + 30
        while it.is_probed(pid):  # the kernel may still be ending the agent
            assert time.monotonic() < deadline
    assert counted("local").calls(3) == 3


def _say_in_its_place(it: Counted, data: bytes) -> None:
    """Write to the pipe that the agent writes to, while it is silent."""
    pipe = Path(f"/proc/self/fd/{it.lab._connection._transport.reader}").readlink()
    (end,) = (fd for fd in Path(f"/proc/{it.lab.agent_pid}/fd").iterdir() if fd.readlink() == pipe)
    with end.open("wb") as file:
        file.write(data)


BAD_INPUT = {
    "garbage": b"GET / HTTP/1.1\r\n\r\n",
    "a giant length": framing.HEADER.pack(0xFFFFFFFF, framing.CONTROL),
    "a frame cut in the middle": framing.HEADER.pack(1000, framing.CONTROL) + b'{"id": 1',
    "a batch": b"".join(framing.encode(framing.BATCH, b"x" * 12)),  # type: ignore[arg-type]
    "no JSON": b"".join(framing.encode(framing.CONTROL, b"{]")),  # type: ignore[arg-type]
}


@local
@pytest.mark.parametrize("name", BAD_INPUT)
def test_an_agent_that_hears_nonsense_ends_in_order(name: str, tmp_path: Path) -> None:
    agent = tmp_path / "agent.zip"
    agent.write_bytes(archive.agent())
    python = shutil.which("python3", path="/usr/bin")
    assert python is not None
    done = subprocess.run(
        [python, "-I", "-B", agent], input=BAD_INPUT[name], capture_output=True, timeout=120
    )
    assert done.returncode == 0
    assert b'"hello"' in done.stdout
    frames = list(framing.read_frames(io.BytesIO(done.stdout)))
    assert [kind for kind, _ in frames] == [framing.CONTROL]


# -- labs beside one another ---------------------------------------------------------------------


@local
def test_two_labs_in_one_process_do_not_meet(counted: Counting) -> None:
    one, other = counted("local"), counted("local")
    assert (one.calls(5), other.calls(7)) == (5, 7)
    one.close()
    assert other.calls(2) == 9


# -- the disk of the notebook --------------------------------------------------------------------

RECORD = """
import resource, sys
sys.path.insert(0, {folder!r})
from counting import Counted
it = Counted("local")
path = sys.argv[1]
with it.prog["seen"].record(path) as recorder:
    it.calls(1000)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    it.calls(100_000)
    error = recorder.error
print(type(error).__name__, error.errno, recorder.rows, it.rows() + it.prog["seen"].lost)
assert it.calls(2) + it.prog["seen"].lost == 101_002
it.close()
"""


@local
def test_a_disk_that_fills_up_ends_a_recording_that_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "calls.arrows"
    code = RECORD.format(folder=str(Path(__file__).parent))
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    told = next(line for line in done.stdout.splitlines() if line.startswith("OSError"))
    _, _, recorded, seen = told.split()
    recording = ebpflab.open_recording(path)
    assert len(recording.frame()) == int(recorded) >= 1000
    assert recording.whole is False
    assert int(seen) == 101_000
