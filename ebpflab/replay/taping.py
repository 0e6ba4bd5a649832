"""A target, and its transport, that keep a tape of what goes through them."""

from __future__ import annotations

import datetime
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, cast

from ebpflab.display import cells
from ebpflab.protocol import framing
from ebpflab.protocol.messages import Clock, Hello
from ebpflab.replay.dice import Dice
from ebpflab.replay.tape import Batch, Exchange, Header, Item, Tape
from ebpflab.transport.base import OnStep, Target, Transport


class Asking(NamedTuple):
    """Who asked: the run of a cell, or a thread beside the cells."""

    run: tuple[str, int] | None
    aside: bool

    @classmethod
    def here(cls) -> Asking:
        return cls(cells.current(), threading.current_thread() is not threading.main_thread())


Keep = Callable[[Hello, list[tuple[str, int]], list[Item]], None]
"""Called at the end with the agent's hello, the runs of cells that asked, and the items."""


class TapingTransport(Transport):
    """Passes everything on between a notebook and ``inner``, and at the end hands over the tape."""

    def __init__(self, inner: Transport, keep: Keep) -> None:
        self._inner, self._keep = inner, keep
        self.set_clock = inner.set_clock
        self._notebook, theirs = socket.socketpair()
        self.reader = self.writer = self._notebook.fileno()
        self._hello: Hello | None = None
        self._runs: list[tuple[str, int]] = []
        self._items: list[Item] = []
        self._blobs: dict[int, bytearray] = {}
        self._known: dict[bytes, bytes] = {}
        self._asked: dict[int, tuple[framing.Message, int, int | None, bool]] = {}
        self._asking: dict[int, tuple[int, Asking]] = {}
        self._ended = threading.Event()
        inner_reader, inner_writer = os.dup(inner.reader), os.dup(inner.writer)
        passing = (
            (theirs.fileno(), inner_writer, self._note_request),
            (inner_reader, theirs.fileno(), self._note_arrival),
        )
        self._theirs = theirs
        for from_fd, to_fd, note in passing:
            threading.Thread(target=self._pass, args=(from_fd, to_fd, note), daemon=True).start()

    def asking(self, ident: int) -> None:
        self._asking[ident] = len(self._items), Asking.here()

    def close(self) -> None:
        self._inner.close()
        if not self._ended.is_set():
            self._ended.set()
            self._notebook.shutdown(socket.SHUT_RDWR)
            if self._hello is not None:
                self._keep(self._hello, self._runs, list(self._items))

    def post_mortem(self) -> str:
        return self._inner.post_mortem()

    def _pass(self, from_fd: int, to_fd: int, note: Callable[[int, bytes], None]) -> None:
        try:
            with open(from_fd, "rb", closefd=False) as file:
                for kind, payload in framing.read_frames(file):
                    note(kind, payload)
                    framing.write_frame(to_fd, framing.encode(kind, payload))
        except OSError:
            pass
        finally:
            if to_fd == self._theirs.fileno():  # the agent has ended
                self._theirs.shutdown(socket.SHUT_WR)

    def _note_request(self, _: int, payload: bytes) -> None:
        request = framing.parse_control(payload)
        ident = cast(int, request.pop("id"))
        sent, asking = self._asking.pop(ident, (len(self._items), Asking(None, aside=True)))
        cell = None
        if asking.run is not None and not asking.aside:
            if asking.run not in self._runs:
                self._runs.append(asking.run)
            cell = self._runs.index(asking.run)
        self._asked[ident] = request, sent, cell, asking.aside

    def _note_arrival(self, kind: int, payload: bytes) -> None:
        if kind == framing.BATCH:
            stream, lost = framing.BATCH_HEADER.unpack_from(payload)
            self._items.append(Batch(stream, lost, payload[framing.BATCH_HEADER.size :]))
            return
        if kind == framing.BLOB:
            (ident,) = framing.BLOB_HEADER.unpack_from(payload)
            self._blobs.setdefault(ident, bytearray()).extend(payload[framing.BLOB_HEADER.size :])
            return
        message = framing.parse_control(payload)
        if "hello" in message:
            self._hello = cast(Hello, message["hello"])
        elif "id" in message:
            self._note_answer(cast(int, message.pop("id")), message)

    def _note_answer(self, ident: int, said: framing.Message) -> None:
        blob = bytes(self._blobs.pop(ident, b""))
        blob = self._known.setdefault(blob, blob)
        request, sent, cell, aside = self._asked.pop(ident)
        if request["op"] == "set_clock":  # part of how this agent was reached, not of the lab
            if self._hello is not None and "ok" in said:
                self._hello["clock_offset_ns"] = cast(Clock, said["ok"])["clock_offset_ns"]
        else:
            self._items.append(Exchange(request, said, blob, sent, cell, aside))


Naming = Callable[[list[str]], list[list[str]]]
"""From the cells that asked something, as `cells.current` tells them, to all names of each."""


class TapingTarget(Target):
    """``inner``, with all that crosses its wire written to ``path`` when the lab is closed."""

    def __init__(
        self, inner: Target, path: Path, seed: int, naming: Naming, chapter: str | None = None
    ) -> None:
        self.name, self._inner, self._path, self._naming = inner.name, inner, path, naming
        self._seed, self._chapter = seed, chapter

    def unavailable(self) -> str | None:
        return self._inner.unavailable()

    def connect(self, progress: OnStep) -> Transport:
        transport = self._inner.connect(progress)
        self._date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self._dice = Dice(self._seed)
        return TapingTransport(transport, self._keep)

    def _keep(self, hello: Hello, runs: list[tuple[str, int]], items: list[Item]) -> None:
        self._dice.close()
        cells = self._naming([identity for identity, _ in runs])
        header = Header(
            target=self.name, seed=self._seed, date=self._date, hello=hello, cells=cells
        )
        if self._chapter is not None:
            header["chapter"] = self._chapter
        Tape(header, items).save(self._path)
