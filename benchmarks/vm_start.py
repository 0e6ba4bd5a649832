"""How long until ``Lab("vm")`` is ready: warm, and cold, when there is the image and no more."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

from ebpflab import Lab, vm
from ebpflab.vm import cache, recipe


def warm_seconds() -> float:
    """A saved guest resumes."""
    began = time.monotonic()
    with Lab("vm"):
        return time.monotonic() - began


def cold_seconds() -> float:
    """KVM is tried, a guest boots, is saved, and resumes: what happens once after the build."""
    vm.build(lambda _: None)
    image = cache.image_directory(recipe.current().hash)
    before = os.environ.get("XDG_CACHE_HOME")
    # Beside the image, so that its disk can be linked instead of copied.
    with tempfile.TemporaryDirectory(dir=cache.root().parent, prefix="bench-") as folder:
        try:
            os.environ["XDG_CACHE_HOME"] = folder
            _link(image, cache.root() / image.name)
            return warm_seconds()
        finally:
            os.environ.pop("XDG_CACHE_HOME")
            if before is not None:
                os.environ["XDG_CACHE_HOME"] = before


def _link(image: Path, copy: Path) -> None:
    copy.mkdir(parents=True)
    for path in image.iterdir():
        if path.is_file() and path.name != "accel.json":
            os.link(path, copy / path.name)
