"""Several machines at once: here one sshd under two names, which is two agents."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import own_sshd
import pytest

from ebpflab import Fleet
from ebpflab.errors import TargetError

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


def test_rows_of_all_hosts_and_one_that_fails_stops_nobody(
    hosts: list[str], target: str, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = "ssh://root@127.0.0.1:1"
    with Fleet([*hosts, absent]) as fleet:
        assert list(fleet.labs) == hosts and list(fleet.failed) == [absent]
        assert f"{absent} is left out" in capsys.readouterr().out
        progs = fleet.load(SOURCE)
        progs.each(lambda prog: prog.attach_uprobe(name=target, sym="work", fn_name="on_work"))
        done = fleet.run([target, "7"])  # both agents see both runs: it is one machine
        rows = progs.collect("calls", seconds=20, rows=28)
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


def test_a_fleet_of_nobody_says_why(hosts: list[str]) -> None:
    with pytest.raises(TargetError, match=r"None of the 2 machines[\s\S]*nothing listens there"):
        Fleet(["ssh://root@127.0.0.1:1", "ssh://root@localhost:1"])
    with pytest.raises(TargetError, match="named twice"):
        Fleet([hosts[0], hosts[0]])
