"""A target that keeps a tape of another target's wire."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ebpflab.replay.dice import Dice
from ebpflab.replay.recorder import RecordingTransport
from ebpflab.replay.tape import Item, Tape
from ebpflab.transport.base import Progress, Target, Transport

Naming = Callable[[list[str]], list[list[str]]]
"""From the cells that asked something, as `cells.current` tells them, to all names of each."""


class RecordingTarget(Target):
    """``inner``, with all that crosses its wire written to ``path`` when the lab is closed."""

    def __init__(self, inner: Target, path: Path, seed: int, naming: Naming, **facts: Any) -> None:
        self.name, self._inner, self._path, self._naming = inner.name, inner, path, naming
        self._header = {**facts, "target": inner.name, "seed": seed}

    def unavailable(self) -> str | None:
        return self._inner.unavailable()

    def connect(self, progress: Progress) -> Transport:
        transport = self._inner.connect(progress)
        self._header["date"] = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self._dice = Dice(self._header["seed"])
        return RecordingTransport(transport, self._keep)

    def _keep(self, hello: dict[str, Any], runs: list[tuple[str, int]], items: list[Item]) -> None:
        self._dice.close()
        cells = self._naming([identity for identity, _ in runs])
        Tape({**self._header, "hello": hello, "cells": cells}, items).save(self._path)
