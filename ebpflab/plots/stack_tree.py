"""Stacks as a tree: what flame graphs are drawn from, on the screen and on paper.

Stacks that begin alike share their nodes, and a node's value is that of all stacks through it. Of
two captures, ``before`` is kept beside ``value``, each a sum of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
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


def rows(frame: pd.DataFrame) -> Iterator[tuple[tuple[tuple[str, str, str], ...], int]]:
    """((name, kind, module) from the root on, value) of each row.

    A stack is a tuple of ``Frame``, or of plain names, as in ``folded`` text that was read back.
    """
    comms = frame["comm"].tolist() if "comm" in frame else [None] * len(frame)
    for comm, stack, value in zip(comms, frame["stack"], frame["value"].tolist(), strict=True):
        first = [] if comm is None else [(str(comm), "process", "")]
        named = [(each, "user", "") if isinstance(each, str) else tuple(each) for each in stack]
        yield (*first, *named), value


def tree_of(
    frame: pd.DataFrame, before: pd.DataFrame | None = None, least: float = 0
) -> tuple[Node, Pruned]:
    """One tree of all stacks, with those of ``before`` in it, and what is left out of it.

    Left out is every node whose value is below ``least``, and what is in ``before`` alone. Such
    nodes are never made: of half a million, a picture shows three thousand. Sorted stacks that
    begin alike are neighbours, so a node is a range of rows, and its value a difference of sums.

    Functions without a name that stand on one another are one node: where frames are no frames, as
    in code without frame pointers, the kernel walks up to 127 of them, and each of them says
    nothing.
    """
    functions: list[tuple[str, str, str]] = []
    stacks, values, earlier = _numbered(frame, before, functions)
    order = sorted(range(len(stacks)), key=stacks.__getitem__)
    stacks = [stacks[row] for row in order]
    sums = [0, *accumulate(values[row] for row in order)]
    sums_before = [0, *accumulate(earlier[row] for row in order)]
    root = Node("all", "process")
    root.value, root.before = sums[-1], sums_before[-1]
    left_out = [0, 0]

    def grow(node: Node, begin: int, end: int, depth: int) -> None:
        while begin < end and len(stacks[begin]) == depth:
            begin += 1  # ends here, and comes before those that go on
        while begin < end:
            number, next_one = stacks[begin][depth], begin + 1
            while next_one < end and stacks[next_one][depth] == number:
                next_one += 1
            value = sums[next_one] - sums[begin]
            if value and value >= least:
                name, kind, module = functions[number]
                child = node.children[name, kind] = Node(name, kind, module)
                child.value = value
                child.before = sums_before[next_one] - sums_before[begin]
                grow(child, begin, next_one, depth + 1)
            elif value:
                left_out[0] += _distinct(stacks[begin:next_one], depth)
                left_out[1] += value
            begin = next_one

    grow(root, 0, len(stacks), 0)
    return root, Pruned(*left_out)


def _numbered(
    frame: pd.DataFrame, before: pd.DataFrame | None, functions: list[tuple[str, str, str]]
) -> tuple[list[tuple[int, ...]], list[int], list[int]]:
    """Stacks as numbers of ``functions``, which it fills, their values, and those before."""
    stacks, values, earlier = [], [], []
    alike: dict[tuple[str, str], int] = {}  # one function, whichever file it is said to be in
    numbers: dict[tuple[str, str, str], int] = {}
    for source, now in ((frame, True), (before, False)):
        for stack, value in rows(source) if source is not None else ():
            found, last = [], None
            for each in stack:
                if each == last and each[0] == UNKNOWN:
                    continue
                last, number = each, numbers.get(each)
                if number is None:
                    number = numbers[each] = alike.setdefault(each[:2], len(functions))
                    if number == len(functions):
                        functions.append(each)
                found.append(number)
            stacks.append(tuple(found))
            values.append(value if now else 0)
            earlier.append(0 if now else value)
    return stacks, values, earlier


def _distinct(stacks: list[tuple[int, ...]], depth: int) -> int:
    """How many nodes sorted ``stacks`` would make, from ``depth`` on, where they are alike."""
    made, last = 0, stacks[0][:depth]
    for stack in stacks:
        alike = depth
        for one, other in zip(stack[depth:], last[depth:], strict=False):
            if one != other:
                break
            alike += 1
        made, last = made + len(stack) - alike, stack
    return made
