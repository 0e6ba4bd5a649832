"""The ssh target and Fleet against machines of their own: guests with an sshd, reached by name."""

from __future__ import annotations

from collections.abc import Iterator

import own_sshd
import pytest
import ssh_guests

from ebpflab import Fleet, Lab
from ebpflab.errors import BccMissing, ConnectionLost, EbpflabError, NeedsRoot, TargetError

pytestmark = [pytest.mark.vm, pytest.mark.timeout(600)]

READS = r"""
#include <uapi/linux/ptrace.h>
BPF_RINGBUF_OUTPUT(reads, 8);
int on_read(struct pt_regs *ctx) {
  u64 asked_bytes = PT_REGS_PARM3(ctx);
  if (asked_bytes == 7) reads.ringbuf_output(&asked_bytes, sizeof(asked_bytes), 0);
  return 0;
}
"""


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, ssh_guests.Machine]]:
    scripts = {
        "one": "echo one >/proc/sys/kernel/hostname",
        "two": "echo two >/proc/sys/kernel/hostname",
        "without-sudo": "rm /usr/bin/sudo",
        "without-bcc": "rm -r /usr/lib/python3/dist-packages/bcc",
        "changed": "rm /run/host_key; ssh-keygen -q -t ed25519 -N '' -f /run/host_key",
    }
    made = {name: ssh_guests.Machine(name, script) for name, script in scripts.items()}
    folder = tmp_path_factory.mktemp("ssh")
    ssh_guests.make_client(folder, list(made.values()))
    with pytest.MonkeyPatch.context() as patch:
        own_sshd.on_path(folder, patch)
        for machine in made.values():
            machine.serve(folder)
        yield made
        for machine in made.values():
            machine.close()


def copy(fleet: Fleet, times: int) -> None:
    fleet.run(["dd", "if=/dev/zero", "of=/dev/null", "bs=7", f"count={times}"])


def test_two_machines_one_of_which_goes_away(
    machines: dict[str, ssh_guests.Machine], capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = "ssh://root@one", "ssh://engineer@two"  # one as root, one through sudo
    with Fleet([one, two, "ssh://root@127.0.0.1:1"]) as fleet:
        assert list(fleet.labs) == [one, two]
        assert "nothing listens there" in str(fleet.failed["ssh://root@127.0.0.1:1"])
        names = fleet.run(["uname", "-n"])
        assert {host: done.stdout for host, done in names.items()} == {one: "one\n", two: "two\n"}
        progs = fleet.load(READS)
        progs.each(lambda prog: prog.attach_kprobe(event="vfs_read", fn_name="on_read"))
        copy(fleet, 101)
        rows = progs.collect("reads", seconds=60, rows=202)
        assert rows["host"].value_counts().to_dict() == {one: 101, two: 101}

        lost = fleet.labs[two]
        machines["two"].end()
        copy(fleet, 13)
        assert list(fleet.labs) == [one] and f"{two} is left out" in capsys.readouterr().out
        error = fleet.failed[two]
        assert isinstance(error, ConnectionLost) and two in str(error)
        assert list(progs.collect("reads", seconds=60, rows=13)["host"]) == [one] * 13
        assert len(progs.frame("reads")) == 101 + 13
        with pytest.raises(ConnectionLost):
            lost.run(["true"])


def test_rows_stay_when_the_machine_is_gone(machines: dict[str, ssh_guests.Machine]) -> None:
    with Lab("ssh://root@one") as lab:
        prog = lab.load(READS)
        prog.attach_kprobe(event="vfs_read", fn_name="on_read")
        lab.run(["dd", "if=/dev/zero", "of=/dev/null", "bs=7", "count=17"])
        assert len(prog["reads"].collect(seconds=60, rows=17)) == 17
        machines["one"].end()
        with pytest.raises(ConnectionLost, match="connection to ssh://root@one ended"):
            lab.run(["true"])
        assert len(prog["reads"].frame()) == 17


@pytest.mark.parametrize(
    ("address", "error", "told"),
    [
        ("ssh://student@two", NeedsRoot, "its sudo asks for a password.*sudo -n"),
        ("ssh://engineer@without-sudo", NeedsRoot, "not root there, and it has no sudo"),
        ("ssh://root@without-bcc", BccMissing, "cannot import bcc.*apt-get install python3-bpfcc"),
        ("ssh://root@changed", TargetError, "host key is not the one.*ssh-keygen -R"),
        ("ssh://stranger@two", TargetError, "none of your keys.*ssh-copy-id"),
    ],
)
@pytest.mark.usefixtures("machines")
def test_what_stands_against_it_is_told(address: str, error: type[EbpflabError], told: str) -> None:
    with pytest.raises(error, match=f"(?s){told}"):
        Lab(address)
