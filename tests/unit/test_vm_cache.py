"""The life of an image in the cache, with programs in mmdebstrap's place that take no time."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest
from processes import wait_for_end

from ebpflab import vm
from ebpflab.errors import MissingTool, VMError
from ebpflab.vm import cache, image, process, recipe

# Each makes what the real one makes, as far as anyone looks at it.
PROGRAMS = {
    "mmdebstrap": 'eval "tree=\\${$#}"; mkdir -p "$tree"; echo "I: extracting archives..." >&2',
    "mke2fs": "echo disk",
    "debugfs": """name=${2##* }; echo '{"kernel": "6.1", "bcc": "0.31.0"}' >"$name" """,
}


def say_nothing(text: str) -> None:
    pass


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of fake programs, first in PATH; an empty cache, and a build as if by root."""
    directory = tmp_path / "bin"
    directory.mkdir()
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "EVERYBODYS", tmp_path / "everybodys")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(image, "_contained", lambda: [])
    monkeypatch.setattr(image, "_KEYRINGS", (".",))
    monkeypatch.setattr(image, "TREE_BYTES", 1)
    monkeypatch.setattr(image, "IMAGE_BYTES", 1)
    for name, script in PROGRAMS.items():
        fake(directory, name, script)
    return directory


def fake(directory: Path, name: str, script: str) -> None:
    path = directory / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def build(progress: object = say_nothing) -> Path:
    with cache.build_lock(say_nothing):
        return image.build(recipe.current(), progress)  # type: ignore[arg-type]


def remains(tmp_path: Path) -> list[str]:
    """Whatever a build that failed has left, but for its log and the lock."""
    left = [path.name for path in cache.root().iterdir()]
    left += [path.name for path in (tmp_path / "tmp").iterdir()]
    return sorted(set(left) - {"build.lock", "failed-build.log"})


def test_a_built_image_is_found_and_not_built_again(programs: Path) -> None:
    steps: list[str] = []
    path = build(steps.append)
    assert path == cache.image_directory(recipe.current().hash)
    assert (path / "disk.raw").read_text() == "disk\n"
    assert any("unpacking the base system" in step for step in steps)
    fake(programs, "mmdebstrap", "exit 1")
    assert build() == path
    (found,) = vm.images()
    assert (found.hash, found.kernel, found.bcc, found.current) == (
        path.name,
        "6.1",
        "0.31.0",
        True,
    )


def test_a_failing_build_leaves_only_its_log(programs: Path, tmp_path: Path) -> None:
    complaint = "E: Unable to locate package linux-image-cloud"
    fake(programs, "mmdebstrap", f"echo begun; echo '{complaint}' >&2; echo bye; exit 25")
    with pytest.raises(VMError) as failure:
        build()
    assert complaint in str(failure.value)
    assert "status 25" in str(failure.value)
    log = Path(failure.value.detail["log"])
    assert str(log) in str(failure.value)
    assert log.read_text() == f"begun\n{complaint}\nbye\n"
    assert remains(tmp_path) == []
    assert vm.images() == []
    assert not vm.ready()


@pytest.mark.parametrize(
    ("output", "advice"),
    [
        ("cannot write: No space left on device", "The disk is full"),
        ("Temporary failure resolving 'the server'", "is there a network"),
        ("GPG error: NO_PUBKEY 6ED0E7B82643E131", "debian-archive-keyring"),
    ],
)
def test_known_causes_come_with_advice(programs: Path, output: str, advice: str) -> None:
    fake(programs, "mmdebstrap", f'echo "E: {output}" >&2; exit 1')
    with pytest.raises(VMError, match=advice):
        build()


def test_an_interrupted_build_ends_its_programs(programs: Path, tmp_path: Path) -> None:
    fake(programs, "mmdebstrap", f'echo $$ >{tmp_path}/pid; eval "mkdir \\${{$#}}"; sleep 97')
    interrupt = threading.Thread(target=_interrupt_when, args=[tmp_path / "pid"])
    interrupt.start()
    with pytest.raises(KeyboardInterrupt):
        build()
    interrupt.join()
    assert remains(tmp_path) == []
    assert not vm.images()
    assert wait_for_end([int((tmp_path / "pid").read_text())]) == set()


def test_what_a_killed_builder_left_goes_with_the_next_build(
    programs: Path, tmp_path: Path
) -> None:
    fake(programs, "mmdebstrap", f'eval "mkdir \\${{$#}}"; echo $$ >{tmp_path}/pid; sleep 97')
    builder = multiprocessing.get_context("fork").Process(target=build)
    builder.start()
    _wait_for(tmp_path / "pid")
    builder.kill()
    builder.join()
    assert len(remains(tmp_path)) == 2  # what it was building, and the tree
    assert vm.images() == []
    assert wait_for_end([int((tmp_path / "pid").read_text())]) == set()
    fake(programs, "mmdebstrap", PROGRAMS["mmdebstrap"])
    path = build()
    assert remains(tmp_path) == [path.name]


def test_a_second_builder_waits_and_says_so(programs: Path) -> None:
    said = threading.Event()
    second = threading.Thread(target=_take_lock, args=[said])
    with cache.build_lock(say_nothing):
        second.start()
        assert said.wait(60)
        assert second.is_alive()
    second.join(60)
    assert not second.is_alive()


def test_a_missing_program_is_named_with_its_package(
    programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacking = {"mmdebstrap", "mke2fs"}
    monkeypatch.setattr(
        process, "find", lambda program: None if program in lacking else f"/bin/{program}"
    )
    with pytest.raises(MissingTool, match="sudo apt install mmdebstrap e2fsprogs") as failure:
        build()
    assert failure.value.detail["packages"] == ["mmdebstrap", "e2fsprogs"]
    assert "mmdebstrap" in (vm.unavailable() or "")


def test_an_ordinary_user_without_subordinate_ids_is_told_what_to_do(
    programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(image, "_lines", lambda path: ["someone:100000:65536"])
    with pytest.raises(MissingTool, match="--add-subuids 165536-231071"):
        image.check_tools()


def test_too_little_disk_is_refused_before_anything_is_built(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**10, 10**10, 70_000_000))
    monkeypatch.setattr(image, "IMAGE_BYTES", 2_500_000_000)
    with pytest.raises(VMError, match=r"needs 2\.5 GB .* only 0\.1 GB is free"):
        build()
    assert remains(tmp_path) == []


def test_a_disk_that_fills_up_meanwhile_is_no_oserror(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill_up(target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(recipe, "stage", fill_up)
    with pytest.raises(VMError, match="filled up"):
        build()
    assert remains(tmp_path) == []


def test_removal_is_refused_while_a_guest_holds_the_image(programs: Path) -> None:
    path = build()
    lock = cache.hold(path)
    with pytest.raises(VMError, match="a guest is running on it"):
        vm.remove(path.name)
    os.close(lock)
    vm.remove(path.name[:6])
    assert vm.images() == []
    with pytest.raises(VMError, match="was removed"):
        cache.hold(path)


@pytest.mark.parametrize("prefix", ["", "no-such"])
def test_removal_of_what_is_not_there_removes_nothing(programs: Path, prefix: str) -> None:
    path = build()
    with pytest.raises(VMError, match=path.name):
        vm.remove(prefix)
    assert path.exists()


def test_an_image_of_another_recipe_is_stale(
    programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build()
    monkeypatch.setattr(recipe, "DISK_SIZE", "7G")
    (found,) = vm.images()
    assert not found.current


def _take_lock(said: threading.Event) -> None:
    with cache.build_lock(lambda text: said.set()):
        pass


def _interrupt_when(path: Path) -> None:
    _wait_for(path)
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def _wait_for(path: Path) -> None:
    _wait_until(lambda: path.exists() and path.read_text() != "")


def _wait_until(condition: object) -> None:
    deadline = time.monotonic() + 60
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "waited for 60 s"
        time.sleep(0.02)


def test_everybodys_image_is_taken_where_one_has_none(programs: Path, tmp_path: Path) -> None:
    name = recipe.current().hash
    assert cache.image_directory(name) == cache.root() / name
    own = build()
    own.rename(tmp_path / "moved")
    cache.EVERYBODYS.mkdir()
    (tmp_path / "moved").rename(cache.EVERYBODYS / name)
    assert cache.image_directory(name) == cache.EVERYBODYS / name
    assert build() == cache.EVERYBODYS / name  # there is nothing to build
    assert [image.current for image in vm.images()] == [True]
    with pytest.raises(VMError, match=f"everybody's.*sudo XDG_CACHE_HOME=.* ebpflab vm rm {name}"):
        vm.remove(name)
    shutil.copytree(cache.EVERYBODYS / name, own)
    assert cache.image_directory(name) == own
    assert cache.image_directories() == [own]  # which hides the other


def test_an_image_can_be_read_and_held_by_who_may_not_write_it(programs: Path) -> None:
    path = build()
    os.close(cache.hold(path))  # the first guest makes the file
    lock = cache.hold(path)
    assert fcntl.fcntl(lock, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
    os.close(lock)
    assert all(each.stat().st_mode & 0o044 == 0o044 for each in (path, *path.rglob("*")))


def test_roots_umask_does_not_keep_others_from_everybodys_image(
    programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "EVERYBODYS", cache.root())
    before = os.umask(0o077)
    try:
        path = build()
        os.close(cache.hold(path))
    finally:
        os.umask(before)
    for each in (path.parent.parent, path.parent, path, *path.rglob("*")):
        assert each.stat().st_mode & 0o044 == 0o044, each


def test_a_lock_that_others_may_not_read_is_told_with_its_cure(programs: Path) -> None:
    path = build()
    os.close(cache.hold(path))
    (path / "in-use").chmod(0o600)
    said = as_another_user(lambda: cache.hold(path))
    assert said.startswith(f"VMError: The guest's image {path.name} cannot be held")
    assert f"sudo chmod 644 {path}/in-use" in said


def test_an_image_that_others_may_not_see_is_none_for_them(programs: Path) -> None:
    name = recipe.current().hash
    cache.EVERYBODYS.mkdir()
    build().rename(cache.EVERYBODYS / name)
    cache.EVERYBODYS.chmod(0o700)
    assert as_another_user(lambda: cache.image_directory(name)) == str(cache.root() / name)
    assert as_another_user(cache.image_directories) == "[]"


def as_another_user(function: Callable[[], object]) -> str:
    """What it returns or raises, for a user who is neither root nor the one of these tests."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.getuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            answer = str(function())
        except Exception as error:
            answer = f"{type(error).__name__}: {error}"
        os.write(writer, answer.encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as file:
        return file.read()
