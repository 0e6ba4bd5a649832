"""Headers that are borrowed: one tree of what a distribution has put into several."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ebpflab.agent.kernel import headers

KCONFIG, ASM = "include/linux/kconfig.h", "arch/x86/include/asm/ptrace.h"
RELEASE_FILE = "include/generated/utsrelease.h"


class Machine:
    """The folders of a machine that has headers, and not those of the running kernel."""

    def __init__(self, root: Path) -> None:
        self.modules, self.src, self.cache = (root / name for name in ("modules", "src", "cache"))

    def write(self, tree: str, *names: str) -> Path:
        for name in names:
            path = self.src / tree / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(tree)
        return self.src / tree

    def flavour(self, release: str, *names: str) -> Path:
        tree = self.write(f"linux-headers-{release}", RELEASE_FILE, *names)
        (tree / RELEASE_FILE).write_text(f'#define UTS_RELEASE "{release}"\n')
        (self.modules / release).mkdir(parents=True)
        (self.modules / release / "build").symlink_to(tree)
        return tree

    def borrow(self) -> Path:
        chooser = headers.Headers(self.modules, self.src, self.cache)
        assert not chooser.prepare(None)["matching"]
        return Path(os.environ["BCC_KERNEL_SOURCE"])


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    for name in ("BCC_KERNEL_SOURCE", "BCC_LINUX_VERSION_CODE"):
        monkeypatch.setenv(name, "")  # which the test changes, and pytest puts back
    return Machine(tmp_path)


def debian(machine: Machine, flavour: str) -> None:
    common = machine.write("linux-headers-6.1.0-56-common", KCONFIG, ASM, "include/both.h")
    machine.flavour(f"6.1.0-56-{flavour}", "include/both.h")
    (machine.modules / f"6.1.0-56-{flavour}" / "source").symlink_to(common)


@pytest.mark.parametrize("flavour", ["amd64", "cloud-amd64", "arm64-16k"])
def test_of_debian_the_common_part_is_in_it_whatever_the_flavour(
    machine: Machine, flavour: str
) -> None:
    debian(machine, flavour)
    tree = machine.borrow()
    assert (tree / KCONFIG).read_text() == (tree / ASM).read_text()
    assert (tree / "include/both.h").read_text() == f"linux-headers-6.1.0-56-{flavour}"
    assert headers.release_of(tree) == f"6.1.0-56-{flavour}"


def test_of_ubuntu_the_folders_that_are_links_are_in_it(machine: Machine) -> None:
    machine.write("linux-headers-6.8.0-31", KCONFIG, ASM)
    flavour = machine.flavour("6.8.0-31-generic")
    (flavour / "include/linux").symlink_to("../../linux-headers-6.8.0-31/include/linux")
    (flavour / "arch/x86/include").mkdir(parents=True)
    asm = "../../../../linux-headers-6.8.0-31/arch/x86/include/asm"
    (flavour / "arch/x86/include/asm").symlink_to(asm)
    tree = machine.borrow()
    assert (tree / KCONFIG).read_text() == (tree / ASM).read_text() == "linux-headers-6.8.0-31"
    assert headers.release_of(tree) == "6.8.0-31-generic"


def test_a_tree_that_is_whole_is_kept_and_one_that_is_not_is_made_anew(machine: Machine) -> None:
    debian(machine, "amd64")
    tree = machine.borrow()
    (tree / "kept").touch()
    assert (machine.borrow() / "kept").exists()
    (tree / KCONFIG).unlink()  # as an earlier version has left it of Debian's cloud headers
    assert (machine.borrow() / KCONFIG).exists()
    assert not (tree / "kept").exists()
