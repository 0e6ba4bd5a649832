"""System packages: which, why, whether they are there, and how to get them.

Whether a package is there is asked of dpkg alone, once for each list, so nothing is slow and
nothing asks for a password where nothing is missing.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from typing import NamedTuple

from stop import Stop, say

SYSTEM_PYTHON = "/usr/bin/python3"


class Package(NamedTuple):
    name: str
    why: str


QEMU = "qemu-system-x86" if platform.machine() == "x86_64" else "qemu-system-arm"

FOR_GUEST = [
    Package(QEMU, "runs the guest"),
    Package("qemu-utils", "qemu-img, which makes a disk for each lab"),
    Package("mmdebstrap", "builds the guest's system"),
    Package("debian-archive-keyring", "checks the signatures of what goes into it"),
    Package("uidmap", "lets an ordinary user build it"),
    Package("e2fsprogs", "turns it into a disk"),
]

FOR_BOX = [*FOR_GUEST, Package("openssh-client", "ssh-keygen, for the key that Vagrant uses")]

FOR_VAGRANT = [
    *FOR_BOX,
    Package("vagrant", "brings the box up"),
    Package("vagrant-libvirt", "in libvirt"),
    Package("libvirt-daemon-system", "runs it"),
    Package("libvirt-clients", "virsh, which removes it again"),
    Package("dnsmasq-base", "its network"),
    Package("rsync", "how the repository gets into it"),
]

FOR_GRADING = [Package("bubblewrap", "the sandbox in which a submission is graded")]

FOR_HUB = [
    Package("nodejs", "runs the hub's proxy"),
    Package("npm", "installs it"),
]

CLANG = Package("clang", "precompiles the kernel's headers; of the same LLVM as BCC's")

FOR_TESTS = [
    *FOR_GRADING,
    CLANG,
    Package("bpfcc-tools", "BCC's own programs, which tests compile"),
    Package("gcc", "compiles the programs that tests trace"),
    Package("libc6-dev", "its headers"),
    Package("systemtap-sdt-dev", "sys/sdt.h, for programs with USDT probes"),
    Package("golang-go", "compiles the Go programs that tests trace"),
    Package("openssh-server", "an sshd on loopback, for the ssh target"),
    Package("sudo", "visudo, which checks the rule of `ebpflab setup-sudo`"),
]

FOR_BENCH = [
    CLANG,
    Package("gcc", "compiles the program that is traced"),
    Package("libc6-dev", "its headers"),
    Package("bpftrace", "is what ebpflab is compared with"),
]


def system_name() -> str:
    try:
        with open("/etc/os-release") as file:
            found = re.search(r'^PRETTY_NAME="?(.*?)"?$', file.read(), re.MULTILINE)
    except OSError:
        found = None
    return found.group(1) if found else platform.system()


def for_browser() -> list[Package]:
    if system_name().startswith("Ubuntu"):  # where chromium is a snap
        return []
    return [Package("chromium", "opens the notebooks as a reader would")]


def for_venv() -> list[Package]:
    """What `python3 -m venv` lacks: Debian splits ensurepip from Python."""
    if importlib.util.find_spec("ensurepip"):
        return []
    name = f"python3.{sys.version_info.minor}-venv"
    return [Package(name, "makes .venv, where JupyterLab and ebpflab go")]


def for_tracing(testing: bool) -> list[Package]:
    """BCC and headers, for tracing this machine itself; only root can make use of them."""
    if as_root() is None:
        say("Neither root nor sudo: leaving this machine's own kernel aside for the guest.")
        return []
    wanted = [Package("python3-bpfcc", f"BCC, for {SYSTEM_PYTHON}: compiles and loads probes")]
    headers = headers_package(platform.release(), testing)
    return [*wanted, headers] if headers else wanted


def headers_package(release: str, testing: bool) -> Package | None:
    """The running kernel's headers, or else the newest that apt has; None where some stand.

    Headers of another kernel serve uprobes and USDT probes only: those see processes, and
    nothing of the kernel's own structures. Debian's from 6.12 on bring that kernel with them,
    which may change what this machine boots next: they are passed over, unless the tests have
    no others to take.
    """
    if os.path.exists(f"/lib/modules/{release}/build"):
        return None
    exact = f"linux-headers-{release}"
    if installed([exact]):
        return None
    known = known_headers()
    if exact in known:
        return Package(exact, "the running kernel's headers: BCC compiles against them")
    others = sorted(filter(None, map(flavour, known)))
    if not others or installed([name for _, name in others]):
        return None
    newest_first = [name for _, name in reversed(others)]
    with_kernel = bring_a_kernel(newest_first)
    alone = (name for name in newest_first if name not in with_kernel)
    name = next(alone, newest_first[0] if testing else None)
    if name is None:
        say(f"No headers are packaged for {release}; all others would install another kernel.")
        return None
    why = f"no headers are packaged for {release}; these serve uprobes and USDT probes only"
    return Package(name, why)


def bring_a_kernel(names: list[str]) -> set[str]:
    """Those of ``names`` that depend on a kernel image."""
    found, package = set(), ""
    for line in ask("apt-cache", "depends", *names).splitlines():
        if line[:1].isalpha():
            package = line.strip()
        elif "linux-image" in line:
            found.add(package)
    return found


def known_headers() -> list[str]:
    """The packages of headers in apt's lists, which a fresh machine may have to fetch first."""
    names = ask("apt-cache", "pkgnames", "linux-headers-").split()
    prefix = as_root()
    if not names and prefix is not None:
        apt(prefix, "update", optional=True)
        names = ask("apt-cache", "pkgnames", "linux-headers-").split()
    return names


