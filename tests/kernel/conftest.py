"""Tests of kernel tracing: in the VM, whose kernel is ours to probe, or where --machine says."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ebpflab import Lab


@pytest.fixture(scope="session")
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with Lab(request.config.getoption("--machine") or "vm") as lab:
        yield lab
