"""Faults of the guest: the error has a name, rows so far are kept, and the next cell works.

A guest that panics, or whose keeper is killed, is in `tests/vm/test_vm_guest.py`.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from counting import COUNTER, LONG, Counted
from processes import guest_of, qemu_of

from ebpflab import Lab, vm
from ebpflab.errors import ConnectionLost
from ebpflab.vm import cache

Counting = Callable[[str], Counted]
pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]
long = pytest.mark.skipif(not LONG, reason="takes a while in the guest: make hard")


def test_a_killed_guest_is_named_and_the_rows_stay(counted: Counting) -> None:
    it = counted("vm")
    assert it.calls(7) == 7
    os.kill(qemu_of(guest_of(it.lab)), signal.SIGKILL)
    with pytest.raises(ConnectionLost, match="QEMU was killed by SIGKILL"):
        it.lab.run(["true"])
    assert it.rows() == 7
    with Lab("vm") as lab:
        assert lab.run(["true"]).returncode == 0


# -- what a guest survives -----------------------------------------------------------------------


def works(it: Counted, calls: int) -> bool:
    """Whether the program that was there before counts, and one that is compiled now."""
    with it.attach(f"{COUNTER}// {calls}\n") as prog:
        return it.new_rows(calls) == len(prog["seen"].frame()) == calls


def test_a_paused_guest_goes_on_where_it_was(guest: Counted) -> None:
    monitor = guest_of(guest.lab).monitor
    monitor.execute("stop")
    assert monitor.execute("query-status")["running"] is False
    later = threading.Timer(2, monitor.execute, ["cont"])
    later.start()
    assert guest.new_rows(1009) == 1009  # answered after two seconds
    later.join()


HOG = "kept = []\nwhile True: kept.append(b'x' * (16 << 20))"
# Each of them is smaller than the agent.
HOGS = """
import os, signal, time
for _ in range(60):
    if os.fork() == 0:
        kept = b"x" * (24 << 20)
        time.sleep(1000)
print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
os.killpg(0, signal.SIGKILL)
"""


@long
@pytest.mark.parametrize("hog", [pytest.param(HOG, id="one"), pytest.param(HOGS, id="many")])
def test_a_guest_out_of_memory_loses_the_workload_and_not_the_lab(guest: Counted, hog: str) -> None:
    done = guest.lab.run(["/usr/bin/python3", "-c", hog])
    assert done.returncode == -signal.SIGKILL
    assert hog == HOG or done.stdout == "-9\n"
    assert works(guest, 11)


def test_a_guest_with_a_full_disk_traces_on(guest: Counted) -> None:
    fill = "fallocate -l $(df --output=avail -B1 / | tail -1) /fill; head -c 10000000 /dev/zero"
    try:
        full = guest.lab.run(["/bin/sh", "-c", f"{fill} > /more"])
        assert "No space left" in full.stderr
        assert works(guest, 13)
    finally:
        guest.lab.run(["rm", "/fill", "/more"])


def test_a_stepped_clock_changes_no_count_and_no_time(guest: Counted) -> None:
    guest.prog["seen"].collect()
    for seconds in (3600, -7200, 3600):
        step = f"import time; time.clock_settime(0, time.time() + {seconds})"
        assert guest.lab.run(["/usr/bin/python3", "-c", step]).returncode == 0
        assert guest.new_rows(5) == 5
    times = guest.prog["seen"].collect(seconds=0.1)["time_ns"]
    assert len(times) == 15 and times.is_monotonic_increasing
    assert times.iloc[-1] - times.iloc[0] < 1800 * 10**9
    assert guest.prog["seen"].collect(seconds=0.1).empty  # waiting does not look at that clock


# -- the host's disk, and the image --------------------------------------------------------------

SMALL_DISK = """
import sys
from pathlib import Path
sys.path[:0] = {folders!r}
from counting import Counted
from processes import guest_of
from test_guest_faults import works
from ebpflab.vm import guest
guest.scratch_directory = lambda image: Path(sys.argv[1])
it = Counted("vm")
done = it.lab.run(["dd", "if=/dev/urandom", "of=/big", "bs=1M", "count=64", "conv=fsync"])
print(done.returncode, done.stderr.splitlines()[0])
print(guest_of(it.lab).console())
assert works(it, 17)
it.close()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk of its own: run as root")
def test_a_host_disk_that_is_full_is_an_error_in_the_guest(tmp_path: Path) -> None:
    """What the guest writes goes to the host's disk, to a file without a name."""
    here = Path(__file__).parent
    code = SMALL_DISK.format(folders=[str(here), str(here.parent)])
    mount = 'mount -t tmpfs -o size=48m none "$1" && exec "$2" -c "$3" "$1"'
    command = ["unshare", "--mount", "sh", "-c", mount, "sh", str(tmp_path), sys.executable, code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "1 dd: " in done.stdout and "Input/output error" in done.stdout
    assert "I/O error" in done.stdout.partition("Input/output")[2], "the console says why"


START = """
import sys
from ebpflab import Lab
with Lab("vm") as lab:
    print("started", flush=True)
    sys.stdin.readline()
    lab.run(["tee", "-a", "/mark"], input=sys.argv[1])
    print("marked", flush=True)
    sys.stdin.readline()
    print(lab.run(["cat", "/mark"]).stdout, flush=True)
"""


def test_two_processes_share_an_image_and_nothing_else() -> None:
    command = [sys.executable, "-c", START]
    both = [
        subprocess.Popen([*command, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for name in ("one", "other")
    ]
    try:
        for word in ("started\n", "marked\n"):
            for each in both:
                assert each.stdin is not None and each.stdout is not None
                assert word in iter(each.stdout.readline, "")
                each.stdin.write("\n")
                each.stdin.flush()
        assert [each.communicate(timeout=300)[0] for each in both] == ["one\n", "other\n"]
    finally:
        for each in both:
            each.kill()


@long
def test_an_image_that_is_deleted_by_force_serves_the_labs_it_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image = vm.build(print)
    root = cache.root().parent.parent / f"hard-{os.getpid()}"  # on the image's file system
    copy = root / "ebpflab" / "vm" / image.name
    shutil.copytree(image, copy, copy_function=os.link)
    try:
        monkeypatch.setenv("XDG_CACHE_HOME", str(root))
        it = Counted("vm")
        shutil.rmtree(root)
        assert works(it, 19)
        assert it.lab.run(["sha1sum", "/usr/bin/gcc"]).returncode == 0
        it.close()
    finally:
        shutil.rmtree(root, ignore_errors=True)
