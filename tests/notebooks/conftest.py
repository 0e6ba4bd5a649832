"""Chapters say ``Lab()``; in tests that is the VM, or --machine, never the one that runs them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def trace_the_vm(request: pytest.FixtureRequest) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EBPFLAB_TARGET", request.config.getoption("--machine") or "vm")
        yield
