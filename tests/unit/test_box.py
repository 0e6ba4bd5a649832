"""What `vagrant up` runs: its words are a shell's, and it lists no package that the guest lists."""

from __future__ import annotations

import subprocess
from pathlib import Path

PROVISION = Path(__file__).parents[2] / "provision"


def listed(name: str) -> list[str]:
    lines = (PROVISION / name).read_text(encoding="utf-8").splitlines()
    return [package for line in lines if (package := line.partition("#")[0].strip())]


def test_no_package_is_listed_twice() -> None:
    names = [*listed("packages.txt"), *listed("box-packages.txt")]
    assert len(set(names)) == len(names)


def test_a_box_keeps_its_own_kernel() -> None:
    wanted = (PROVISION / "box.sh").read_text(encoding="utf-8").partition("wanted_packages() {")[2]
    script = wanted.partition("\n}")[0].replace("$source", str(PROVISION.parent))
    said = subprocess.run(["sh", "-ec", script], capture_output=True, text=True, check=True)
    packages = said.stdout.split()
    assert {"python3-bpfcc", "systemtap-sdt-dev", "golang-go", "sudo"} <= set(packages)
    assert not [name for name in packages if name.startswith("linux-") or "@" in name]


def test_box_is_a_valid_script() -> None:
    subprocess.run(["sh", "-n", str(PROVISION / "box.sh")], check=True)
