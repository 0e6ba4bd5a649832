"""Which notebook cell is running, so that running it again replaces what it made.

Jupyter front ends name the cell in the metadata of each execute request (``cellId``); where one
does not (nbclient), the text of the cell stands for it. Outside a notebook nothing is replaced.
"""

from __future__ import annotations

import weakref
from typing import Any, Protocol


class Closable(Protocol):
    def close(self) -> None: ...


_made: dict[str, tuple[int, list[weakref.ref[Any]]]] = {}


def current() -> tuple[str, int] | None:
    """(identity of the running cell, number of this run), or None outside a notebook."""
    try:
        from IPython.core.getipython import get_ipython
    except ImportError:
        return None
    shell: Any = get_ipython()
    kernel = getattr(shell, "kernel", None)
    if kernel is None:
        return None
    parent = kernel.get_parent("shell") or {}
    cell = parent.get("metadata", {}).get("cellId") or shell.history_manager.input_hist_raw[-1]
    return str(cell), int(shell.execution_count)


def retire() -> None:
    """Close what an earlier run of the running cell made."""
    here = current()
    if here is None:
        return
    run, things = _made.get(here[0], (here[1], []))
    if run == here[1]:
        return
    while things:  # one by one: should one fail, the others are closed the next time
        thing = things.pop()()
        if thing is not None:
            thing.close()
    del _made[here[0]]


def adopt(thing: Closable) -> None:
    """Remember that the running cell made ``thing``."""
    here = current()
    if here is not None:
        _made.setdefault(here[0], (here[1], []))[1].append(weakref.ref(thing))
