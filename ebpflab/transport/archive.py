"""The agent as one file: a zip, which python3 runs (zipapp).

It holds ``__main__.py``, `ebpflab.agent`, `ebpflab.protocol`, and an empty ``ebpflab/__init__.py``,
and nothing of the notebook's half. The sudo rule runs a root-owned copy of it. Everywhere else it
is sent over the stream that it will speak on, to `provision/bootstrap.py`, which reads
``u32 length | zip``, answers RUN, and becomes the agent.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from ebpflab.errors import EbpflabError

READY = b"READY\n"
"""What the bootstrap of a guest says once, when it is warm and waits for an agent."""
RUN = b"RUN\n"
"""What a bootstrap answers when the agent that it received is about to run."""

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same files make the same zip, to the byte
_PACKAGE = Path(__file__).resolve().parent.parent


def directory(name: str) -> Path:
    """``provision`` or ``labs``: inside an installed package, or beside it in the repository."""
    for path in (_PACKAGE / name, _PACKAGE.parent / name):
        if path.is_dir():
            return path
    raise EbpflabError(
        f"The directory {name}/ of ebpflab is missing; it belongs at {_PACKAGE.parent}."
    )


def bootstrap_source() -> str:
    """The text of the bootstrap, for machines that have to be sent that, too."""
    return (directory("provision") / "bootstrap.py").read_text(encoding="utf-8")


@cache
def agent() -> bytes:
    """The agent, as a zip."""
    return zipped(dict(_agent_files()))


def agent_parcel() -> bytes:
    """The agent, as a bootstrap takes it off its stream."""
    return _parcel(agent())


def parcel(files: Mapping[str, bytes]) -> bytes:
    """Another program; ``files`` has its ``__main__.py`` at the top."""
    return _parcel(zipped(files))


def zipped(files: Mapping[str, bytes]) -> bytes:
    """A zip of these files, not compressed: zlibs differ in what they make of one text."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), data)
    return buffer.getvalue()


def _agent_files() -> Iterator[tuple[str, bytes]]:
    yield "__main__.py", (_PACKAGE / "agent" / "__main__.py").read_bytes()
    yield "ebpflab/__init__.py", b""
    for half in ("agent", "protocol"):
        for path in sorted((_PACKAGE / half).rglob("*.py")):
            if path.name != "__main__.py":
                yield f"ebpflab/{path.relative_to(_PACKAGE).as_posix()}", path.read_bytes()


def _parcel(program: bytes) -> bytes:
    return struct.pack("<I", len(program)) + program
