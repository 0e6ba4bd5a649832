"""What an image is made from, and what gives it another name."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ebpflab.errors import VMError
from ebpflab.vm import recipe

PROVISION = Path(__file__).parents[2] / "provision"


@pytest.fixture(autouse=True)
def no_wish(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EBPFLAB_SUITE", raising=False)


@pytest.fixture
def rooms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what the recipe reads, with one lab."""
    for name in recipe.GUEST_FILES:
        copy = tmp_path / "provision" / name
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes((PROVISION / name).read_bytes())
    (tmp_path / "labs" / "hello").mkdir(parents=True)
    (tmp_path / "labs" / "hello" / "Makefile").write_text("all:\n\ttrue\n")
    monkeypatch.setattr(recipe, "directory", lambda name: tmp_path / name)
    return tmp_path


def test_packages_are_read_without_their_reasons(rooms: Path) -> None:
    (rooms / "provision" / "packages.txt").write_text("# why\n\nlinux-@ARCH@  # boots\nless\n")
    arch = recipe.host_arch()
    assert recipe.current().packages == (f"linux-{arch}", "less")


def test_the_real_list_has_what_the_agent_needs() -> None:
    packages = recipe.current().packages
    assert {"python3-bpfcc", "gcc", "golang-go", "systemtap-sdt-dev"} <= set(packages)
    assert all(" " not in package and "@" not in package for package in packages)


def test_the_hash_follows_every_file_and_the_suite(rooms: Path) -> None:
    hashes = [recipe.current().hash, recipe.current("bookworm").hash]
    for path in sorted(path for path in rooms.rglob("*") if path.is_file()):
        path.write_text(path.read_text() + "\n")
        hashes.append(recipe.current().hash)
    (rooms / "labs" / "hello" / "hello.c").write_text("int main;")
    hashes.append(recipe.current().hash)
    assert len(set(hashes)) == len(hashes) == 2 + len(recipe.GUEST_FILES) + 2


def test_the_suite_is_chosen_by_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    assert recipe.current().suite == "trixie"
    monkeypatch.setenv("EBPFLAB_SUITE", "bookworm")
    assert recipe.current().suite == "bookworm"
    assert recipe.current("trixie").suite == "trixie"
    monkeypatch.setenv("EBPFLAB_SUITE", "")
    assert recipe.current().suite == "trixie"


def test_the_hash_follows_nothing_else(rooms: Path) -> None:
    before = recipe.current().hash
    (rooms / "provision" / "setup_host.py").write_text("# for hosts")
    (rooms / "labs" / "hello" / "hello").write_bytes(b"\x7fELF made by make on the host")
    assert recipe.current().hash == before


def test_staging_leaves_out_what_make_made_here(rooms: Path, tmp_path: Path) -> None:
    (rooms / "labs" / "hello" / "hello").write_bytes(b"\x7fELF")
    recipe.stage(tmp_path / "stage")
    staged = {path.name for path in (tmp_path / "stage").rglob("*") if path.is_file()}
    assert staged == {*recipe.GUEST_FILES, "precompiled.py", "Makefile"}


def test_another_processor_is_an_error_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "s390x")
    with pytest.raises(VMError, match="no guest for s390x"):
        recipe.current()


def test_customize_is_a_valid_script() -> None:
    subprocess.run(["sh", "-n", str(PROVISION / "customize.sh")], check=True)


def test_what_is_for_teachers_is_in_no_guest_and_no_name(rooms: Path) -> None:
    before = recipe.current().hash
    for name in ("course", "hub"):
        (rooms / "classroom" / name / "inner").mkdir(parents=True)
        (rooms / "classroom" / name / "inner" / "file").write_text("changed every week\n")
    assert recipe.current().hash == before
    recipe.stage(rooms / "stage")
    assert [path.name for path in (rooms / "stage" / "labs").iterdir()] == ["hello"]
