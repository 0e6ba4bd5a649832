"""`ebpflab setup-sudo` in a folder that stands for `/`, with the real visudo."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from ebpflab.errors import EbpflabError, MissingTool, NeedsRoot
from ebpflab.targets import sudo
from ebpflab.transport import archive

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="makes files that belong to root: run `sudo make test`"
)


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    (tmp_path / "etc/sudoers.d").mkdir(parents=True)
    return tmp_path


def everything(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def test_rule_names_one_user_and_exactly_one_command() -> None:
    lines = sudo.rule_for("alice").splitlines()
    assert [line for line in lines if not line.startswith("#")] == [
        'alice ALL=(root) NOPASSWD: /usr/local/lib/ebpflab/start-agent ""'
    ]


@pytest.mark.parametrize("user", ["ALL", "%sudo", "a b", "al,bob", "#0", "", "x\ny ALL=ALL"])
def test_names_that_sudo_would_read_otherwise_are_refused(user: str) -> None:
    with pytest.raises(EbpflabError, match="meaning of its own"):
        sudo.rule_for(user)


def test_install_then_remove_leaves_nothing(prefix: Path) -> None:
    sudo.install("alice", prefix)
    rule = prefix / "etc/sudoers.d/ebpflab"
    assert rule.read_text() == sudo.rule_for("alice")
    assert stat.S_IMODE(rule.stat().st_mode) == 0o440
    subprocess.run(["visudo", "-c", "-f", rule], check=True, capture_output=True)
    agent = prefix / "usr/local/lib/ebpflab/agent.zip"
    assert sudo.installed_starter(prefix) == agent.with_name("start-agent")
    for path in (agent, agent.with_name("start-agent"), agent.parent):
        assert path.stat().st_uid == path.stat().st_gid == 0
        assert not path.stat().st_mode & 0o022
    assert agent.read_bytes() == archive.agent()
    assert sudo.remove(prefix) == [rule, agent.parent]
    assert everything(prefix) == set()
    assert sudo.remove(prefix) == []


def test_installing_again_replaces_rule_and_copy(prefix: Path) -> None:
    sudo.install("alice", prefix)
    agent = prefix / "usr/local/lib/ebpflab/agent.zip"
    agent.write_bytes(archive.agent() + b"more")
    assert sudo.installed_starter(prefix) is None
    sudo.install("bob", prefix)
    assert sudo.installed_starter(prefix) is not None
    assert "alice" not in (prefix / "etc/sudoers.d/ebpflab").read_text()


def test_files_are_the_same_whatever_the_umask(prefix: Path) -> None:
    before = os.umask(0o000)
    try:
        sudo.install("alice", prefix)
    finally:
        os.umask(before)
    assert sudo.installed_starter(prefix) is not None


def test_no_copy_is_no_installed_starter(prefix: Path) -> None:
    assert sudo.installed_starter(prefix) is None


def test_a_copy_that_differs_or_can_be_changed_does_not_count(prefix: Path) -> None:
    sudo.install("alice", prefix)
    agent = prefix / "usr/local/lib/ebpflab/agent.zip"
    for path in (agent, agent.with_name("start-agent"), agent.parent, agent.parents[3]):
        mode = stat.S_IMODE(path.stat().st_mode)
        path.chmod(mode | 0o002)
        assert sudo.installed_starter(prefix) is None, path
        path.chmod(mode)
        os.chown(path, 65534, 65534)
        assert sudo.installed_starter(prefix) is None, path
        os.chown(path, 0, 0)
    assert sudo.installed_starter(prefix) is not None
    agent.write_bytes(agent.read_bytes()[:-1] + b"x")
    assert sudo.installed_starter(prefix) is None


@pytest.mark.parametrize("folder", ["usr", "usr/local/lib", "usr/local/lib/ebpflab"])
def test_a_folder_that_a_user_can_write_is_refused(prefix: Path, folder: str) -> None:
    (prefix / "usr/local/lib/ebpflab").mkdir(parents=True)
    (prefix / folder).chmod(0o775)
    with pytest.raises(EbpflabError, match=r"changed by others than root.*chmod go-w"):
        sudo.install("alice", prefix)
    assert everything(prefix) == set()


def test_a_link_in_the_way_is_refused(prefix: Path) -> None:
    elsewhere = prefix / "home"
    elsewhere.mkdir()
    (prefix / "usr/local").mkdir(parents=True)
    (prefix / "usr/local/lib").symlink_to(elsewhere)
    with pytest.raises(EbpflabError, match="changed by others than root"):
        sudo.install("alice", prefix)
    assert everything(prefix) == set()


def test_a_rule_that_visudo_refuses_is_never_in_place(
    prefix: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sudo, "rule_for", lambda user: f"{user} ALL=(root NOPASSWD: ls\n")
    with pytest.raises(EbpflabError, match="visudo refused it, so it was not put in place"):
        sudo.install("alice", prefix)
    assert everything(prefix) == set()


def test_without_visudo_nothing_is_written(prefix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sudo.shutil, "which", lambda name, path=None: None)
    with pytest.raises(MissingTool, match="apt-get install sudo"):
        sudo.install("alice", prefix)
    assert everything(prefix) == set()


def test_a_machine_without_sudoers_d_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(EbpflabError, match="no folder"):
        sudo.install("alice", tmp_path)


def test_the_user_is_the_one_who_called_sudo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_USER", "nobody")
    assert sudo.user_to_allow() == "nobody"
    monkeypatch.setenv("SUDO_USER", "no-such-user-here")
    with pytest.raises(EbpflabError, match="no such user"):
        sudo.user_to_allow()
    monkeypatch.delenv("SUDO_USER")
    with pytest.raises(EbpflabError, match="you are root"):
        sudo.user_to_allow()


def test_an_ordinary_user_is_told_to_use_sudo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sudo.os, "geteuid", lambda: 1000)
    with pytest.raises(NeedsRoot, match=r"sudo \.venv/bin/ebpflab setup-sudo"):
        sudo.user_to_allow()
    with pytest.raises(NeedsRoot, match="--remove"):
        sudo.remove(Path("/nonexistent"))


def test_what_will_be_written_is_shown_in_full() -> None:
    text = sudo.describe("alice")
    for line in sudo.rule_for("alice").splitlines():
        assert line in text
    assert str(sudo.AGENT) in text and str(sudo.RULE) in text
    assert "BPF programs as root" in text and "alice will be root in all but name" in text
    assert "commands of\n`lab.run` are started as alice" in text


def test_the_installed_agent_ends_when_its_input_does(prefix: Path) -> None:
    """The copy is whole: it runs from where it is, isolated, as the rule would run it."""
    sudo.install("alice", prefix)
    agent = prefix / "usr/local/lib/ebpflab/agent.zip"
    command = [shutil.which("python3", path="/usr/bin") or "python3", "-I", "-B", agent]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr.decode()
    assert b'"hello"' in done.stdout
