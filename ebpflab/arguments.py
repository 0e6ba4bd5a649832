"""Arguments that readers give: checked in words before anything is touched.

Whole numbers may be numpy's, and paths pathlib's, with bytes that are not UTF-8.
"""

from __future__ import annotations

import math
import operator
import os
from typing import Any


def whole(name: str, value: Any, least: int | None = None, of: str = "a whole number") -> int:
    """A whole number of at least ``least``. Raises ValueError for anything else.

    >>> whole("rows", 3, 0)
    3
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or (least is not None and number < least):
        at_least = "" if least is None else f", {least} or more"
        meant = _meant(value) if number is None else ""
        raise ValueError(f"{name}= is {of}{at_least}, and is {value!r}.{meant}")
    return number


def seconds(name: str, value: Any) -> float:
    """How long to wait, in seconds. Raises ValueError for less than nothing, and for no number.

    >>> seconds("seconds", 0.5)
    0.5
    """
    try:
        number = math.nan if isinstance(value, str | bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not number >= 0:
        raise ValueError(f"{name}= is how long to wait, 0 or more seconds, and is {value!r}.")
    return number


def process(name: str, value: Any) -> int:
    """The number of a process, or -1 for all. Raises ValueError for anything else.

    >>> process("pid", -1)
    -1
    """
    number = whole(name, value, of="the number of a process, or -1 for all")
    if number < 1 and number != -1:
        raise ValueError(f"{name}= is the number of a process, or -1 for all, and is {number}.")
    return number


def path(name: str, value: Any) -> str:
    """A path as text. Raises ValueError for what is none.

    >>> import pathlib
    >>> path("name", pathlib.PurePosixPath("/bin/ls"))
    '/bin/ls'
    """
    if isinstance(value, str | bytes | os.PathLike):
        return os.fsdecode(value)
    raise ValueError(f"{name}= is a path, and is {value!r}.")


def environment(value: Any) -> dict[str, str] | None:
    """What is added to a command's environment. Raises ValueError where that is not text.

    >>> environment({"LANG": "C"})
    {'LANG': 'C'}
    """
    if value is None:
        return None
    given = dict(value)
    for name, text in given.items():
        if not isinstance(name, str) or not isinstance(text, str | os.PathLike):
            raise ValueError(
                f"env= is names and texts, and has {name!r}: {text!r}. Write {str(name)!r}:"
                f" {str(text)!r}."
            )
    return {name: os.fspath(text) for name, text in given.items()}


def _meant(value: Any) -> str:
    """The number that was meant, where there is one."""
    try:
        number = int(value)
        return f" Write {number}." if not isinstance(value, bool) and number == float(value) else ""
    except (TypeError, ValueError, OverflowError):
        return ""
