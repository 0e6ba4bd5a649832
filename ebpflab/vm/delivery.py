"""How the agent gets to where it runs: as a zip, over the stream that it will speak on.

The other end is `provision/bootstrap.py`, whichever stream that is: it reads `u32 length |
zip`, answers RUN, and becomes the agent.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

from ebpflab.vm import recipe

READY = b"READY\n"
"""What the bootstrap of a guest says once, when it is warm and waits for an agent."""
RUN = b"RUN\n"
"""What a bootstrap answers when the agent that it received is about to run."""

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same files make the same zip


def bootstrap_source() -> str:
    """The text of the bootstrap, for targets that have to send that, too."""
    return (recipe.directory("provision") / "bootstrap.py").read_text(encoding="utf-8")


def agent_parcel() -> bytes:
    """The agent, ready to be sent."""
    agent = Path(__file__).resolve().parent.parent / "agent"
    return parcel({path.name: path.read_bytes() for path in sorted(agent.glob("*.py"))})


def parcel(files: Mapping[str, bytes]) -> bytes:
    """A program, ready to be sent; ``files`` has its ``__main__.py`` at the top."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name, _EPOCH)
            archive.writestr(entry, data, compress_type=zipfile.ZIP_DEFLATED)
    content = buffer.getvalue()
    return struct.pack("<I", len(content)) + content
