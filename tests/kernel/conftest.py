"""Tests of kernel tracing: in the VM alone, whose kernel is ours to probe."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ebpflab import Lab


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    with Lab("vm") as lab:
        yield lab
