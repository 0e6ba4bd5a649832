"""The walls of docs/security.md around a guest: what it cannot reach, and who cannot reach it."""

from __future__ import annotations

import json
import os
import re
import struct
from pathlib import Path

import fuzz
import pytest
from counting import COUNTER, Counted
from processes import guest_of, qemu_of

from ebpflab.errors import EbpflabError
from ebpflab.vm import qemu, recipe

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]

LOOK = r"""
import json, os, socket
def refused(family, address):
    try:
        with socket.socket(family, socket.SOCK_STREAM) as one:
            one.settimeout(3)
            one.connect(address)
    except OSError as error:
        return error.strerror or str(error)
    return "connected"
devices = "/sys/bus/pci/devices"
print(json.dumps({
    "interfaces": os.listdir("/sys/class/net"),
    "host": refused(socket.AF_INET, ("10.0.2.2", 22)),
    "vsock": refused(socket.AF_VSOCK, (2, 1)),
    "classes": sorted(open(f"{devices}/{d}/class").read().strip() for d in os.listdir(devices)),
    "shared": [line.split()[2] for line in open("/proc/mounts")],
    "processors": os.cpu_count(),
    "memory_kib": int(open("/proc/meminfo").readline().split()[1]),
}))
"""


def test_a_guest_has_no_way_out(guest: Counted) -> None:
    found = json.loads(guest.lab.run(["/usr/bin/python3", "-c", LOOK]).stdout)
    assert found["interfaces"] == ["lo"]
    assert found["host"] == "Network is unreachable"
    assert found["vsock"] != "connected"
    assert found["classes"] and not [c for c in found["classes"] if c.startswith("0x02")]
    assert not {"9p", "virtiofs", "nfs", "cifs"} & set(found["shared"])


def test_a_guest_has_its_share_and_no_more(guest: Counted) -> None:
    found = json.loads(guest.lab.run(["/usr/bin/python3", "-c", LOOK]).stdout)
    assert found["processors"] == qemu.CPUS
    assert found["memory_kib"] <= qemu.MEMORY_MIB << 10
    root = guest.lab.run(["df", "--output=size", "-BG", "/"]).stdout.split()[1]
    assert int(root.rstrip("G")) <= int(recipe.DISK_SIZE.rstrip("G"))


def test_qemu_may_start_nothing_and_gain_nothing(guest: Counted) -> None:
    status = Path(f"/proc/{qemu_of(guest_of(guest.lab))}/status").read_text()
    assert re.search(r"^Seccomp:\s+2$", status, re.MULTILINE)  # with a filter: seccomp(2)
    assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)
    assert f"Uid:\t{os.getuid()}\t{os.geteuid()}\t" in status


def test_what_a_guest_writes_has_no_name_and_is_nobody_elses(guest: Counted) -> None:
    pid = qemu_of(guest_of(guest.lab))
    written = []
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        name, mode = str(fd.readlink()), fd.stat().st_mode
        flags = re.findall(r"flags:\s+(\d+)", Path(f"/proc/{pid}/fdinfo/{fd.name}").read_text())
        if name.startswith("/dev/") or not int(flags[0], 8) & os.O_ACCMODE or ":" in name:
            continue  # of what is not a file, the name has a colon: socket:[1], /memfd:name
        written.append(name)
        assert name.endswith("/memory") or ("(deleted)" in name and not mode & 0o077), name
    assert any("(deleted)" in name for name in written), "the disk's changes"
    # QEMU before 8.2 opens the saved memory for writing; it maps it privately all the same.
    maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    memory = [line.split()[1] for line in maps if line.endswith("/memory")]
    assert memory and all(permissions.endswith("p") for permissions in memory)


def test_nothing_of_a_guest_listens(guest: Counted) -> None:
    """Every socket is one end of a pair, which has no address."""
    pid = qemu_of(guest_of(guest.lab))
    names = [str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir()]
    sockets = {name[8:-1] for name in names if name.startswith("socket:")}
    assert len(sockets) == 2, "wire and monitor"
    for table in ("tcp", "tcp6", "udp", "udp6"):
        path = Path(f"/proc/{pid}/net/{table}")
        rows = path.read_text().splitlines()[1:] if path.exists() else []
        assert not sockets & {row.split()[9] for row in rows}
    rows = Path(f"/proc/{pid}/net/unix").read_text().splitlines()[1:]
    ours = [row.split() for row in rows if row.split()[6] in sockets]
    assert len(ours) == 2 and all(len(row) == 7 for row in ours), "an eighth is a path"


def test_program_files_that_were_made_to_break_it_do_not_end_the_agent(guest: Counted) -> None:
    whole = fuzz._probe_elf()
    damaged = [whole[:cut] for cut in range(4, len(whole), len(whole) // 3)]
    for at in (32, 40, 58, 60):  # where the tables are, and how many rows they have
        damaged.append(whole[:at] + b"\xff" * 2 + whole[at + 2 :])
    huge = bytearray(whole)
    struct.pack_into("<QQ", huge, struct.unpack_from("<Q", whole, 40)[0] + 88, 0, 1 << 62)
    write = "import sys; open('/tmp/file', 'wb').write(bytes.fromhex(sys.stdin.read()))"
    for data in [*damaged, bytes(huge)]:
        guest.lab.run(["/usr/bin/python3", "-c", write], input=data.hex())
        for ask in (guest.lab.usdt_probes, guest.lab.symbols, guest.lab.go_functions):
            try:
                ask("/tmp/file")
            except EbpflabError as error:
                assert "/tmp/file" in str(error)
    assert guest.lab.run(["rm", "/tmp/file"]).returncode == 0


def test_a_program_file_that_is_a_fifo_is_not_waited_for(guest: Counted) -> None:
    guest.lab.run(["mkfifo", "/tmp/fifo"])
    for ask in (guest.lab.usdt_probes, guest.lab.symbols, guest.lab.go_functions):
        with pytest.raises(EbpflabError, match="/tmp/fifo"):
            ask("/tmp/fifo")
    with guest.lab.load(COUNTER) as prog, pytest.raises(EbpflabError, match="/tmp/fifo"):
        prog.attach_uprobe(name="/tmp/fifo", sym="work", fn_name="on_work")
    guest.lab.run(["rm", "/tmp/fifo"])
