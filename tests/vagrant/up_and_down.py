"""`make test-vagrant`: our own box, `vagrant up` under emulation, what works in it, and its end.

Takes some forty minutes and root, so it is no part of `make test` (pytest does not collect a file
of this name by itself). Everything it starts ends with it: the VM, its disks, libvirt where none
was running, and the network. Vagrant's own files are in a temporary folder.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from jupyter_api import Server

pytestmark = pytest.mark.timeout(7200)

REPOSITORY = Path(__file__).parents[2]
BOX = "ebpflab-test"
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
# Vagrant reads this besides the project's own, and runs what it provisions first. Where this
# machine trusts more than Debian does (a proxy that looks into TLS), so must the VM behind it.
HOME_VAGRANTFILE = f"""\
Vagrant.configure("2") do |config|
  config.vm.provision "file", source: "{AUTHORITIES}", destination: "/tmp/authorities.crt"
  config.vm.provision "shell", inline: <<-SHELL
    mv /tmp/authorities.crt /etc/ssl/certs/of-the-host.crt
    printf '[global]\\ncert = /etc/ssl/certs/of-the-host.crt\\n' >/etc/pip.conf
  SHELL
end
"""
VIRSH = ["virsh", "--connect", "qemu:///system"]


def say(what: str, since: float) -> None:
    """One line for docs/which-way.md."""
    print(f"\n[test-vagrant] {what}: {time.monotonic() - since:.0f} s", flush=True)


def run(*command: object, env: dict[str, str] | None = None) -> str:
    """The output of a command, which is shown as well; fails when it does."""
    child = subprocess.Popen(
        [str(each) for each in command],
        cwd=REPOSITORY,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert child.stdout is not None
    lines = []
    for line in child.stdout:
        print(line, end="", flush=True)
        lines.append(line)
    assert child.wait() == 0, f"{command[0]} failed: {''.join(lines[-20:])}"
    return "".join(lines)


def succeeds(*command: str) -> bool:
    return subprocess.run(command, capture_output=True).returncode == 0


@pytest.fixture(scope="module")
def libvirt() -> Iterator[None]:
    """libvirt and its default network; what was not running before ends afterwards."""
    with ExitStack() as ends:
        if not succeeds(*VIRSH, "list"):
            for daemon in ("virtlogd", "libvirtd"):
                started = subprocess.Popen([shutil.which(daemon) or f"/usr/sbin/{daemon}"])
                ends.callback(started.wait)
                ends.callback(started.send_signal, signal.SIGTERM)
            deadline = time.monotonic() + 60
            while not succeeds(*VIRSH, "list"):
                assert time.monotonic() < deadline, "libvirtd does not answer"
                time.sleep(0.5)
        for kind in ("net", "pool"):
            ends.callback(remove_new, kind, names(kind))
        if "default" not in names("net", active=True):
            run(*VIRSH, "net-start", "default")
            ends.callback(run, *VIRSH, "net-destroy", "default")
        yield


def names(kind: str, active: bool = False) -> set[str]:
    """libvirt's networks (``net``) or storage pools (``pool``)."""
    only = [] if active else ["--all"]
    return set(run(*VIRSH, f"{kind}-list", "--name", *only).split())


def remove_new(kind: str, before: set[str]) -> None:
    """Remove what Vagrant's plugin has defined and not removed."""
    active = names(kind, active=True)
    for name in names(kind) - before:
        if name in active:
            run(*VIRSH, f"{kind}-destroy", name)
        run(*VIRSH, f"{kind}-undefine", name)


