"""How the set-up speaks: one line for each step, and one message where it cannot go on."""

from __future__ import annotations


class Stop(Exception):
    """A step cannot be done here. The message says what to do instead."""


def say(text: str) -> None:
    print(f"==> {text}", flush=True)
