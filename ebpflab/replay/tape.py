"""A tape: all that crossed the wire of one lab, in the order in which the notebook got it.

In a file it is, compressed by xz, a stream of frames of `ebpflab.protocol.framing`:

    CONTROL   first the header
    BATCH     as it came
    BLOB      as it came, in one piece; belongs to the exchange that follows it, and to each later
              one that tells its number in ``blob``, counted from 0
    CONTROL   an exchange: a request with its answer, where that came

so ``xz -dc`` shows what is in it. Requests are kept with the cell that made them.
"""

from __future__ import annotations

import hashlib
import lzma
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NotRequired, TypedDict, cast

from ebpflab.errors import RecordingError
from ebpflab.protocol import framing
from ebpflab.protocol.messages import Hello

FORMAT = 1
SUFFIX = ".tape.xz"
CHAPTERS = Path(__file__).with_name("chapters")
"""Where the tapes of the chapters are, which come with ebpflab."""


@dataclass(frozen=True)
class Batch:
    """Records of one stream, and how many were lost until then."""

    stream: int
    lost: int
    data: bytes


@dataclass(frozen=True)
class Exchange:
    """A request and its answer."""

    asked: framing.Message
    """The request, without its number."""
    said: framing.Message
    """``{"ok": ...}`` or ``{"fault": ...}``."""
    blob: bytes
    sent: int
    """How many items of the tape had arrived when this was asked."""
    cell: int | None
    """Which of the header's cells asked; None outside of a notebook."""
    aside: bool
    """Whether it was asked beside the cells: by the thread of a live view, or a finalizer."""


Item = Batch | Exchange


class Header(TypedDict):
    """What a tape says of itself."""

    chapter: NotRequired[str]
    target: str
    date: str
    seed: int
    hello: Hello
    cells: list[list[str]]
    """For each cell that asked something, the names by which it can be known: its id in the
    notebook and `text_name` of its text."""


@dataclass(frozen=True)
class Tape:
    """Everything that crossed the wire of one lab."""

    header: Header
    items: list[Item]

    @property
    def programs(self) -> list[str]:
        """The C programs that were compiled, each once, in order."""
        loads = (item for item in self.items if isinstance(item, Exchange))
        return list(dict.fromkeys(str(e.asked["source"]) for e in loads if e.asked["op"] == "load"))

    def save(self, path: Path) -> None:
        """Write it, whole or not at all. Raises RecordingError."""
        frames = [framing.control({"format": FORMAT, **self.header})]
        known: dict[bytes, int] = {}  # the same parts of a traced program are read again and again
        for item in self.items:
            frames += _encode(item, known)
        data = b"".join(bytes(part) for frame in frames for part in frame)
        unfinished = path.with_name(path.name + ".part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished.write_bytes(lzma.compress(data, preset=9))
            unfinished.replace(path)
        except OSError as error:
            raise RecordingError(f"Cannot write the recording {path}: {error.strerror}.") from None


def text_name(text: str) -> str:
    """The name of a cell by its text, for front ends that do not tell its id."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def load(path: Path) -> Tape:
    """Read a tape. Raises RecordingError when it is none, or cut off."""
    try:
        with lzma.open(path) as file:
            frames = framing.read_frames(cast(BinaryIO, file))
            _, first = next(frames, (0, b""))
            header = framing.parse_control(first)
            if header.pop("format", None) != FORMAT:
                raise RecordingError(f"{path} is of another version of ebpflab: record it again.")
            return Tape(cast(Header, header), list(_decode(frames)))
    except OSError as error:
        raise RecordingError(f"Cannot read the recording {path}: {error.strerror}.") from None
    except (lzma.LZMAError, EOFError, framing.BadFrame, KeyError, IndexError, TypeError) as error:
        raise RecordingError(f"{path} is no recording of a lab: {error}.") from None


def _encode(item: Item, known: dict[bytes, int]) -> list[list[framing.Buffer]]:
    if isinstance(item, Batch):
        head = framing.BATCH_HEADER.pack(item.stream, item.lost)
        return [framing.encode(framing.BATCH, head, item.data)]
    control = {
        "asked": item.asked,
        "said": item.said,
        "sent": item.sent,
        "cell": item.cell,
        "aside": item.aside,
    }
    if item.blob in known:
        return [framing.control({**control, "blob": known[item.blob]})]
    if item.blob:
        known[item.blob] = len(known)
    chunks = range(0, len(item.blob), framing.CHUNK_BYTES)
    blobs = [item.blob[start : start + framing.CHUNK_BYTES] for start in chunks]
    return [*(framing.encode(framing.BLOB, blob) for blob in blobs), framing.control(control)]


class _Told(TypedDict):
    """The control frame of an exchange. ``blob`` is the place of an earlier one that is equal."""

    asked: framing.Message
    said: framing.Message
    sent: int
    cell: int | None
    aside: bool
    blob: NotRequired[int]


def _decode(frames: Iterator[tuple[int, bytes]]) -> Iterator[Item]:
    blob, blobs = bytearray(), list[bytes]()
    for kind, payload in frames:
        if kind == framing.BATCH:
            stream, lost = framing.BATCH_HEADER.unpack_from(payload)
            yield Batch(stream, lost, payload[framing.BATCH_HEADER.size :])
        elif kind == framing.BLOB:
            blob += payload
        else:
            told = cast(_Told, framing.parse_control(payload))
            if blob:
                told["blob"] = len(blobs)
                blobs.append(bytes(blob))
                blob.clear()
            yield Exchange(
                told["asked"],
                told["said"],
                blobs[told["blob"]] if "blob" in told else b"",
                told["sent"],
                told["cell"],
                told["aside"],
            )
