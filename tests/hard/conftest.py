"""A hard life: what a lab stands, and what is left when it does not.

Each test says in its name what must hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from counting import Counted


@pytest.fixture
def counted() -> Iterator[Callable[[str], Counted]]:
    """Makes labs with a counted program, and closes them with the test."""
    made: list[Counted] = []

    def make(target: str) -> Counted:
        made.append(Counted(target))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture(scope="session")
def guest() -> Iterator[Counted]:
    """One guest for all tests that leave theirs as they found it."""
    it = Counted("vm")
    yield it
    it.close()


@pytest.fixture
def measured(record_property: Callable[[str, Any], None]) -> Callable[[str, Any], None]:
    """``measured(what, value)`` puts a figure into the report."""
    return record_property
