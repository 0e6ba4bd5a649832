"""What every test shares: which tests this machine cannot run, the pages that tests write, and
the workers of a parallel run."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import parallel
import pytest
from hypothesis import settings
from time_left import TimeLeft

from ebpflab import vm

# A slow machine is not a wrong answer.
settings.register_profile("ebpflab", deadline=None)
settings.load_profile("ebpflab")

DOCS = Path(__file__).parents[1] / "docs"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--write-docs",
        action="store_true",
        help="write the pages of docs/ that tests generate, instead of comparing with them",
    )
    parser.addoption(
        "--machine",
        metavar="ssh://USER@HOST",
        help="trace that machine in tests/contract -k ssh, tests/kernel and tests/notebooks",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Ctrl-C interrupts, here and in all that tests start, as it does for a reader. A shell that
    starts the tests in the background has told them to ignore it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.option.numprocesses:
        config.pluginmanager.register(TimeLeft(config))


def pytest_xdist_auto_num_workers() -> int:
    return int(os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS") or parallel.workers())


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> parallel.LongestFirst | None:
    return parallel.LongestFirst(config, log) if config.option.dist == "load" else None


@pytest.hookimpl(wrapper=True, tryfirst=True)  # so that its time-out does not begin before its turn
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    with parallel.turn(item):
        return (yield)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `local` attach probes on this machine, which takes root."""
    if os.geteuid() == 0:
        return
    skip = pytest.mark.skip(reason="attaches probes on this machine: run `sudo make test`")
    for item in items:
        if item.get_closest_marker("local"):
            item.add_marker(skip)


@pytest.fixture(scope="session")
def image() -> str:
    """The hash of an image of the guest that is built and warm."""
    if reason := vm.unavailable():
        pytest.skip(f"no guest here: {reason}")
    return vm.build(print).name


@pytest.fixture
def committed(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compare a page with the committed one of that name in docs/; --write-docs writes it."""

    def check(name: str, text: str) -> None:
        if request.config.getoption("--write-docs"):
            (DOCS / name).write_text(text)
        assert (DOCS / name).read_text() == text, f"docs/{name} is stale: pytest --write-docs"

    return check
