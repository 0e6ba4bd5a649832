"""The rule of `ebpflab setup-sudo` under the real sudo, and a user who tries to be root by it.

Each test has a /etc/sudoers.d and a /usr/local/lib of its own, in a mount namespace that ends with
it. The user is `nobody`, who owns a folder of traps: whatever of it runs leaves its user's name.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.local

NOBODY = 65534
EBPFLAB = str(Path(sys.executable).with_name("ebpflab"))
FOLDER = "/usr/local/lib/ebpflab"
AGENT = f"{FOLDER}/agent.zip"
STARTER = "/usr/local/lib/ebpflab/start-agent"
ALLOWED = f"sudo -n {STARTER}"
TRAP = "import os; print(os.getuid(), file=open({sprung!r}, 'a'))\n"
NAMES = ("sitecustomize", "usercustomize", "bcc", "json", "wire", "session", "runpy", "zipimport")


@pytest.fixture
def traps(tmp_path: Path) -> Path:
    """A folder of nobody's, with modules in the places where a careless Python looks for some."""
    folder = tmp_path / "traps"
    site = folder / f".local/lib/python3.{sys.version_info.minor}/site-packages"
    for place in (folder, site, folder / "lib"):
        place.mkdir(parents=True, exist_ok=True)
        for name in (*NAMES, "__main__"):
            (place / f"{name}.py").write_text(TRAP.format(sprung=str(folder / "sprung")))
    for path in (folder, *folder.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    for above in tmp_path.parents:  # pytest's own folders are closed to others
        if above.stat().st_mode & 0o777 == 0o700:
            above.chmod(0o711)
    tmp_path.chmod(0o711)
    return folder


def sprung(traps: Path) -> str:
    path = traps / "sprung"
    return path.read_text() if path.exists() else ""


def machine(script: str) -> subprocess.CompletedProcess[str]:
    """What root's ``script`` says, on a machine whose places for rules and agents are empty.

    In it, `nobody COMMAND...` runs a command as that user.
    """
    prepared = f"""
    mount -t tmpfs -o mode=755 none /etc/sudoers.d
    mount -t tmpfs -o mode=755 none /usr/local/lib
    export SUDO_USER=nobody
    nobody() {{ env -u SUDO_USER setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups "$@"; }}
    {script}
    """
    return subprocess.run(
        ["unshare", "--mount", "sh", "-ec", prepared],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="latin-1",  # the agent's first frame is among it
        timeout=120,
    )


def test_the_rule_starts_the_agent_as_root_until_it_is_removed() -> None:
    done = machine(f"""
        {EBPFLAB} setup-sudo --yes
        nobody {ALLOWED}
        {EBPFLAB} setup-sudo --remove
        find /etc/sudoers.d /usr/local/lib -type f
        nobody {ALLOWED} || echo refused
    """)
    assert done.returncode == 0, done.stderr
    shown, started = done.stdout.index("NOPASSWD"), done.stdout.index('"hello"')
    assert shown < started
    removed = ("/etc/sudoers.d/ebpflab", FOLDER)
    lines = "".join(f"Removed {path}\n" for path in removed)
    assert done.stdout.endswith(f"{lines}refused\n")
    assert "password is required" in done.stderr


def test_it_is_shown_and_nothing_is_written_before_somebody_agrees() -> None:
    done = machine(f"""
        {EBPFLAB} setup-sudo || echo status $?
        find /etc/sudoers.d /usr/local/lib -type f
    """)
    assert f'nobody ALL=(root) NOPASSWD: {STARTER} ""' in done.stdout
    assert done.stdout.endswith("status 1\n")


def test_no_module_of_the_users_is_run_by_root(traps: Path) -> None:
    variables = {
        "HOME": traps,
        "PYTHONPATH": traps,
        "PYTHONUSERBASE": traps / ".local",
        "PYTHONHOME": traps,
        "PYTHONSTARTUP": traps / "__main__.py",
        "PYTHONINSPECT": 1,
    }
    set_all = " ".join(f"{name}={value}" for name, value in variables.items())
    done = machine(f"""
        {EBPFLAB} setup-sudo --yes
        cd {traps}
        nobody env {set_all} {ALLOWED}
        nobody env -u PYTHONHOME HOME={traps} PYTHONPATH={traps} /usr/bin/python3 -c 'import json'
    """)
    assert done.returncode == 0, done.stderr
    assert '"hello"' in done.stdout
    assert set(sprung(traps).split()) == {str(NOBODY)}, "traps spring for their owner, not for root"


@pytest.mark.parametrize(
    "command",
    [
        "/usr/bin/python3 -I -B {agent}",
        "/usr/bin/python3 -I -B {traps}",
        "{starter} {traps}",
        "{traps}/other",
        "{agent}",
        "{agent}/../../../../..{traps}/__main__.py",
        "/usr/local/lib/ebpflab/../../../..{traps}/__main__.py",
        "PYTHONPATH={traps} {starter}",
        "LD_PRELOAD={traps}/x.so {starter}",
        "-E {starter}",
        "-D {traps} {starter}",
        "/bin/sh",
    ],
)
def test_every_other_command_is_refused(traps: Path, command: str) -> None:
    (traps / "other").symlink_to(STARTER)
    done = machine(f"""
        {EBPFLAB} setup-sudo --yes >/dev/null
        nobody sudo -n {command.format(traps=traps, agent=AGENT, starter=STARTER)}
    """)
    assert done.returncode != 0 and '"hello"' not in done.stdout
    assert "sudo: " in done.stderr
    assert sprung(traps) == ""


def test_a_link_to_what_is_allowed_brings_no_standard_library_along(traps: Path) -> None:
    """sudo follows a link of the same name; Python must not look beside it for its own modules."""
    (traps / "start-agent").symlink_to(STARTER)
    (traps / "pyvenv.cfg").write_text(f"home = {traps}/bin\n")
    for minor in range(9, 20):
        library = traps / f"lib/python3.{minor}"
        (library / "encodings").mkdir(parents=True)
        for module in ("os", "encodings/__init__", "site"):
            (library / f"{module}.py").write_text(TRAP.format(sprung=str(traps / "sprung")))
    done = machine(f"""
        {EBPFLAB} setup-sudo --yes >/dev/null
        nobody sudo -n {traps}/start-agent
    """)
    assert '"hello"' in done.stdout and sprung(traps) == ""


def test_the_copy_cannot_be_replaced_by_the_user(traps: Path) -> None:
    attempts = [
        f"cp {traps}/wire.py {AGENT}",
        f"cp {traps}/wire.py {STARTER}",
        f"cp {traps}/bcc.py {FOLDER}/bcc.py",
        f"ln -sf {traps}/__main__.py {AGENT}",
        f"rm -f {AGENT}",
        f"mv {AGENT} {AGENT}.old",
        f"mv {FOLDER} {FOLDER}.old",
        f"ln -sfn {traps} {FOLDER}",
        f"mkdir {FOLDER}/__pycache__",
        f"chmod a+w {AGENT}",
    ]
    tried = "\n".join(f"nobody {line} && echo done: {shlex.quote(line)}" for line in attempts)
    done = machine(f"""
        {EBPFLAB} setup-sudo --yes >/dev/null
        find {FOLDER} | sort | xargs ls -ld >/tmp/before.$$
        set +e
        {tried}
        set -e
        find {FOLDER} | sort | xargs ls -ld | diff /tmp/before.$$ -
        rm /tmp/before.$$
        nobody {ALLOWED}
    """)
    assert done.returncode == 0, done.stderr
    assert "done: " not in done.stdout and '"hello"' in done.stdout
    assert sprung(traps) == ""


def test_all_that_the_agent_imports_is_roots(traps: Path) -> None:
    """The folders of its path, with the agent's own, are closed to everybody else."""
    ask = "import os, sys, bcc; print(*(p for p in [*sys.path, bcc.__file__] if os.path.exists(p)))"
    done = machine(f"/usr/bin/python3 -I -B -c {shlex.quote(ask)}")
    assert done.returncode == 0 and done.stdout.split(), done.stderr
    for path in map(Path, done.stdout.split()):
        for folder in (path, *path.parents):
            status = folder.stat()
            assert status.st_uid == 0 and not status.st_mode & 0o002, folder
