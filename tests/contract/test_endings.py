"""However a lab ends, nothing of it stays."""

from __future__ import annotations

import subprocess
import sys

import pytest
from processes import children, wait_for_end

from ebpflab import Lab
from ebpflab.errors import ConnectionLost

PARAMS = [
    pytest.param("local", marks=pytest.mark.local),
    pytest.param("vm", marks=pytest.mark.vm),
]
COUNTER = r"""
BPF_RINGBUF_OUTPUT(seen, 8);
int on_work(struct pt_regs *ctx) { u64 n = 1; seen.ringbuf_output(&n, sizeof(n), 0); return 0; }
"""
NOTEBOOK = """
import sys, time
from ebpflab import Lab
lab = Lab(sys.argv[1])
prog = lab.load('int f(void *ctx) { return 0; }')
prog.attach_uprobe(name='c', sym='malloc', fn_name='f', pid=lab.start(['sleep', '1000']).pid)
print("traced", flush=True)
time.sleep(1000)
"""


def _descendants(pid: int) -> set[int]:
    """Process ids below ``pid``, from /proc."""
    below = children(pid)
    return below | {deeper for child in below for deeper in _descendants(child)}


@pytest.mark.parametrize("target", PARAMS)
def test_a_killed_notebook_leaves_nothing(target: str) -> None:
    notebook = subprocess.Popen(
        [sys.executable, "-c", NOTEBOOK, target], stdout=subprocess.PIPE, text=True
    )
    assert notebook.stdout is not None
    assert "traced\n" in iter(notebook.stdout.readline, "")  # after what it says while it starts
    below = _descendants(notebook.pid)
    assert below
    notebook.kill()
    notebook.wait()
    assert wait_for_end(below) == set()


@pytest.mark.parametrize("target", PARAMS)
def test_a_killed_agent_is_named_and_the_rows_stay(target: str) -> None:
    with Lab(target) as lab:
        folder = lab.run(["mktemp", "-d"]).stdout.strip()
        source = '__attribute__((noinline)) void work(void) { __asm__(""); } int main() { work(); }'
        lab.run(["gcc", "-x", "c", "-o", f"{folder}/target", "-"], input=source)
        prog = lab.load(COUNTER)
        prog.attach_uprobe(name=f"{folder}/target", sym="work", fn_name="on_work")
        lab.run([f"{folder}/target"])
        assert len(prog["seen"].frame()) == 1
        lab.start(["rm", "-r", folder]).wait()
        with pytest.raises(ConnectionLost, match=r"The agent (was killed by signal 9|ended)"):
            lab.run(["kill", "-KILL", str(lab.agent_pid)])
        with pytest.raises(ConnectionLost):
            lab.load(COUNTER)
        assert len(prog["seen"].frame()) == 1
    with Lab(target) as lab:  # the next one works
        assert lab.run(["true"]).returncode == 0


@pytest.mark.parametrize("target", PARAMS)
def test_where_memory_runs_out_a_workload_goes_before_the_agent(target: str) -> None:
    with Lab(target) as lab:
        pids = [lab.start(["sleep", "1000"]).pid, lab.agent_pid]
        scores = [lab.run(["cat", f"/proc/{pid}/oom_score_adj"]).stdout for pid in pids]
        workload, agent = map(int, scores)
    assert workload > agent


@pytest.mark.parametrize("target", PARAMS)
def test_a_closed_lab_says_so(target: str) -> None:
    lab = Lab(target)
    prog = lab.load(COUNTER)
    lab.close()
    lab.close()
    assert lab.closed and "closed" in repr(lab)
    with pytest.raises(ConnectionLost, match=r"closed\. Make a new one"):
        lab.run(["true"])
    assert prog["seen"].frame().empty
