"""Where images live, and the rules that keep half-made or used ones apart.

    ~/.cache/ebpflab/vm/
        build.lock          held while anything is built; the next builder waits
        .building-*/        being built; whoever holds build.lock may remove it
        HASH/               an image: complete, or it would not have this name
            in-use          locked shared by each running guest, exclusively by `remove`
            disk.raw vmlinuz initrd image.json
            accel.json      whether KVM works here (see accel.py)
            warm-KEY/       a guest saved while it waits for an agent (see warm.py)
            .building-*/    the same, being made

    /var/cache/ebpflab/vm/  the same for everybody on this machine: whoever may write there
                            (`sudo XDG_CACHE_HOME=/var/cache ebpflab vm build`) made it, and
                            others only read it. Their guests share its pages.

Locks are flock(2) on descriptors, so the kernel lets go of them when their holder dies; a
guest's lock is inherited by QEMU itself and lasts exactly as long as it runs.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ebpflab.errors import MissingTool, VMError
from ebpflab.transport.base import OnStep
from ebpflab.vm import process

EVERYBODYS = Path("/var/cache/ebpflab/vm")
_TREE_NOTE = "tree-is-at"
_WAIT_NOTE_SECONDS = 5.0


def root() -> Path:
    """The directory of all images."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).absolute() / "ebpflab" / "vm"


def image_directory(image_hash: str) -> Path:
    """Where an image is, or is to be made: one's own before everybody's."""
    own, everybodys = root() / image_hash, EVERYBODYS / image_hash
    return everybodys if is_image(everybodys) and not is_image(own) else own


def is_image(path: Path) -> bool:
    """Whether there is a complete image at ``path``, as far as this user may see."""
    return os.access(path / "image.json", os.F_OK)  # Path.exists raises where it may not look


def image_directories() -> list[Path]:
    """Every complete image that a lab may take, oldest first."""
    found = set[str]()
    for top in (root(), EVERYBODYS):
        with suppress(PermissionError):  # somebody keeps theirs to themselves
            found |= {json.parent.name for json in top.glob("*/image.json")}
    images = [image_directory(name) for name in found if name[0] != "."]
    return sorted(images, key=lambda image: (image / "image.json").stat().st_mtime)


