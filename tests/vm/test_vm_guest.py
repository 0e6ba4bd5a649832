"""A guest: what is in it, what it is cut off from, and that it never stays behind."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from processes import qemu_of, runs, wait_for_end

from ebpflab import vm
from ebpflab.errors import VMError
from ebpflab.protocol import framing
from ebpflab.targets.vm import VmTarget, VmTransport
from ebpflab.transport import archive
from ebpflab.vm import accel, cache, qemu, recipe, warm
from ebpflab.vm.guest import Guest

Start = Callable[[str], Guest]

ECHO = """
import os
while data := os.read(0, 65536):
    while data:
        data = data[os.write(1, data):]
"""
ASK = """
import json, os, pathlib, subprocess
kernel = os.uname().release
answer = {
    "interfaces": sorted(os.listdir("/sys/class/net")),
    "kernel": kernel,
    "headers": pathlib.Path(f"/lib/modules/{kernel}/build/include/generated/utsrelease.h")
        .read_text(),
    "tracing": os.path.exists("/sys/kernel/tracing/events"),
    "debugging": os.path.exists("/sys/kernel/debug/kprobes"),
    "printk": pathlib.Path("/proc/sys/kernel/printk").read_text().split()[0],
    "failed": subprocess.run(["systemctl", "--failed", "--plain", "--no-legend"],
        capture_output=True, text=True).stdout,
    "hostname": os.uname().nodename,
    "owners": sorted({os.stat(p).st_uid for p in ("/", "/usr/bin/su", "/etc/shadow")}),
    "journal": os.path.exists("/var/log/journal/" + open("/etc/machine-id").read().strip()),
}
os.write(1, json.dumps(answer).encode() + b"\\n")
os.read(0, 1)
"""
LOAD = """
import os, time
from bcc import BPF
program = BPF(text="int answer(void *ctx) { return 0; }")
program.attach_kprobe(event=program.get_syscall_fnname("sync"), fn_name="answer")
os.write(1, b"attached")
os.read(0, 1)
"""


def receive(guest: Guest, size: int) -> bytes:
    data = b""
    while len(data) < size:
        chunk = guest.wire.recv(size - len(data))
        assert chunk, guest.post_mortem()
        data += chunk
    return data


def test_guests_run_side_by_side(start: Start) -> None:
    one, other = start(ECHO), start(ECHO)
    for guest, word in ((one, b"one"), (other, b"other")) * 3:
        payload = word * 30011
        guest.wire.sendall(payload)
        assert receive(guest, len(payload)) == payload


def test_what_the_guest_is(start: Start) -> None:
    guest = start(ASK)
    answer = json.loads(guest.wire.makefile("rb").readline())
    assert answer["interfaces"] == ["lo"]
    assert f'"{answer["kernel"]}"' in answer["headers"]
    assert answer["tracing"] and answer["debugging"]
    assert answer["printk"] == "4"
    assert answer["failed"] == ""
    assert answer["hostname"] == "ebpflab"
    assert answer["owners"] == [0]
    assert not answer["journal"]
    suite = recipe.current().suite  # there may be guests of others
    (info,) = (info for info in vm.images() if info.current and info.suite == suite)
    assert info.kernel == answer["kernel"]
    assert info.warm
    assert vm.ready()


def test_the_guest_compiles_loads_and_attaches(start: Start) -> None:
    assert receive(start(LOAD), 8) == b"attached"


def test_what_one_guest_writes_another_never_sees(start: Start) -> None:
    write = "import os; open('/mark', 'w').close(); os.sync(); os.write(1, b'x'); os.read(0, 1)"
    look = "import os; os.write(1, b'01'[os.path.exists('/mark'):][:1]); os.read(0, 1)"
    assert receive(start(write), 1) == b"x"
    assert receive(start(look), 1) == b"0"


def test_nothing_stays_when_the_process_is_killed(image: str, tmp_path: Path) -> None:
    own = tmp_path / "ebpflab" / "vm"  # a cache that nobody else writes to
    (own / image).mkdir(parents=True)
    (own / "build.lock").touch()
    for path in cache.image_directory(image).iterdir():
        (own / image / path.name).symlink_to(path)
    files = set(own.rglob("*"))
    program = (
        f"import sys, time; sys.path.insert(0, {str(Path(__file__).parents[1])!r}); "
        "from ebpflab import vm; from ebpflab.transport import archive; "
        "from processes import qemu_of; "
        f"guest = vm.start(print, archive.parcel({{'__main__.py': {ECHO!r}.encode()}})); "
        "print('started', qemu_of(guest), flush=True); time.sleep(97)"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout
    qemu = next(int(line.split()[1]) for line in owner.stdout if line.startswith("started"))
    assert runs(qemu)
    owner.kill()
    owner.wait()
    assert wait_for_end([qemu]) == set()
    assert set(own.rglob("*")) == files


def test_nothing_stays_when_the_keeper_is_killed(start: Start) -> None:
    guest = start(ECHO)
    qemu = qemu_of(guest)
    os.kill(guest._keeper.pid, signal.SIGKILL)
    assert wait_for_end([qemu]) == set()
    assert guest.wire.recv(1) == b""
    assert "keeper was killed by SIGKILL" in guest.post_mortem()


def test_closing_ends_the_guest(start: Start) -> None:
    guest = start(ECHO)
    transport, qemu = VmTransport(guest), qemu_of(guest)
    transport.close()
    transport.close()
    assert wait_for_end([qemu]) == set()
    assert "closed" in transport.post_mortem()


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("raise SystemExit('no more of this')", "powered off.*no more of this"),
        ("open('/proc/sysrq-trigger', 'w').write('c')", "Kernel panic"),
    ],
)
def test_a_guest_that_ends_says_why(program: str, expected: str, start: Start) -> None:
    guest = start(program)
    assert guest.wire.recv(1) == b""
    assert re.search(expected, guest.post_mortem(), re.DOTALL)


def test_a_killed_qemu_is_told_apart(start: Start) -> None:
    guest = start(ECHO)
    os.kill(qemu_of(guest), signal.SIGKILL)
    assert guest.wire.recv(1) == b""
    assert "killed by SIGKILL" in guest.post_mortem()


def test_an_image_in_use_is_not_removed(image: str, start: Start) -> None:
    start(ECHO)
    with pytest.raises(VMError, match="a guest is running on it"):
        vm.remove(image)
    assert vm.ready()


def test_a_start_that_fails_leaves_no_guest(image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    class Noted(Guest):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            started.append(qemu_of(self))

    path, arch = cache.image_directory(image), recipe.current().arch
    machine = qemu.Machine(arch, accel.choose(path, arch, print).name)
    monkeypatch.setattr(warm, "_RESUME_SECONDS", {"kvm": 1.0, "tcg": 1.0})
    monkeypatch.setattr(warm, "Guest", Noted)
    with pytest.raises(VMError, match="did not answer within 1 s"):
        warm.resume(path, machine, archive.parcel({})[:7])
    assert len(started) == 1 and wait_for_end(started) == set()


def test_the_agent_says_hello() -> None:
    transport = VmTarget().connect(print)
    try:
        assert transport.set_clock
        with open(transport.reader, "rb", closefd=False) as file:
            _, payload = next(framing.read_frames(file))
        hello = framing.parse_control(payload)["hello"]
        assert hello["kernel"] in {info.kernel for info in vm.images()}
    finally:
        transport.close()


def test_the_shell_is_the_guests_and_gives_the_terminal_back() -> None:
    program = "from ebpflab import vm; raise SystemExit(vm.shell())"
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, [sys.executable, "-c", program])
    screen = _converse(
        terminal, b"~# ", b"date +%Y-%m; echo $((6*7)) on $(hostname)\r", b"42 on ebpflab"
    )
    assert time.strftime("%Y-%m", time.gmtime()) in screen
    _converse(terminal, b"", b"poweroff\r", b"")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _converse(terminal: int, prompt: bytes, typed: bytes, answer: bytes) -> str:
    screen = b""
    while prompt not in screen:
        screen += os.read(terminal, 4096)
    os.write(terminal, typed)
    while answer not in screen:
        screen += os.read(terminal, 4096)
    return screen.decode(errors="replace")
