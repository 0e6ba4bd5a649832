"""The load test of the hub: what it leaves where the hub fails."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
from processes import wait_for_end

HUB = Path(__file__).parents[2] / "classroom" / "hub"
# As jupyterhub does: its proxy has a session of its own, and outlives a hub that fails.
FAILING = """#!/bin/sh
setsid sleep 1000 &
echo $! > "$EBPFLAB_HUB_FOLDER/proxy.pid"
echo "no such spawner" >&2
exit 1
"""


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(HUB))
    return importlib.import_module("load")


def test_a_hub_that_fails_leaves_no_proxy(
    load: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "python"
    program.write_text(FAILING)
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    with pytest.raises(SystemExit, match="no such spawner"), load.hub(tmp_path, "password"):
        pass
    assert wait_for_end([int((tmp_path / "proxy.pid").read_text())]) == set()
