"""The agent's modules, which import their neighbours by their plain names: its folder is flat."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest

AGENT = Path(__file__).parents[1] / "ebpflab" / "agent"


@contextmanager
def agent_module(name: str) -> Iterator[ModuleType]:
    """The module of that name, with its folder on the path for what it imports later."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(AGENT), *sys.path])
        yield importlib.import_module(name)
