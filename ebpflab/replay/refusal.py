"""What a recording says when it is asked for what it does not hold."""

from __future__ import annotations

import difflib
import shlex
from typing import cast

from ebpflab.protocol import framing
from ebpflab.protocol.messages import FaultMessage, Start
from ebpflab.replay.tape import Exchange, Tape

_CUT = 200  # characters of a command, or of a line of C


def refusal(tape: Tape, asked: framing.Message) -> FaultMessage:
    """The fault for a request that was never recorded."""
    if asked["op"] == "load":
        what = _program(tape, str(asked["source"]))
    elif asked["op"] == "start":
        what = _command(tape, cast(Start, asked)["argv"])
    else:
        shown = {name: value for name, value in asked.items() if name not in ("op", "id")}
        what = f"It was never asked for {asked['op']!r} with {_short(str(shown))}."
    kernel, date = tape.header["hello"]["kernel"], tape.header["date"][:10]
    message = (
        f"Nothing is traced here: this lab plays a recording of Linux {kernel}, made on {date}."
        f" {what}\n"
        "It answers only what was asked when it was made. For anything else trace a kernel:"
        ' Lab("vm"), or Lab("local"); `ebpflab doctor` names what they miss here.'
    )
    return {"type": "NotRecorded", "message": message, "detail": {}}


def _program(tape: Tape, source: str) -> str:
    programs = tape.programs
    first = (
        f"replay has no recording of this C program with these flags; it has {len(programs)}"
        " programs."
    )
    if source in programs:
        return f"{first} One has the same text, with other cflags, headers or USDT probes."
    matches = difflib.get_close_matches(source, programs, n=1, cutoff=0.3)
    if not matches:
        return first
    recorded, yours = matches[0].splitlines(), source.splitlines()
    pairs = zip([*recorded, ""], [*yours, ""], strict=False)
    line = next((i for i, (a, b) in enumerate(pairs, 1) if a != b), 1)
    one, other = (
        _short(text[line - 1].strip()) if line <= len(text) else "(the end)"
        for text in (recorded, yours)
    )
    return (
        f"{first} The closest one differs from line {line} on:\n"
        f"  recorded: {one}\n  yours:    {other}"
    )


def _command(tape: Tape, argv: list[str]) -> str:
    exchanges = (item for item in tape.items if isinstance(item, Exchange))
    ran = [shlex.join(cast(Start, e.asked)["argv"]) for e in exchanges if e.asked["op"] == "start"]
    wanted = shlex.join(argv)
    matches = difflib.get_close_matches(wanted, list(dict.fromkeys(ran)), n=1, cutoff=0.3)
    closest = f" The closest one is\n  {_short(matches[0])}" if matches else ""
    return f"The command\n  {_short(wanted)}\nwas not run when it was made.{closest}"


def _short(text: str) -> str:
    return text if len(text) <= _CUT else f"{text[:_CUT]}..."
