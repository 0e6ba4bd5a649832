"""The ssh target without a network: addresses, the command, and what each failure says."""

from __future__ import annotations

from pathlib import Path

import pytest

from ebpflab.errors import MissingTool, NeedsRoot, TargetError
from ebpflab.targets import child, choose, ssh
from ebpflab.targets.ssh import SshTarget
from ebpflab.transport import archive


@pytest.mark.parametrize("url", ["ssh://", "ssh:host", "ssh://-oProxyCommand=x", "ssh://a/path"])
def test_an_address_that_is_none_is_refused_before_ssh_sees_it(url: str) -> None:
    with pytest.raises(TargetError, match="ssh://user@host"):
        choose(url)


def test_the_address_goes_to_ssh_as_it_is_and_ssh_asks_nothing() -> None:
    command = SshTarget("ssh://me@there:2222/").command()
    assert command[0] == "ssh" and "ssh://me@there:2222" in command
    assert "-oBatchMode=yes" in command and "-oConnectTimeout=60" in command
    assert command[-1].startswith("exec sh -c ") and "sudo -n /usr/bin/python3 -I -B" in command[-1]


@pytest.mark.parametrize(
    ("said", "kind", "advice"),
    [
        ("Host key verification failed.", TargetError, "ssh-keygen -R"),
        ("@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @", TargetError, "ssh-keygen -R"),
        ("me@there: Permission denied (publickey).", TargetError, "ssh-copy-id"),
        ("ssh: Could not resolve hostname there: Name or service not known", TargetError, "name"),
        ("ssh: connect to host there port 22: Connection refused", TargetError, "sshd"),
        ("ssh: connect to host there port 22: Connection timed out", TargetError, "Is it on?"),
        ("sudo: a password is required", NeedsRoot, "sudo -n"),
        ("sh: 1: exec: sudo: not found", NeedsRoot, "no sudo"),
        ("sh: 1: exec: /usr/bin/python3: not found", TargetError, "python3-bpfcc"),
        ("something nobody has foreseen", TargetError, "something nobody has foreseen"),
    ],
)
def test_each_failure_says_what_to_do(
    said: str,
    kind: type[TargetError],
    advice: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _fake_ssh(tmp_path, monkeypatch, f"echo '{said}' >&2; exit 255")
    with pytest.raises(kind) as caught:
        SshTarget("ssh://there").connect(lambda step: None)
    assert advice in str(caught.value) and "ssh://there" in str(caught.value)
    assert type(caught.value) is kind


def test_a_shell_that_prints_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _fake_ssh(tmp_path, monkeypatch, "echo Welcome to there!; cat > /dev/null")
    with pytest.raises(TargetError, match=r"b'Welc'.*\.bashrc"):
        SshTarget("ssh://there").connect(lambda step: None)


@pytest.mark.timeout(30)
@pytest.mark.parametrize("script", ["exec sleep 97", "exec cat > /dev/null"])
def test_an_ssh_that_never_connects_is_given_up(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that reads nothing, and so the agent does not go into the pipe, and one that does."""
    assert len(archive.agent_parcel()) > 64 << 10, "as much as a pipe holds"
    _fake_ssh(tmp_path, monkeypatch, script)
    monkeypatch.setattr(ssh, "_CONNECT_SECONDS", 1.0)
    monkeypatch.setattr(child, "_END_SECONDS", 0.1)
    with pytest.raises(TargetError, match="ssh://there: no answer in 1 seconds"):
        SshTarget("ssh://there").connect(lambda step: None)


def test_without_ssh_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingTool, match="openssh-client"):
        SshTarget("ssh://there").connect(lambda step: None)


def _fake_ssh(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    fake = folder / "ssh"
    fake.write_text(f"#!/bin/sh\n{script}\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
