"""What every test shares: which tests this machine cannot run, and why."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

# A slow machine is not a wrong answer.
settings.register_profile("ebpflab", deadline=None)
settings.load_profile("ebpflab")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `local` attach probes on this machine, which takes root."""
    if os.geteuid() == 0:
        return
    skip = pytest.mark.skip(reason="attaches probes on this machine: run `sudo make test`")
    for item in items:
        if item.get_closest_marker("local"):
            item.add_marker(skip)
