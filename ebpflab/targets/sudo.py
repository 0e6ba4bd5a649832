"""`ebpflab setup-sudo`: let one user start the agent as root, and nothing else.

    /usr/local/lib/ebpflab/agent.zip    the agent, which only root can change
    /usr/local/lib/ebpflab/start-agent  starts it
    /etc/sudoers.d/ebpflab              a rule that names exactly this, for one user

The rule may never name a file that the user can write: whoever changes such a file is root.
So the agent is copied, every folder above the copy is checked, and the copy counts only
while it is byte for byte what this version of ebpflab would send (:func:`installed_starter`).

Nor may the rule name python3. sudo lets a user call it by a link of their own, and Python looks
for its standard library beside the name that it was called by (pyvenv.cfg). A script's name goes
no further than the kernel, which starts the script's interpreter by a name of our choice.

Every function takes ``prefix``, the folder that stands for ``/``: tests use a temporary one.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

from ebpflab.errors import EbpflabError, MissingTool, NeedsRoot
from ebpflab.transport import archive

ROOT = Path("/")
AGENT = Path("/usr/local/lib/ebpflab/agent.zip")
RULE = Path("/etc/sudoers.d/ebpflab")
STARTER = AGENT.with_name("start-agent")
START = f"#!/bin/sh\nexec /usr/bin/python3 -I -B {AGENT}\n"


def rule_for(user: str) -> str:
    """The text of the sudo rule.

    Raises EbpflabError for a name that sudo would read as something other than a name.
    """
    if not re.fullmatch(r"[a-z_][a-z0-9_.-]*", user, re.IGNORECASE) or user.upper() == "ALL":
        raise EbpflabError(
            f"Writing a sudo rule for {user!r}: that name has a meaning of its own in sudo's "
            "files, or characters that would need quoting. Use another account."
        )
    return (
        "# Written by `ebpflab setup-sudo`; `sudo ebpflab setup-sudo --remove` takes it away.\n"
        f'{user} ALL=(root) NOPASSWD: {STARTER} ""\n'  # "": no arguments
    )


def user_to_allow() -> str:
    """The ordinary user who called sudo; the rule is for them."""
    if os.geteuid() != 0:
        raise NeedsRoot("Setting up sudo needs root, once. Run: sudo .venv/bin/ebpflab setup-sudo")
    user = os.environ.get("SUDO_USER", "root")
    if user == "root":
        raise EbpflabError(
            "There is nothing to set up: you are root, who traces without a sudo rule. To set "
            "it up for an ordinary user, let that user run: sudo .venv/bin/ebpflab setup-sudo"
        )
    try:
        pwd.getpwnam(user)
    except KeyError:
        raise EbpflabError(f"Setting up sudo for {user!r}: there is no such user here.") from None
    return user


def describe(user: str) -> str:
    """What :func:`install` will write, for the reader to agree to."""
    return (
        f"This will write\n\n"
        f"  {AGENT}     the agent, which only root can change\n"
        f"  {STARTER}   starts it\n"
        f"  {RULE}               this rule, checked with visudo:\n\n"
        + "".join(f"      {line}\n" for line in rule_for(user).splitlines())
        + f"\nThe agent compiles C and loads BPF programs as root. These read any file and any\n"
        f"memory, so {user} will be root in all but name, without a password. (The commands of\n"
        f"`lab.run` are started as {user}.) If that is too much, use the guest instead:\n"
        f'Lab("vm") needs no rights at all.\n'
    )


def installed_starter(prefix: Path = ROOT) -> Path | None:
    """What the rule names, if all of it is there, out of users' reach, and the same as ours."""
    agent, starter = _under(prefix, AGENT), _under(prefix, STARTER)
    try:
        if _first_unsafe([*_above(agent, prefix), starter, agent]) is not None:
            return None
        same = starter.read_text() == START and agent.read_bytes() == archive.agent()
    except OSError:
        return None
    return starter if same else None


