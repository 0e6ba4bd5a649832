"""Stacks as a tree: what flame graphs are drawn from, on the screen and on paper.

Stacks that begin alike share their nodes, and a node's value is that of all stacks through it. Of
two captures, ``before`` is kept beside ``value``, each a sum of its own.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import pandas as pd

UNKNOWN, LOST = "[unknown]", "[lost]"
"""What ``Program.stacks`` calls a function without a name, and a stack that was not kept."""


class Pruned(NamedTuple):
    """What is too narrow to be seen: how many functions, and their value."""

    functions: int
    value: float


class Node:
    """A function, reached by one way. The root's children are the commands."""

    __slots__ = ("before", "children", "kind", "module", "name", "value")

    def __init__(self, name: str, kind: str = "user", module: str = "") -> None:
        self.name, self.kind, self.module = name, kind, module
        self.value = self.before = 0
        self.children: dict[tuple[str, str], Node] = {}

    def sorted(self) -> list[Node]:
        """The functions called from here, by name: their place does not depend on the sample."""
        return sorted(self.children.values(), key=lambda node: (node.name, node.kind))

    def depth(self) -> int:
        """How many rows it takes to draw this node and all above it."""
        return 1 + max((child.depth() for child in self.children.values()), default=0)

    def count(self) -> int:
        return 1 + sum(child.count() for child in self.children.values())


def rows(frame: pd.DataFrame) -> Iterator[tuple[tuple[tuple[str, str, str], ...], int]]:
    """((name, kind, module) from the root on, value) of each row.

    A stack is a tuple of ``Frame``, or of plain names, as in ``folded`` text that was read back.
    """
    comms = frame["comm"].tolist() if "comm" in frame else [None] * len(frame)
    for comm, stack, value in zip(comms, frame["stack"], frame["value"].tolist(), strict=True):
        first = [] if comm is None else [(str(comm), "process", "")]
        named = [(each, "user", "") if isinstance(each, str) else tuple(each) for each in stack]
        yield (*first, *named), value


def tree_of(frame: pd.DataFrame, before: pd.DataFrame | None = None) -> Node:
    """One tree of all stacks, with those of ``before`` in it.

    Functions without a name that stand on one another are one node: where frames are no frames, as
    in code without frame pointers, the kernel walks up to 127 of them, and each of them says
    nothing.
    """
    root = Node("all", "process")
    with _no_garbage():
        for source, attribute in ((frame, "value"), (before, "before")):
            for stack, value in rows(source) if source is not None else ():
                node = root
                setattr(node, attribute, getattr(node, attribute) + value)
                for name, kind, module in stack:
                    if name == UNKNOWN == node.name and module == node.module:
                        continue
                    child = node.children.get((name, kind))
                    if child is None:
                        child = node.children[name, kind] = Node(name, kind, module)
                    setattr(child, attribute, getattr(child, attribute) + value)
                    node = child
    return root


@contextmanager
def _no_garbage() -> Iterator[None]:
    """Keep the collector away: it would look at half a million new nodes, again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def prune(node: Node, least: float) -> Pruned:
    """Take away every node whose value is below ``least``; nodes of ``before`` alone as well."""
    functions, value = 0, 0.0
    for key, child in list(node.children.items()):
        if child.value < least or child.value == 0:
            del node.children[key]
            functions += child.count() if child.value else 0
            value += child.value
        else:
            below = prune(child, least)
            functions, value = functions + below.functions, value + below.value
    return Pruned(functions, value)
