"""What `vagrant up` runs, and the box of our own that it may run in."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest

from ebpflab.errors import VMError
from ebpflab.vm import box

PROVISION = Path(__file__).parents[2] / "provision"


def listed(name: str) -> list[str]:
    lines = (PROVISION / name).read_text(encoding="utf-8").splitlines()
    return [package for line in lines if (package := line.partition("#")[0].strip())]


def test_no_package_is_listed_twice() -> None:
    lists = ("packages.txt", "box-packages.txt", "image-packages.txt")
    names = [package for name in lists for package in listed(name)]
    assert len(set(names)) == len(names)


def test_a_box_keeps_its_own_kernel() -> None:
    wanted = (PROVISION / "box.sh").read_text(encoding="utf-8").partition("wanted_packages() {")[2]
    script = wanted.partition("\n}")[0].replace("$source", str(PROVISION.parent))
    said = subprocess.run(["sh", "-ec", script], capture_output=True, text=True, check=True)
    packages = said.stdout.split()
    assert {"python3-bpfcc", "systemtap-sdt-dev", "golang-go", "sudo"} <= set(packages)
    assert not [name for name in packages if name.startswith("linux-") or "@" in name]


def test_what_git_leaves_out_goes_into_no_box_and_no_image() -> None:
    root = PROVISION.parent
    lines = (root / ".gitignore").read_text(encoding="utf-8").split()
    ignored = {line.strip("/") for line in lines if line.endswith("/") and "*" not in line}
    assert {".venv", "course", "hub"} <= ignored
    vagrant = (root / "Vagrantfile").read_text(encoding="utf-8")
    excluded = vagrant.partition("rsync__exclude: %w[")[2].partition("]")[0].split()
    assert "course" not in excluded, "would match classroom/course as well"
    assert ignored - {".vagrant"} <= {each.strip("/") for each in excluded}  # Vagrant's own
    docker = (root / ".dockerignore").read_text(encoding="utf-8").split()
    assert ignored <= {each.removeprefix("**/") for each in docker}


@pytest.mark.parametrize("name", ["box.sh", "box-image.sh"])
def test_is_a_valid_script(name: str) -> None:
    subprocess.run(["sh", "-n", str(PROVISION / name)], check=True)


def test_the_disk_begins_with_a_table_of_one_partition_and_the_boot_loader() -> None:
    boot, core = bytes(range(256)) * 2, b"core" * 9000
    start = box.start_of_disk(boot, core, 41_945_088)
    assert start[:446] == boot[:446] and start[510:512] == b"\x55\xaa"
    assert start[512:] == core
    active, kind, first, sectors = struct.unpack("<B3xB3xII", start[446:462])
    assert (active, kind, first, sectors) == (0x80, 0x83, 2048, 41_943_040)
    assert start[462:510] == bytes(48)


def test_a_boot_loader_that_would_reach_into_the_partition_is_refused() -> None:
    room = 2047 * 512
    box.start_of_disk(bytes(512), bytes(room), 9999)
    for boot, core in ((bytes(512), bytes(room + 1)), (bytes(511), b"")):
        with pytest.raises(VMError, match="GRUB's parts"):
            box.start_of_disk(boot, core, 9999)


def test_only_x86_has_a_box(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    with pytest.raises(VMError, match=r"no box for arm64.*public box"):
        box.build(tmp_path / "box", print)
    assert list(tmp_path.iterdir()) == []