@pytest.fixture(scope="module")
def vagrant(libvirt: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment in which `vagrant` brings our box up; the box and the VM go afterwards."""
    folder = tmp_path_factory.mktemp("vagrant")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "VAGRANT_HOME": str(folder / "home"),
        "VAGRANT_DOTFILE_PATH": str(folder / "dot"),
        "EBPFLAB_BOX": BOX,
        "EBPFLAB_PORT": str(port),
        "EBPFLAB_EMULATE": "1",
    }
    (folder / "home").mkdir()
    (folder / "home" / "Vagrantfile").write_text(HOME_VAGRANTFILE)
    started, box = time.monotonic(), folder / "ebpflab.box"
    run(Path(sys.executable).with_name("ebpflab"), "vm", "box", box)
    say(f"the box ({box.stat().st_size / 1e9:.1f} GB)", started)
    run("vagrant", "box", "add", "--name", BOX, box, env=environment)
    box.unlink()
    try:
        yield environment
    finally:
        started = time.monotonic()
        run("vagrant", "destroy", "--force", env=environment)
        volumes = run(*VIRSH, "vol-list", "default").split()
        for name in (each for each in volumes if each.startswith(f"{BOX}_vagrant_box_image")):
            run(*VIRSH, "vol-delete", "--pool", "default", name)
        say("destroyed", started)


@pytest.fixture(scope="module")
def server(vagrant: dict[str, str]) -> Server:
    started = time.monotonic()
    said = run("vagrant", "up", "--provider", "libvirt", env=vagrant)
    say("vagrant up", started)
    (address,) = re.findall(r"JupyterLab: (http://127\.0\.0\.1:\d+/lab\?token=\w+)", said)
    assert f":{vagrant['EBPFLAB_PORT']}/" in address
    return Server(address)


def inside(vagrant: dict[str, str], command: str) -> str:
    return run("vagrant", "ssh", "--command", command, env=vagrant)


def test_jupyterlab_answers_on_loopback_alone(server: Server, vagrant: dict[str, str]) -> None:
    assert "JupyterLab" in server.page()
    port = vagrant["EBPFLAB_PORT"]
    listening = run("ss", "--no-header", "--listening", "--tcp", "--numeric", f"sport = {port}")
    assert {line.split()[3] for line in listening.splitlines()} == {f"127.0.0.1:{port}"}


@pytest.mark.parametrize("chapter", ["01-kprobes", "06-usdt"])
def test_a_chapter_runs_through_the_forwarded_port(server: Server, chapter: str) -> None:
    started = time.monotonic()
    ran = server.run(f"{chapter}.ipynb")
    say(f"chapter {chapter}", started)
    assert {name: cell.error for name, cell in ran.items() if cell.error} == {}
    assert "closed" in ran["close"].text
    assert "Tracing this machine's own kernel" in "".join(cell.text for cell in ran.values())


def pytest_inside(vagrant: dict[str, str], tests: str, sudo: str = "") -> None:
    """Those tests, in the VM; what they attach to is its kernel, or a guest of its own."""
    started = time.monotonic()
    command = f"{sudo} .venv/bin/python -m pytest -q -rf -p no:cacheprovider {tests}"
    said = inside(vagrant, f"cd ebpflab && {command}")
    say(f"{sudo} {tests} inside, {said.splitlines()[-1].strip('= ')}", started)


def test_the_checks_and_unit_tests_pass_inside(server: Server, vagrant: dict[str, str]) -> None:
    started = time.monotonic()
    inside(vagrant, "cd ebpflab && make check")
    say("make check inside", started)
    started = time.monotonic()
    inside(vagrant, "cd ebpflab && make vm")  # which `vagrant up` leaves out: nobody needs it there
    say("make vm inside", started)
    pytest_inside(vagrant, "tests/unit")


def test_kvm_runs_guests_inside(server: Server, vagrant: dict[str, str]) -> None:
    """Their KVM is an emulated processor's; it is as real to QEMU, and to ebpflab, as any."""
    pytest_inside(vagrant, "tests/vm")
    assert re.search(r"\bkvm +current", inside(vagrant, "ebpflab/.venv/bin/ebpflab vm list"))


def test_every_event_of_its_own_kernel_is_a_row(server: Server, vagrant: dict[str, str]) -> None:
    # The rest of the contract takes an hour here, most of it to build Go programs.
    pytest_inside(vagrant, "tests/contract/test_events.py -k 'local and not ssh'", sudo="sudo")


def test_headers_follow_another_kernel(server: Server, vagrant: dict[str, str]) -> None:
    """Debian's kernel for real machines in place of the one for clouds; and nobody says headers."""
    before = inside(vagrant, "uname -r").split()[-1]
    install = "sudo apt-get install --yes --no-install-recommends -q linux-image-amd64"
    inside(vagrant, f"DEBIAN_FRONTEND=noninteractive {install}")
    started = time.monotonic()
    run("vagrant", "reload", env=vagrant)
    say("vagrant reload into another kernel, its headers installed", started)
    assert inside(vagrant, "uname -r").split()[-1] != before
    inside(vagrant, "test -e /lib/modules/$(uname -r)/build/include")
    doctor = inside(vagrant, "cd ebpflab && .venv/bin/ebpflab doctor")
    assert re.search(r"^yes +kernel headers", doctor, re.MULTILINE)