def flavour(name: str) -> tuple[list[int], str] | None:
    """(version, name) of a distribution kernel's headers; None for rt, cloud, common, ...

    >>> flavour("linux-headers-6.12.57+deb13-amd64")
    ([6, 12, 57, 13], 'linux-headers-6.12.57+deb13-amd64')
    >>> flavour("linux-headers-6.1.0-54-rt-amd64")
    """
    pattern = r"linux-headers-(\d+\.\d+\.\d+(?:[-+][\w.]+)?)-(?:amd64|arm64|generic)"
    found = re.fullmatch(pattern, name)
    return ([int(part) for part in re.findall(r"\d+", found.group(1))], name) if found else None


def ask(*command: str) -> str:
    """What a command says; nothing of what it complains about."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return done.stdout


def installed(names: list[str]) -> set[str]:
    """Those of ``names`` that are installed."""
    said = ask("dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *names)
    lines = [line.split() for line in said.splitlines()]
    return {line[0] for line in lines if line[1:] == ["installed"]}


def as_root() -> list[str] | None:
    """What to put before a command so that root runs it; None where there is no way to."""
    if os.geteuid() == 0:
        return []
    if not shutil.which("sudo"):
        return None
    if sys.stdin.isatty():
        return ["sudo"]  # it can ask for the password itself
    quietly = subprocess.run(["sudo", "-n", "true"], stderr=subprocess.DEVNULL)
    return ["sudo"] if quietly.returncode == 0 else None


def ensure(wanted: list[Package]) -> None:
    """Install those of ``wanted`` that are missing, with apt's own progress in view."""
    present = installed([package.name for package in wanted]) if wanted else set()
    missing = [package for package in wanted if package.name not in present]
    if not missing:
        return
    names = [package.name for package in missing]
    say("System packages to install:")
    for package in missing:
        print(f"      {package.name:<32} {package.why}")
    prefix = as_root()
    if prefix is None:
        raise Stop(
            "installing these needs root, and there is no sudo to ask (or no terminal to ask\n"
            f"on). Have an administrator run this, then do it again:\n  {apt_line(names)}"
        )
    apt(prefix, "update", optional=True)  # old lists may still do
    apt(prefix, "install", "-y", "--no-install-recommends", *names)


def apt_line(names: list[str]) -> str:
    return f"apt-get update && apt-get install --no-install-recommends {' '.join(names)}"


def apt(prefix: list[str], *arguments: str, optional: bool = False) -> None:
    options = ["-o", "DPkg::Lock::Timeout=300"]  # a new machine may be updating itself
    quiet = ["env", "DEBIAN_FRONTEND=noninteractive"]
    command = [*prefix, *quiet, "apt-get", *options, *arguments]
    say(" ".join(command))
    if subprocess.run(command).returncode != 0 and not optional:
        raise Stop(
            "apt-get failed; the reason stands above. Without network, or with a package that\n"
            "this release does not have, install it by another way and do this again."
        )
