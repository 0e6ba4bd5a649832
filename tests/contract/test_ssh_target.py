"""What the ssh target must do beyond the contract: end well, whoever ends it."""

from __future__ import annotations

import os
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import own_sshd
import pytest
from processes import runs, wait_for_end

from ebpflab import Lab
from ebpflab.errors import ConnectionLost, TargetError
from ebpflab.targets import ssh

pytestmark = pytest.mark.local

COUNT = r"""
BPF_RINGBUF_OUTPUT(seen, 8);
int on_work(struct pt_regs *ctx) {
  u64 n = PT_REGS_PARM1(ctx);
  seen.ringbuf_output(&n, sizeof(n), 0);
  return 0;
}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sshd")


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with own_sshd.serving(folder) as address, pytest.MonkeyPatch.context() as patch:
        own_sshd.on_path(folder, patch)
        yield address


def test_a_lost_connection_is_named_and_the_rows_so_far_stay(address: str) -> None:
    work = '__attribute__((noinline)) long work(long n) { __asm__(""); return n; }'
    main = "int main() { for (long n = 0; n < 17; n++) work(n); }"
    with Lab(address) as lab:
        place = lab.run(["mktemp", "-d"]).stdout.strip()
        built = lab.run(["gcc", "-x", "c", "-o", f"{place}/target", "-"], input=work + main)
        assert built.returncode == 0, built.stderr
        prog = lab.load("#include <uapi/linux/ptrace.h>\n" + COUNT)
        prog.attach_uprobe(name=f"{place}/target", sym="work", fn_name="on_work")
        lab.run([f"{place}/target"])
        assert len(prog["seen"].frame()) == 17
        lab.run(["rm", "-r", place])
        os.kill(lab.agent_pid, signal.SIGKILL)  # of this machine, since the sshd is
        with pytest.raises(ConnectionLost, match=re.escape(address)):
            lab.run(["/bin/true"])
        assert list(prog["seen"].frame()["n"]) == list(range(17))


def test_nothing_is_left_running_there(address: str) -> None:
    with Lab(address) as lab:
        assert runs(lab.agent_pid)
    assert wait_for_end([lab.agent_pid]) == set()


def test_an_unknown_or_changed_host_key_is_never_taken(address: str, folder: Path) -> None:
    known = folder / "known"
    kept = known.read_text()
    other = (folder / "user.pub").read_text().split()[1]
    try:
        for key in ("", kept.replace((folder / "host.pub").read_text().split()[1], other)):
            known.write_text(key)
            with pytest.raises(TargetError, match="host key"):
                Lab(address)
    finally:
        known.write_text(kept)


def test_a_user_that_it_does_not_take_is_told(address: str) -> None:
    with pytest.raises(TargetError, match="none of your keys"):
        Lab(address.replace("root@", "nobody@"))


def test_what_accepts_and_never_speaks_is_given_up(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh, "_CONNECT_SECONDS", 2.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent_address = f"ssh://root@127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(TargetError, match=r"does not answer\. Is it on\?"):
            Lab(silent_address)
