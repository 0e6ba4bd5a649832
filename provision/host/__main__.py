"""Set up this machine: ``python3 -B provision/host GOAL``, of which there are:

    setup   system packages, .venv, and the guest where this kernel cannot be traced
    lab     the same, then JupyterLab on notebooks/
    box     .venv and what builds the guest
    test-vagrant  the same with Vagrant and libvirt
    vm      the same as setup, with the guest in any case
    test    the same as vm, with compilers and a browser for the tests
    book    the same as vm, with sphinx, and a browser that draws the diagrams; where no guest
            can be had, the chapters' recordings do
    bench   the same as vm, with what ebpflab is compared with
    course  the same as vm, with nbgrader and the sandbox in which it grades
    hub     the same as vm, with JupyterHub and its proxy
    tools   .venv alone, with what `make check` needs

Each step looks first and does nothing where nothing is missing, so that a second `make lab`
serves within seconds. A step that cannot be done here ends with what to do instead. Standard
library only; starts under Python 3.8, if only to say that it is too old.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import environment
import packages
import server
from stop import Stop, say

REPOSITORY = Path(__file__).resolve().parents[2]
OLDEST_PYTHON = (3, 11)

GOALS = ["setup", "lab", "vm", "box", "test", "test-vagrant", "book", "bench", "tools"]
GOALS += ["course", "hub"]

# What `pip install` of ebpflab is asked for beside JupyterLab.
EXTRAS = {
    "test": ("lab", "dev", "course", "hub"),
    "test-vagrant": ("lab", "dev"),
    "tools": ("lab", "dev"),
    "book": ("lab", "dev", "book"),
    "course": ("lab", "course"),
    "hub": ("lab", "hub"),
}

PROXY = "configurable-http-proxy@4"  # 5 wants a Node newer than Debian 13 has

BY_HAND = """\
{system} is not a system this set-up knows; it installs packages on Debian and Ubuntu only.
On another Linux, install these with its package manager, as it calls them:
  - Python 3.11 or newer with venv; git
  - BCC's module for {python} (Debian: python3-bpfcc), and the headers of the running kernel
  - or, for the guest: qemu-system-{machine}, qemu-img, mmdebstrap, uidmap
then:
  python3 -m venv .venv
  .venv/bin/pip install -c constraints.txt -e '.[lab]'
  .venv/bin/ebpflab doctor          # says what is still missing
  .venv/bin/jupyter lab notebooks   # where nothing can be traced, chapters play recordings
