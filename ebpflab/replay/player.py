"""Which answer of a tape does a request get?

The player has a place on the tape, and goes forward with the requests. Each cell begins where it
began when it was recorded, so cells can be run again and in any order; in it, a request gets the
next answer to a request of the same content. Records that arrived before an answer are delivered
before it. So a chapter from top to bottom sees all that was seen when it was recorded, and each
``frame()`` the same rows.

A live view asks as often as it likes: it is answered from what its like was told, up to where the
next cell goes on, and from there on with the last answer.

Numbers that a notebook chooses itself (of programs), and those of the streams of a program that is
loaded twice, are translated.
"""

from __future__ import annotations

import bisect
import itertools
import json
from collections import defaultdict
from typing import NamedTuple, cast

from ebpflab.protocol import framing
from ebpflab.protocol.messages import Load, Loaded, OfProgram, Sync
from ebpflab.replay.refusal import refusal
from ebpflab.replay.tape import Batch, Exchange, Tape, text_name

_FIRST_STREAM = 1 << 20  # our numbers for streams; an agent counts from 1
# What may be asked without having been recorded: it has nothing to tell, and must not fail.
_WITHOUT_NEWS: dict[str, framing.Message] = {
    "sync": {},
    "close": {
        "stats": {
            "functions": {},
            "problem": "The recording does not tell how often this program ran.",
        }
    },
}


class Reply(NamedTuple):
    """What a request gets: first the batches, then the answer with its blob."""

    batches: list[Batch]
    said: framing.Message
    blob: bytes


class Player:
    """Plays one tape to one lab."""

    def __init__(self, tape: Tape) -> None:
        self._tape = tape
        self._place = 0  # the item of the tape that comes next
        self._idents = itertools.count(_FIRST_STREAM)
        self._programs: dict[int, int] = {}  # number of the notebook -> number on the tape
        self._streams: dict[int, int] = {}  # number on the tape -> number of the notebook
        self._of_stream: dict[int, int] = {}  # the other way round
        self._run: tuple[str, int] | None = None
        self._cell: int | None = None  # the running cell, where the tape has it
        self._found: dict[str, list[int]] = defaultdict(list)  # content -> places of its answers
        self._begins: dict[int, int] = {}  # cell -> the place where it begins
        self._steps: list[int] = []  # places of what cells asked
        for place, item in enumerate(tape.items):
            if isinstance(item, Exchange):
                self._found[_content(item.asked)].append(place)
                if not item.aside:
                    self._steps.append(place)
                    if item.cell is not None:
                        begin = self._begins.get(item.cell, place)
                        self._begins[item.cell] = min(begin, item.sent)

    def reply(self, request: framing.Message, run: tuple[str, int] | None, aside: bool) -> Reply:
        """Answer a request of the cell ``run`` (see `cells.current`), or of a thread beside it."""
        batches = [] if aside else self._enter(run)
        asked = self._as_recorded(request)
        place, goes_on = self._find(_content(asked), aside)
        if place is None:
            ok = _WITHOUT_NEWS.get(str(request["op"]))
            if ok is None:
                return Reply(batches, {"fault": refusal(self._tape, asked)}, b"")
            return Reply(batches, {"ok": ok}, b"")
        exchange = self._exchange(place)
        said = exchange.said
        if request["op"] == "load" and "ok" in said:
            said = {"ok": self._loaded(cast(Load, request)["program"], exchange)}
        if goes_on:
            batches += self._play_to(place)
            self._place = place + 1
        return Reply(batches, said, exchange.blob)

    # -- where on the tape -------------------------------------------------------------------

    def _enter(self, run: tuple[str, int] | None) -> list[Batch]:
        """Go to where the cell begins that now runs; what came between it and the last one."""
        if run is None or run == self._run:
            return []
        self._run, names = run, {run[0], text_name(run[0])}
        cells = [i for i in self._begins if names & set(self._tape.header["cells"][i])]
        ahead = [cell for cell in cells if self._begins[cell] >= self._place]
        self._cell = ahead[0] if ahead else cells[-1] if cells else None
        if self._cell is None:
            return []
        begin = self._begins[self._cell]
        follows = self._place <= begin and self._next_step() == self._first_step_from(begin)
        batches = self._play_to(begin) if follows else []
        self._place = begin
        return batches

    def _find(self, content: str, aside: bool) -> tuple[int | None, bool]:
        """The place of the answer, and whether the tape goes on from there."""
        places = self._found.get(content, [])
        following = places[bisect.bisect_left(places, self._place) :]
        step = self._next_step()
        limit = len(self._tape.items) if step is None else self._exchange(step).sent
        beside = [p for p in following if p < limit and self._exchange(p).aside]
        # Which thread asks first is chance: one may ask what another asked when it was recorded.
        if aside:
            of_cell = step in following and self._exchange(following[0]).cell == self._cell
            fitting = beside[:1] or (following[:1] if of_cell and following[0] == step else [])
        else:
            fitting = [p for p in following if self._of_this_cell(p)][:1] or beside[-1:]
        if fitting:
            return fitting[0], True
        before = places[: len(places) - len(following)]
        return (before[-1] if before else following[0] if following else None), False

    def _of_this_cell(self, place: int) -> bool:
        exchange = self._exchange(place)
        return not exchange.aside and self._cell in (None, exchange.cell)

    def _play_to(self, place: int) -> list[Batch]:
        """The batches from here to ``place``, for the streams that the notebook has."""
        played = self._tape.items[self._place : place]
        return [
            Batch(self._streams[item.stream], item.lost, item.data)
            for item in played
            if isinstance(item, Batch) and item.stream in self._streams
        ]

    def _next_step(self) -> int | None:
        return self._first_step_from(self._place)

    def _first_step_from(self, place: int) -> int | None:
        index = bisect.bisect_left(self._steps, place)
        return self._steps[index] if index < len(self._steps) else None

    def _exchange(self, place: int) -> Exchange:
        item = self._tape.items[place]
        assert isinstance(item, Exchange)
        return item

    # -- numbers -----------------------------------------------------------------------------

    def _as_recorded(self, request: framing.Message) -> framing.Message:
        asked = dict(request)
        if "program" in asked:
            asked["program"] = self._programs.get(cast(OfProgram, asked)["program"])
        if "streams" in asked:
            streams = cast(Sync, asked)["streams"]
            asked["streams"] = [self._of_stream.get(each, each) for each in streams]
        return asked

    def _loaded(self, program: int, exchange: Exchange) -> Loaded:
        """The answer to a load, with fresh numbers for the program's streams."""
        ok = cast(Loaded, exchange.said["ok"]).copy()
        self._programs[program] = cast(Load, exchange.asked)["program"]
        ok["maps"] = [each.copy() for each in ok["maps"]]
        for each in ok["maps"]:
            theirs = each["stream"]
            if theirs is not None:
                each["stream"] = ours = next(self._idents)
                self._streams[theirs], self._of_stream[ours] = ours, theirs
        if ok["messages"] is not None:
            self._streams[ok["messages"]] = ok["messages"]
        return ok


def _content(asked: framing.Message) -> str:
    """What a request asks, as text. Of a load the number does not matter: it is a new program."""
    fields = {name: value for name, value in asked.items() if name != "id"}
    if fields["op"] == "load":
        del fields["program"]
    return json.dumps(fields, sort_keys=True)
