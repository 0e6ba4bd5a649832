"""A line each minute of a parallel run: how far it is, and how long the rest will take."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterable

import parallel
import pytest

_EVERY_SECONDS = 60


class TimeLeft:
    """Compares the time that groups of tests take with the time that they took before.

    The estimate assumes that this machine stays as fast as it was so far, compared with that, and
    that all workers are busy to the end.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._known = parallel.seconds(config)
        self._workers = len(config.option.tx)
        self._left = Counter[str]()  # tests of each group
        self._spent = defaultdict[str, float](float)
        self._running: dict[str, float] = {}
        self._done = self._failed = 0
        self._began = self._told = time.monotonic()

    def pytest_xdist_node_collection_finished(self, ids: Iterable[str]) -> None:
        """Count the tests; every worker collects the same."""
        self._left = Counter(map(parallel.group_of, ids))

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._running[nodeid] = time.monotonic()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._spent[parallel.group_of(report.nodeid)] += report.duration
        self._failed += report.failed

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self._running.pop(nodeid, None)
        self._left[parallel.group_of(nodeid)] -= 1
        self._done += 1
        if time.monotonic() - self._told >= _EVERY_SECONDS:
            self._told = time.monotonic()
            self._tell()

    def _tell(self) -> None:
        left = +self._left  # without the groups that are through
        total = sum(parallel.expected(self._known, group) for group in self._left)
        to_do = sum(
            max(0.0, parallel.expected(self._known, group) - self._spent[group]) for group in left
        )
        pace = sum(self._spent.values()) / max(total - to_do, 1.0)
        minutes = to_do * pace / self._workers / 60
        running = ", ".join(
            f"{nodeid.removeprefix('tests/')} ({self._told - since:.0f} s)"
            for nodeid, since in self._running.items()
        )
        self._config.pluginmanager.getplugin("terminalreporter").write_line(
            f"\n{(self._told - self._began) / 60:.0f} min: {self._done:,} of"
            f" {self._done + left.total():,} tests have run, {self._failed} failed;"
            f" about {max(minutes, 1):.0f} min to go. Running: {running}"
        )

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Keep the times of a whole run, for the order and the estimate of the next."""
        whole = self._config.args_source is pytest.Config.ArgsSource.TESTPATHS
        chosen = self._config.option.keyword or self._config.option.markexpr
        if whole and not chosen and not +self._left and self._config.cache is not None:
            took = {group: round(self._spent[group], 1) for group in sorted(self._left)}
            self._config.cache.set(parallel.CACHED_SECONDS, took)