@contextmanager
def build_lock(progress: OnStep) -> Iterator[None]:
    """One builder at a time. What a builder that died had left is removed first."""
    _make_root()
    lock = os.open(root() / "build.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _wait_for(lock, progress)
        for pattern in (".building-*", "*/.building-*"):
            for stale in root().glob(pattern):
                _discard(stale)
        yield
    finally:
        os.close(lock)


def _make_root() -> None:
    root().parent.parent.mkdir(parents=True, exist_ok=True)
    for directory in (root().parent, root()):
        with suppress(FileExistsError):
            directory.mkdir()
            if root() == EVERYBODYS:  # root's umask may be 077
                directory.chmod(0o755)


def _wait_for(lock: int, progress: OnStep) -> None:
    started = noted = time.monotonic()
    while not _try_lock(lock, fcntl.LOCK_EX):
        now = time.monotonic()
        if now - noted >= _WAIT_NOTE_SECONDS or noted == started:
            progress(f"another ebpflab is building; waiting for it ({now - started:.0f} s)")
            noted = now
        time.sleep(0.2)


def _try_lock(lock: int, kind: int) -> bool:
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def fresh_directory(final: Path) -> Iterator[Path]:
    """A directory to build in; becomes ``final`` if the block succeeds, else vanishes.

    Call it under `build_lock`. Its contents are on the disk before it gets its name, so that
    a machine losing power cannot leave a name without the contents.
    """
    with scratch_directory(final.parent) as building:
        try:
            yield building
            open_to_readers(building)
            _sync(building)
            building.rename(final)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise out_of_space(final) from error


@contextmanager
def scratch_directory(parent: Path) -> Iterator[Path]:
    """A directory to build in that vanishes after the block. Call it under `build_lock`."""
    building = Path(tempfile.mkdtemp(prefix=".building-", dir=parent))
    try:
        yield building
    finally:
        _discard(building)


@contextmanager
def tree_directory(building: Path) -> Iterator[Path]:
    """Where mmdebstrap may put a root tree: outside of ``building``, which is in a home
    directory and so closed to the user ids that a user namespace maps.

    ``building`` notes the place, so that a later builder can remove what a killed one left.
    """
    tree = Path(tempfile.mkdtemp(prefix="ebpflab-", dir=tree_parent()))
    try:
        (building / _TREE_NOTE).write_text(str(tree))
        tree.chmod(0o711)
        yield tree
        (building / _TREE_NOTE).unlink()
    finally:
        _remove_tree(tree)


def tree_parent() -> Path:
    """/var/tmp, which unlike /tmp is not kept in memory, unless TMPDIR says otherwise."""
    return Path(os.environ.get("TMPDIR") or "/var/tmp").absolute()


def hold(image: Path) -> int:
    """A descriptor that keeps `remove` from ``image`` while it, or a copy of it, is open."""
    try:
        lock = _in_use(image)
    except FileNotFoundError:
        raise VMError(f"The guest's image {image.name} was removed meanwhile.") from None
    # Between the open and the lock, `remove` may have taken the image away.
    if not _try_lock(lock, fcntl.LOCK_SH) or not (image / "image.json").exists():
        os.close(lock)
        raise VMError(f"The guest's image {image.name} is being removed.")
    return lock


def _in_use(image: Path) -> int:
    """The file to lock, open for reading, which is all that flock(2) wants."""
    path = image / "in-use"
    try:
        try:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            lock = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
            os.fchmod(lock, 0o644)  # root's umask may be 077, and others must read it, too
            return lock
    except PermissionError:
        raise VMError(
            f"The guest's image {image.name} cannot be held while it is used: {path} is missing,"
            f" or this user may not read it. Its owner puts that right: sudo touch {path};"
            f" sudo chmod 644 {path}"
        ) from None


def remove(hash_prefix: str) -> None:
    """Remove the one image whose hash begins so. Refused while a guest runs on it."""
    matches = [path for path in image_directories() if path.name.startswith(hash_prefix)]
    if len(matches) != 1 or not hash_prefix:
        known = ", ".join(path.name for path in image_directories()) or "none"
        found = "several images begin" if len(matches) > 1 else "no image begins"
        raise VMError(f"Nothing was removed: {found} with {hash_prefix!r}. Images: {known}.")
    (image,) = matches
    if image.parent != root():
        raise VMError(
            f"The image {image.name} was not removed: it is everybody's on this machine. Who may "
            f"do that: sudo XDG_CACHE_HOME={EVERYBODYS.parents[1]} ebpflab vm rm {image.name}"
        )
    lock = _in_use(image)
    try:
        # A guest that was just closed may take a moment to let go of its memory.
        deadline = time.monotonic() + 2
        while not _try_lock(lock, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                raise VMError(
                    f"The image {image.name} was not removed: a guest is running on it. "
                    "Close its lab or shell first."
                )
            time.sleep(0.05)
        # The name goes first: an interrupted removal leaves nothing that looks like an image.
        _discard(image.rename(root() / f".building-removed-{image.name}"))
    finally:
        os.close(lock)


def size_bytes(directory: Path) -> int:
    """What ``directory`` takes on the disk; images are full of holes."""
    return sum(path.lstat().st_blocks * 512 for path in directory.rglob("*"))


def check_free_space(needs: dict[Path, int]) -> None:
    """Refuse to begin what would run out of disk. ``needs`` is bytes by directory."""
    by_device: dict[int, tuple[Path, int]] = {}
    for path, size in needs.items():
        device = path.stat().st_dev
        first, total = by_device.get(device, (path, 0))
        by_device[device] = (first, total + size)
    for path, size in by_device.values():
        free = shutil.disk_usage(path).free
        if free < size:
            raise VMError(
                f"Building the guest needs {size / 1e9:.1f} GB of free disk under {path}, "
                f"but only {free / 1e9:.1f} GB is free. Free some, remove old images with "
                "`ebpflab vm rm`, or set XDG_CACHE_HOME or TMPDIR to a larger disk.",
                needed_bytes=size,
                free_bytes=free,
            )


def open_to_readers(building: Path) -> None:
    """There are no secrets in an image: who may read it is up to the directories above."""
    for path in (building, *building.rglob("*")):
        path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))


def out_of_space(path: Path) -> VMError:
    """The error for a disk that filled up in spite of `check_free_space`."""
    return VMError(
        f"The disk under {path.parent} filled up while the guest was being built; what had "
        "been built is removed. Free some space and try again."
    )


def _sync(directory: Path) -> None:
    for path in (*directory.iterdir(), directory):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _discard(building: Path) -> None:
    note = building / _TREE_NOTE
    if note.exists():
        _remove_tree(Path(note.read_text()))
    shutil.rmtree(building, ignore_errors=True)


def _remove_tree(tree: Path) -> None:
    """Remove what `tree_directory` made, as far as that is possible."""
    with suppress(MissingTool):
        for path in tree.glob("*"):
            process.run_quietly(process.empty_tree(path))
    shutil.rmtree(tree, ignore_errors=True)
