"""Several machines at once: here one sshd under two names, which is two agents."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import own_sshd
import pytest
from processes import wait_for_end

from ebpflab import Fleet
from ebpflab.errors import CompileError, TargetError, UnknownName
from ebpflab.fleet import FleetProgram

pytestmark = pytest.mark.local

TARGET = (
    '__attribute__((noinline)) void work(void) { __asm__(""); }'
    "int main(int c, char **v) { for (int n = __builtin_atoi(v[1]); n; n--) work(); }"
).replace("__builtin_atoi", "atoi")
SOURCE = r"""
BPF_RINGBUF_OUTPUT(calls, 8);
int on_work(void *ctx) {
  u32 pid = bpf_get_current_pid_tgid() >> 32;
  calls.ringbuf_output(&pid, sizeof(pid), 0);
  return 0;
}
"""


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    folder = tmp_path_factory.mktemp("sshd")
    with own_sshd.serving(folder) as address, pytest.MonkeyPatch.context() as patch:
        own_sshd.on_path(folder, patch)
        yield [address, address.replace("127.0.0.1", "localhost")]


@pytest.fixture(scope="module")
def target(hosts: list[str], tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("fleet") / "target"
    with Fleet(hosts[:1]) as fleet:
        lab = fleet.labs[hosts[0]]
        build = ["gcc", "-x", "c", "-include", "stdlib.h", "-o", str(path), "-"]
        built = lab.run(build, input=TARGET)
        assert built.returncode == 0, built.stderr
    return str(path)


def counting(fleet: Fleet, target: str) -> FleetProgram:
    """Each call of the target's function is a row, on every host."""
    progs = fleet.load(SOURCE)
    progs.each(lambda prog: prog.attach_uprobe(name=target, sym="work", fn_name="on_work"))
    return progs


def test_rows_of_all_hosts_and_one_that_fails_stops_nobody(
    hosts: list[str], target: str, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = "ssh://root@127.0.0.1:1"
    with Fleet([*hosts, absent]) as fleet:
        assert list(fleet.labs) == hosts and list(fleet.failed) == [absent]
        assert f"{absent} is left out" in capsys.readouterr().out
        progs = counting(fleet, target)
        done = fleet.run([target, "7"])  # both agents see both runs: it is one machine
        rows = progs.collect("calls", seconds=120, rows=28)
        assert rows.groupby(["host", "pid"]).size().to_dict() == {
            (host, run.pid): 7 for host in hosts for run in done.values()
        }
        assert rows.attrs["lost"] == 0 and set(rows.attrs["hosts"]) == set(hosts)

        gone = fleet.labs[hosts[1]]
        os.kill(gone.agent_pid, signal.SIGKILL)
        assert list(fleet.run([target, "3"])) == hosts[:1]
        assert "left out" in capsys.readouterr().out and hosts[1] in fleet.failed
        assert list(progs.collect("calls")["host"]) == [hosts[0]] * 3
        assert len(progs.frame("calls")) == 14 + 3


def test_of_many_rows_each_host_gives_its_share_and_none_is_lost(
    hosts: list[str], target: str
) -> None:
    with Fleet(hosts) as fleet:
        progs = counting(fleet, target)
        fleet.labs[hosts[0]].run([target, "29"])  # which both agents see
        progs.programs[hosts[0]]["calls"].collect(rows=27)
        first = progs.collect("calls", rows=5)
        assert first.groupby("host").size().to_dict() == {hosts[0]: 2, hosts[1]: 3}
        assert "interrupted" not in first.attrs
        assert progs.collect("calls", rows=0).empty
        assert list(progs.collect("calls", seconds=60, rows=7)["host"]) == [hosts[1]] * 7
        assert list(progs.collect("calls")["host"]) == [hosts[1]] * (29 - 3 - 7)
        with pytest.raises(ValueError, match="rows= is a whole number, 0 or more"):
            progs.collect("calls", rows=-1)
        with pytest.raises(UnknownName, match="Closest matches: calls"):
            progs.collect("cals", rows=1)
        assert not fleet.failed, "a name that was misspelt is no machine's fault"


def test_when_every_host_is_lost_nothing_is_waited_for(
    hosts: list[str], target: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with Fleet(hosts) as fleet:
        progs = counting(fleet, target)
        fleet.labs[hosts[0]].run([target, "3"])
        progs.each(lambda prog: len(prog["calls"].frame()))  # has sent what it had
        for lab in list(fleet.labs.values()):
            os.kill(lab.agent_pid, signal.SIGKILL)
        found = progs.collect("calls", rows=7)
        assert found.groupby("host").size().to_dict() == dict.fromkeys(hosts, 3)
        assert set(fleet.failed) == set(hosts) and not fleet.labs
        assert capsys.readouterr().out.count("is left out") == 2


def test_a_host_that_is_lost_is_left_out_though_there_are_rows_enough(
    hosts: list[str], target: str
) -> None:
    with Fleet(hosts) as fleet:
        progs = counting(fleet, target)
        fleet.labs[hosts[0]].run([target, "3"])
        progs.each(lambda prog: len(prog["calls"].frame()))
        gone = fleet.labs[hosts[1]]
        os.kill(gone.agent_pid, signal.SIGKILL)
        while gone.lost is None:
            time.sleep(0.05)
        assert len(progs.collect("calls", rows=2)) == 2 and list(fleet.failed) == [hosts[1]]
        assert len(progs.collect("calls", rows=4)) == 4


def test_an_interrupt_kills_the_commands_and_waits_for_none(
    hosts: list[str], tmp_path: Path
) -> None:
    begun, ended = tmp_path / "begun", tmp_path / "ended"
    command = ["sh", "-c", f"trap '' TERM; echo $$ >> {begun}; sleep 60; touch {ended}"]
    with Fleet(hosts) as fleet:
        interrupt = threading.Thread(target=interrupt_when, args=[begun, len(hosts)])
        interrupt.start()
        with pytest.raises(KeyboardInterrupt):
            fleet.run(command)
        interrupt.join()
        pids = [int(line) for line in begun.read_text().split()]
        assert not wait_for_end(pids)
        assert len(pids) == 2 and not ended.exists() and not fleet.failed
        assert {run.returncode for run in fleet.run(["true"]).values()} == {0}


def interrupt_when(path: Path, lines: int) -> None:
    """Ctrl-C, when so many commands have begun."""
    while not path.exists() or path.read_text().count("\n") < lines:
        time.sleep(0.05)
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def test_a_mistake_is_no_failure_of_machines(hosts: list[str]) -> None:
    with Fleet(hosts) as fleet:
        with pytest.raises(CompileError, match="colour"):
            fleet.load(SOURCE.replace("u32 pid", "colour pid"))
        progs = fleet.load(SOURCE)
        with pytest.raises(UnknownName, match=r"Closest match.*calls"):
            progs.each(lambda prog: prog["cals"])
        assert list(fleet.labs) == list(progs.programs) == hosts and not fleet.failed


def test_a_fleet_of_nobody_says_why(hosts: list[str]) -> None:
    with pytest.raises(TargetError, match=r"None of the 2 machines[\s\S]*nothing listens there"):
        Fleet(["ssh://root@127.0.0.1:1", "ssh://root@localhost:1"])
    with pytest.raises(TargetError, match="named twice"):
        Fleet([hosts[0], hosts[0]])
