"""Tests that boot the real guest. The first run ever builds its image, in a minute or two."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from ebpflab import vm
from ebpflab.transport import archive
from ebpflab.vm.guest import Guest

Start = Callable[[str], Guest]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(__file__.rpartition("/")[0]):
            item.add_marker(pytest.mark.vm)
            item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="session", autouse=True)
def built(image: str) -> None:
    """Each of them boots it."""


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts guests that run a program in the agent's place; ends them with the test."""
    guests: list[Guest] = []

    def start_one(program: str) -> Guest:
        guest = vm.start(print, archive.parcel({"__main__.py": program.encode()}))
        guest.wire.settimeout(60)
        guests.append(guest)
        return guest

    yield start_one
    for guest in guests:
        guest.close()
