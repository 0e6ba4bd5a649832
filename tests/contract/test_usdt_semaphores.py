"""Semaphores: programs are told, by path or by pid, that somebody listens, and no longer than that.

Each test reads the counter in the memory of a process, or lets the process say how often it was
above zero.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time

import pytest
from usdt_programs import ONE, STEPS, build, go

from ebpflab import Lab
from ebpflab.errors import UnknownName

# The program is linked to be loaded anywhere: its first mapping is where it was.
READ_SEMAPHORE = """
import sys
pid, address = int(sys.argv[1]), int(sys.argv[2])
base = int(open(f"/proc/{pid}/maps").read().split("-")[0], 16)
memory = open(f"/proc/{pid}/mem", "rb")
memory.seek(base + address)
print(int.from_bytes(memory.read(2), sys.byteorder))
"""


def _reading(lab: Lab, path: str, pid: int) -> list[str]:
    """The command that prints the semaphore of ``step`` in the memory of a process."""
    address = lab.usdt_probes(path).set_index("probe").loc["step", "semaphore"]
    return ["python3", "-c", READ_SEMAPHORE, str(pid), str(address)]


def _semaphore(lab: Lab, path: str, pid: int) -> int:
    done = lab.run(_reading(lab, path, pid))
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_a_semaphore_by_path_counts_in_every_process(lab: Lab, folder: str) -> None:
    path = f"{folder}/usdt_loop_semaphore"
    before = lab.start([path, "103", "--wait"])
    usdt = lab.usdt(path)
    usdt.enable_probe(probe="step", fn_name="on_step")
    with lab.load(STEPS, usdt_contexts=[usdt]) as prog:
        assert _semaphore(lab, path, before.pid) == 1
        after = lab.run([path, "107"])
        lab.run(["kill", "-KILL", str(lab.start([path, "5", "--wait"]).pid)])  # it ends meanwhile
        go(lab, before.pid)
        assert "prepared 103" in before.wait().stdout and "prepared 107" in after.stdout
        frame = prog["steps"].frame()
        assert list(frame["pid"]) == [after.pid] * 107 + [before.pid] * 103
        prog.detach()
        assert "prepared 0" in lab.run([path, "3"]).stdout
    assert frame.attrs["lost"] == 0


def test_two_listeners_count_once_and_end_one_by_one(lab: Lab, folder: str) -> None:
    path = f"{folder}/usdt_loop_semaphore"
    workload = lab.start([path, "7", "--wait"])
    programs = []
    for pid in (None, workload.pid):
        usdt = lab.usdt(path, pid=pid)
        usdt.enable_probe(probe="step", fn_name="on_step")
        programs.append(lab.load(STEPS, usdt_contexts=[usdt]))
    # They share one breakpoint, and it is for that that the kernel counts.
    assert _semaphore(lab, path, workload.pid) == 1
    programs[0].close()
    assert _semaphore(lab, path, workload.pid) == 1
    go(lab, workload.pid)
    assert "prepared 7" in workload.wait().stdout
    assert list(programs[1]["steps"].frame()["n"]) == [*range(7)]
    programs[1].close()


def test_closing_counts_the_semaphore_down(lab: Lab, folder: str) -> None:
    path = f"{folder}/usdt_loop_semaphore"
    workload = lab.start([path, "7", "--wait"])
    for pid in (workload.pid, None):
        usdt = lab.usdt(path, pid=pid)
        usdt.enable_probe(probe="step", fn_name="on_step")
        for _ in range(2):  # a cell that is run again
            prog = lab.load(STEPS, usdt_contexts=[usdt])
            assert _semaphore(lab, path, workload.pid) == 1
            prog.close()
            assert _semaphore(lab, path, workload.pid) == 0
    go(lab, workload.pid)
    assert "prepared 0" in workload.wait().stdout


def test_a_refused_program_leaves_the_semaphore_at_zero(lab: Lab, folder: str) -> None:
    path = f"{folder}/usdt_loop_semaphore"
    workload = lab.start([path, "7", "--wait"])
    usdt = lab.usdt(path, pid=workload.pid)
    usdt.enable_probe(probe="step", fn_name="on_step")
    usdt.enable_probe(probe="done", fn_name="on_hti")
    with pytest.raises(UnknownName, match="no function 'on_hti'"):
        lab.load(STEPS, usdt_contexts=[usdt])
    assert _semaphore(lab, path, workload.pid) == 0
    workload.stop()


def test_a_child_of_the_traced_process_is_neither_seen_nor_left_counted(
    lab: Lab, folder: str
) -> None:
    path = f"{folder}/forked"
    for pid, hits, child in ((True, 5, 1), (None, 10, 5)):
        workload = lab.start([path, "5", "--wait"])
        usdt = lab.usdt(path, pid=pid and workload.pid)
        usdt.enable_probe(probe="turn", fn_name="on_hit")
        with lab.load(ONE, usdt_contexts=[usdt]) as prog:
            go(lab, workload.pid)
            said = workload.wait().stdout
            assert len(prog["hits"].frame()) == hits
        # The child's copy says 1 until its first hit, when the kernel takes the probe out of it.
        assert f"child counted {child}\n" in said and "parent counted 5\n" in said


@pytest.mark.local
def test_a_killed_agent_leaves_no_semaphore_counted() -> None:
    """The agent's own workloads end with it, so this one is ours."""
    with Lab("local") as lab:
        folder = build(lab)
        path = f"{folder}/usdt_loop_semaphore"
        command = [path, "11", "--wait"]
        traced = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert traced.stdout is not None and traced.stdout.readline()
            usdt = lab.usdt(path)
            usdt.enable_probe(probe="step", fn_name="on_step")
            prog = lab.load(STEPS, usdt_contexts=[usdt])  # else it is collected, and closed
            assert _semaphore(lab, path, traced.pid) == 1
            assert prog.attached
            reading = _reading(lab, path, traced.pid)
            os.kill(lab.agent_pid, signal.SIGKILL)
            deadline = time.monotonic() + 60
            while subprocess.check_output(reading, text=True) != "0\n":
                assert time.monotonic() < deadline
            traced.send_signal(signal.SIGUSR1)
            assert "prepared 0" in traced.communicate()[0]
        finally:
            traced.kill()
            traced.wait()
    shutil.rmtree(folder)