On macOS or Windows, do `make lab` inside of a Linux virtual machine (Debian 13 is the safest
choice), and open the address it prints through a forwarded port: ssh -L 8888:127.0.0.1:8888"""


def main() -> int:
    goal = sys.argv[1] if len(sys.argv) == 2 else ""
    if goal not in GOALS:
        print(__doc__, file=sys.stderr)
        return 2
    os.chdir(REPOSITORY)
    try:
        prepare(goal)
    except Stop as stop:
        print(f"\nebpflab: {stop}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nebpflab: interrupted. `make {goal}` goes on from here.", file=sys.stderr)
        return 130
    return 0


def prepare(goal: str) -> None:
    require_python()
    require_debian()
    testing = goal in ("test", "bench")
    packages.ensure(packages.for_venv())
    environment.ensure(REPOSITORY, EXTRAS.get(goal, ("lab",)))
    if goal == "tools":
        return
    if goal == "hub" and os.geteuid() == 0:
        environment.require_readable(REPOSITORY)
    if goal in ("box", "test-vagrant"):
        packages.ensure(packages.FOR_BOX if goal == "box" else packages.FOR_VAGRANT)
        return
    if goal in ("test", "book"):
        packages.ensure(packages.for_browser())
        if not shutil.which("chromium"):
            install_browser()
    try:
        also = {"test": packages.FOR_TESTS, "bench": packages.FOR_BENCH}.get(goal, [])
        packages.ensure(packages.for_tracing(testing) + also)
        needed = goal in ("vm", "test", "book", "bench", "course", "hub")
        prepare_guest(always=needed, everybodys=goal == "hub")
    except Stop as stop:
        if goal != "book":
            raise
        say(f"No machine to trace: {stop}")
        say("So the book is made of the chapters' recordings, and says so on each page.")
    if goal == "course":
        packages.ensure(packages.FOR_GRADING)
    if goal == "hub":
        install_proxy()
    if goal == "lab":
        server.serve(REPOSITORY)
    say("Everything is set up.")


def require_python() -> None:
    """Go on under Python 3.11 or newer; this one, or another that is on PATH."""
    if sys.version_info >= OLDEST_PYTHON:
        return
    for minor in range(15, OLDEST_PYTHON[1] - 1, -1):
        other = shutil.which(f"python3.{minor}")
        if other and subprocess.run([other, "-c", ""], stderr=subprocess.DEVNULL).returncode == 0:
            say(f"python3 is {platform.python_version()}; going on with {other}")
            os.execv(other, [other, "-B", *sys.argv])
    raise Stop(
        f"ebpflab needs Python 3.11 or newer, and python3 is {platform.python_version()}.\n"
        "Install a newer one and do this again. On Ubuntu 22.04:\n"
        "  sudo apt-get install python3.11 python3.11-venv"
    )


def require_debian() -> None:
    """Raises Stop, with the steps to do by hand, where there is no apt."""
    if platform.system() != "Linux" or not shutil.which("apt-get"):
        names = {"system": packages.system_name(), "machine": platform.machine()}
        raise Stop(BY_HAND.format(python=packages.SYSTEM_PYTHON, **names))


def prepare_guest(always: bool, everybodys: bool = False) -> None:
    """Build the guest where it is needed. Where it is there already, this takes a second.

    ``everybodys`` is for a hub: where root builds, every user's labs find it.
    """
    features = module("ebpflab/agent/kernel/features.py")
    choice = module("ebpflab/targets/features.py")
    local, why = choice.can_trace_kernel(features.probe())
    if local and not always:
        say(f"No guest is needed: {why}.")
        return
    if not local:
        say(f"The chapters will trace a guest, because of this machine's {why}.")
    packages.ensure(packages.FOR_GUEST)
    shared = ["env", "XDG_CACHE_HOME=/var/cache"] if everybodys and os.geteuid() == 0 else []
    if subprocess.run([*shared, ".venv/bin/ebpflab", "vm", "build"]).returncode != 0:
        raise Stop(
            "the guest could not be built; the reason stands above. When it is mended, do this\n"
            "again. Until then, `.venv/bin/ebpflab doctor` says what works without it."
        )


def install_proxy() -> None:
    """The hub's proxy, into hub/node_modules."""
    if (REPOSITORY / "hub/node_modules/.bin/configurable-http-proxy").exists():
        return
    if not shutil.which("npm"):  # Node from elsewhere brings its own, and bars Debian's
        packages.ensure(packages.FOR_HUB)
    say("Installing the hub's proxy, by npm.")
    npm = ["npm", "install", "--no-fund", "--no-audit", "--prefix", "hub", PROXY]
    if subprocess.run(npm).returncode != 0:
        raise Stop("npm could not install the hub's proxy; the reason stands above.")


def install_browser() -> None:
    """Ubuntu's chromium is a snap, which a driver cannot start; Playwright brings another."""
    say("Installing Chromium for the browser tests, by Playwright.")
    if subprocess.run([".venv/bin/playwright", "install", "--with-deps", "chromium"]).returncode:
        raise Stop("Playwright could not install Chromium; the reason stands above.")


def module(path: str) -> ModuleType:
    """One file of the package, without the package: .venv may be in the making."""
    spec = importlib.util.spec_from_file_location(path.replace("/", "_")[:-3], path)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


if __name__ == "__main__":
    sys.exit(main())
