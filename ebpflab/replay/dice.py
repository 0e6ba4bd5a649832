"""The same random numbers when a chapter is played as when it was recorded.

Exercises run workloads of a random size. A recording knows one size of each, so while one is made
or played, `random` begins anew with each cell: cells can then be run again and in any order.
"""

from __future__ import annotations

import random
from typing import Any


class Dice:
    """Seeds `random` at once and before each cell of the notebook, until it is closed."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._events = _events_of_cells()
        if self._events is not None:
            self._events.register("pre_run_cell", self._throw)
            self._throw()

    def close(self) -> None:
        if self._events is not None:
            self._events.unregister("pre_run_cell", self._throw)
            self._events = None

    def _throw(self, *_: object) -> None:
        random.seed(self._seed)


def _events_of_cells() -> Any:
    """Where IPython tells of cells; None outside of a notebook."""
    try:
        from IPython.core.getipython import get_ipython
    except ImportError:
        return None
    shell: Any = get_ipython()
    return shell.events if getattr(shell, "kernel", None) is not None else None