def install(user: str, prefix: Path = ROOT) -> None:
    """Put the copy and the rule in place; the rule last, and only if visudo accepts it.

    Raises an EbpflabError, and then nothing of the rule is left behind.
    """
    rule = _checked_rule(rule_for(user), prefix)
    try:
        _install_agent(prefix)
        rule.replace(_under(prefix, RULE))
    finally:
        rule.unlink(missing_ok=True)


def remove(prefix: Path = ROOT) -> list[Path]:
    """Take away the rule, then the copy. Returns what was there."""
    if os.geteuid() != 0:
        raise NeedsRoot("Removing needs root. Run: sudo .venv/bin/ebpflab setup-sudo --remove")
    removed = []
    rule, folder = _under(prefix, RULE), _under(prefix, AGENT.parent)
    if rule.exists():
        rule.unlink()
        removed.append(rule)
    if folder.exists():
        shutil.rmtree(folder)
        removed.append(folder)
    return removed


def _under(prefix: Path, path: Path) -> Path:
    return prefix / path.relative_to("/")


def _above(path: Path, prefix: Path) -> list[Path]:
    """The folders that ``path`` is in, from ``prefix`` down."""
    return [folder for folder in reversed(path.parents) if folder.is_relative_to(prefix)]


def _first_unsafe(paths: Iterable[Path]) -> Path | None:
    """The first of ``paths`` that someone other than root may change or redirect."""
    for path in paths:
        status = path.lstat()
        if status.st_uid != 0 or stat.S_ISLNK(status.st_mode) or status.st_mode & 0o022:
            return path
    return None


def _refuse_unsafe(folder: Path, prefix: Path) -> None:
    unsafe = _first_unsafe([*_above(folder, prefix), folder])
    if unsafe is not None:
        raise EbpflabError(
            f"Writing to {folder}: {unsafe} can be changed by others than root, so what is "
            "written there could be, too. Make it safe first: "
            f"chown root:root {unsafe}; chmod go-w {unsafe} (if it is a link, remove it)"
        )


def _checked_rule(text: str, prefix: Path) -> Path:
    """The rule in a file beside its place, accepted by visudo.

    sudo skips files with a dot in their name, so the file has no effect where it stands.
    """
    visudo = shutil.which("visudo", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if visudo is None:
        raise MissingTool(
            "Checking the sudo rule: visudo is missing. Install it: apt-get install sudo"
        )
    place = _under(prefix, RULE)
    if not place.parent.is_dir():
        raise EbpflabError(
            f"Writing {place}: sudo on this machine has no folder {place.parent} for rules."
        )
    _refuse_unsafe(place.parent, prefix)
    draft = place.with_name(f".{place.name}.draft")
    draft.write_text(text)
    draft.chmod(0o440)
    check = subprocess.run([visudo, "-c", "-f", draft], capture_output=True, text=True)
    if check.returncode != 0:
        draft.unlink()
        raise EbpflabError(
            "Checking the sudo rule: visudo refused it, so it was not put in place:\n"
            + (check.stderr + check.stdout).strip()
        )
    return draft


def _install_agent(prefix: Path) -> None:
    """Put the agent and its starter into a new folder, then exchange that for the old one."""
    place = _under(prefix, AGENT).parent
    for folder in _above(place, prefix):
        if not folder.exists():
            folder.mkdir()
            folder.chmod(0o755)
    _refuse_unsafe(place.parent, prefix)
    if place.exists():
        _refuse_unsafe(place, prefix)
    new = Path(tempfile.mkdtemp(prefix=".new-", dir=place.parent))
    try:
        for path, content, mode in (
            (AGENT, archive.agent(), 0o644),
            (STARTER, START.encode(), 0o755),
        ):
            (new / path.name).write_bytes(content)
            (new / path.name).chmod(mode)
        new.chmod(0o755)
        shutil.rmtree(place, ignore_errors=True)
        new.rename(place)
    finally:
        shutil.rmtree(new, ignore_errors=True)
