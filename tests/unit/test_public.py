"""What ebpflab offers: every public name, with its methods and signatures.

A change of it is meant, or it is a mistake. Where it is meant, write the list anew, and a line into
CHANGELOG.md:

    .venv/bin/python tests/unit/test_public.py >tests/unit/public.txt
"""

from __future__ import annotations

import enum
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ebpflab
from ebpflab import check, plots, recordings

MADE_BY_READERS = (ebpflab.Lab, ebpflab.Fleet)
LIST = Path(__file__).with_name("public.txt")


def public() -> Iterator[str]:
    """A line for each name, in order."""
    offered = {f"ebpflab.{name}": getattr(ebpflab, name) for name in ebpflab.__all__}
    offered["ebpflab.recordings.Recording"] = recordings.Recording
    for module in (check, plots):
        for name in module.__all__:
            offered[f"{module.__name__}.{name}"] = getattr(module, name)
    for name, value in sorted(offered.items()):
        yield from described(name, value)


def described(name: str, value: Any) -> Iterator[str]:
    if not inspect.isclass(value):
        yield name + signature(value)
        return
    yield f"class {name}" + (signature(value) if value in MADE_BY_READERS else "")
    inherited = int if issubclass(value, enum.Enum) else tuple
    for member in sorted({*dir(value), *inspect.get_annotations(value)}):
        if not member.startswith("_") and not hasattr(inherited, member):
            yield f"    {member}" + signature(inspect.getattr_static(value, member, None))


def signature(value: Any) -> str:
    if isinstance(value, (staticmethod, classmethod)):
        value = value.__func__
    if isinstance(value, property) or not callable(value):
        return ""
    return str(inspect.signature(value))


def test_the_public_names_are_those_that_are_meant() -> None:
    assert [*public()] == LIST.read_text().splitlines()


def test_each_public_name_is_documented() -> None:
    for name in ebpflab.__all__:
        assert inspect.getdoc(getattr(ebpflab, name)), name


if __name__ == "__main__":
    print("\n".join(public()))
