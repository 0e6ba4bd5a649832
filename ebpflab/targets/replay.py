"""The replay target: no kernel at all, a recording of one.

``Lab("replay")`` plays the recording of the chapter that runs; ``replay:01-kprobes`` names a
chapter, ``replay:PATH`` any recording.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from pathlib import Path
from typing import Any, cast

from ebpflab.errors import RecordingError
from ebpflab.protocol import framing
from ebpflab.protocol.closest import suggest
from ebpflab.protocol.messages import RecordingFacts
from ebpflab.replay import tape
from ebpflab.replay.dice import Dice
from ebpflab.replay.player import Player, Reply
from ebpflab.replay.taping import Asking
from ebpflab.transport.base import OnStep, Target, Transport

"""Where the shipped recordings are."""


class ReplayTransport(Transport):
    """A thread that answers as an agent once did."""

    recorded = True

    def __init__(self, played: tape.Tape) -> None:
        self._notebook, self._ours = socket.socketpair()
        self.reader = self.writer = self._notebook.fileno()
        self._player, self._asking = Player(played), dict[int, Asking]()
        self._dice = Dice(played.header["seed"])
        self._hello = played.header["hello"].copy()
        self._hello["recording"] = RecordingFacts(
            chapter=played.header.get("chapter"),
            date=played.header["date"],
            target=played.header["target"],
        )
        threading.Thread(target=self._serve, name="ebpflab replay", daemon=True).start()

    def asking(self, ident: int) -> None:
        self._asking[ident] = Asking.here()

    def close(self) -> None:
        self._dice.close()
        try:
            self._notebook.shutdown(socket.SHUT_RDWR)
            self._notebook.close()
        except OSError:
            pass  # it was closed before

    def post_mortem(self) -> str:
        return "The recording is not played any more."

    def _serve(self) -> None:
        try:
            self._write(framing.control({"hello": self._hello}))
            with self._ours.makefile("rb") as file:
                for _, payload in framing.read_frames(file):
                    self._answer(framing.parse_control(payload))
        except OSError:
            pass  # the lab was closed
        finally:
            self._ours.close()

    def _answer(self, request: framing.Message) -> None:
        ident = cast(int, request["id"])
        # What nobody waits for comes from finalizers, whenever they run.
        run, aside = self._asking.pop(ident, Asking(None, aside=True))
        reply: Reply = self._player.reply(request, run, aside)
        for batch in reply.batches:
            head = framing.BATCH_HEADER.pack(batch.stream, batch.lost)
            self._write(framing.encode(framing.BATCH, head, batch.data))
        for start in range(0, len(reply.blob), framing.CHUNK_BYTES):
            part = reply.blob[start : start + framing.CHUNK_BYTES]
            self._write(framing.encode(framing.BLOB, framing.BLOB_HEADER.pack(ident), part))
        self._write(framing.control({"id": ident, **reply.said}))

    def _write(self, frame: list[framing.Buffer]) -> None:
        framing.write_frame(self._ours.fileno(), frame)


class ReplayTarget(Target):
    """A recording: of the chapter that runs, or the one that is named."""

    name = "replay"

    def __init__(self, wanted: str = "") -> None:
        self._wanted = wanted

    def unavailable(self) -> str | None:
        if self._path() is not None:
            return None
        if self._wanted:
            near = suggest(self._wanted, chapters())
            return f"there is no recording {self._wanted!r}; there are {_listed()}.{near}"
        notebook = running_notebook()
        here = f"the notebook {notebook!r} is none of them" if notebook else "this is no notebook"
        return (
            f"recordings are of chapters, and {here}. Open one, or name it, as in"
            f" Lab('replay:01-kprobes'): {_listed()}"
        )

    def connect(self, progress: OnStep) -> Transport:
        progress("reading the recording")
        path = self._path()
        if path is None:
            raise RecordingError(f"Cannot play a recording: {self.unavailable()}.")
        return ReplayTransport(tape.load(path))

    def _path(self) -> Path | None:
        if self._wanted:
            shipped = tape.CHAPTERS / f"{self._wanted}{tape.SUFFIX}"
            return next((each for each in (shipped, Path(self._wanted)) if each.is_file()), None)
        notebook = running_notebook() or ""
        # A copy of a chapter ("01-kprobes-Copy1") is the chapter still.
        found = [name for name in chapters() if notebook.startswith(name)]
        return tape.CHAPTERS / f"{max(found, key=len)}{tape.SUFFIX}" if found else None


def chapters() -> list[str]:
    """The chapters that have a recording."""
    return sorted(
        path.name.removesuffix(tape.SUFFIX) for path in tape.CHAPTERS.glob(f"*{tape.SUFFIX}")
    )


def running_notebook() -> str | None:
    """The name of the notebook that runs, without its ending, where the front end tells it.

    Jupyter's server says so in JPY_SESSION_NAME, VS Code in a variable of the notebook.
    """
    session = os.environ.get("JPY_SESSION_NAME", "")
    if "IPython" in sys.modules:
        from IPython.core.getipython import get_ipython

        shell: Any = get_ipython()
        session = getattr(shell, "user_ns", {}).get("__vsc_ipynb_file__", session)
    return Path(session).stem or None


def _listed() -> str:
    return ", ".join(chapters()) or "none"
