"""Exercises, checked by what a workload has made in the kernel and not by their text.

    run      a workload with secret random counts      -> Task
    answers  predictions, against what was counted     -> Verdict
    counts   a learner's own table, against the secrets -> Verdict
    measured a learner's own measurement, likewise      -> Verdict

The workload's words hold names in braces, `run` draws a number for each, and whoever wants to be
right must count: another run has other numbers. A Verdict is true or false, and says what is off
("one too many", "a million times too much") without ever holding the number that was due.

>>> task = check.run(lab, ["/bin/dd", "bs=7", "count={n}"], n=(5, 40))      # doctest: +SKIP
>>> check.counts(prog["writes"].frame(), {task.pid: "n"}, task)             # doctest: +SKIP
"""

from __future__ import annotations

import math
import numbers
import random
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import pandas as pd

if TYPE_CHECKING:
    from ebpflab.lab import Lab

__all__ = ["Task", "Verdict", "answers", "counts", "measured", "repeated", "run"]

Number = int | float
Formula = int | float | str
"""A number, or arithmetic with the names of a task's secrets: ``"2 * n + 1"``."""

_FACTORS = {
    1e3: "a thousand times too much: nanoseconds where microseconds are meant, or the like?",
    1e6: "a million times too much: nanoseconds where milliseconds are meant, or the like?",
    1e9: "a thousand million times too much: nanoseconds where seconds are meant?",
    1e-3: "a thousandth of it: microseconds where nanoseconds are meant, or the like?",
    1e-6: "a millionth of it: milliseconds where nanoseconds are meant, or the like?",
    1e-9: "a thousand-millionth of it: seconds where nanoseconds are meant?",
}
_BOTH_IDS = (
    "the key is the whole of bpf_get_current_pid_tgid(), which is two ids: the process is its"
    " upper half (>> 32)"
)
_EMPTY = (
    "the table is empty: is the function attached, and does every way through it get as far as"
    " the line that counts?"
)
_MOST_LINES = 9
"""Of a Verdict: where there are more, what is right is not told one by one."""
_NOTHING = "nothing was counted"
_TWICE = "twice as much"
_COUNTED_TWICE = f"{_TWICE}: are entries and returns both counted, or is it attached twice?"


@dataclass(frozen=True)
class Task:
    """A workload that has run; ``secrets`` are its counts, which are not shown."""

    pid: int
    returncode: int
    stdout: str
    secrets: Mapping[str, int] = field(default_factory=dict, repr=False)

    def value(self, formula: Formula) -> Number:
        """What a formula comes to with the secrets. Raises ValueError where it is none."""
        if not isinstance(formula, str):
            return _number(formula, repr(formula))
        try:
            value = eval(formula, {"__builtins__": {}}, dict(self.secrets))  # the learner's own
        except Exception as error:
            if not self.secrets:
                raise ValueError(f"{formula!r} is text: leave the quotes out") from None
            names = ", ".join(self.secrets)
            raise ValueError(f"{formula!r} is no formula of {names} ({error})") from None
        return _number(value, repr(formula))


class Verdict:
    """Whether an exercise is done, and what is off; true where all of it is right."""

    def __init__(self, problems: Mapping[str, str | None]) -> None:
        self.problems = dict(problems)
        """What was looked at, and what is off with it; None where it is right."""

    def __bool__(self) -> bool:
        return all(problem is None for problem in self.problems.values())

    def __repr__(self) -> str:
        lines = [
            f"right: {what}" if problem is None else f"not yet: {what}: {problem}"
            for what, problem in self.problems.items()
        ]
        if len(lines) > _MOST_LINES:
            wrong = [line for line in lines if line.startswith("not yet")]
            more = ["and so on"] if len(wrong) > _MOST_LINES else []
            lines = [*wrong[:_MOST_LINES], *more] or ["right: all of it"]
        return "\n".join(lines)


def run(
    lab: Lab,
    argv: Sequence[str],
    *,
    env: dict[str, str] | None = None,
    **secrets: tuple[int, int],
) -> Task:
    """Run a command on the traced machine, ``{name}`` in its words being a secret random number.

    Each of ``secrets`` is a lowest and a highest number. Raises what `Lab.run` raises.
    """
    drawn = {name: random.randint(*limits) for name, limits in secrets.items()}
    done = lab.run([_filled(word, drawn) for word in argv], env=env)
    return Task(done.pid, done.returncode, done.stdout, drawn)


def repeated(command: str, times: str = "{n}") -> list[str]:
    """A shell that runs ``command`` so many times, and starts nothing else.

    Counting is done by builtins, and the last ``:`` keeps the shell from becoming the last
    command. The counter is ``$i``, from 0 on.

    >>> repeated("/bin/true")[:2]
    ['/bin/sh', '-c']
    """
    return ["/bin/sh", "-c", f"i=0; while [ $i -lt {times} ]; do {command}; i=$((i + 1)); done; :"]


def answers(
    given: Mapping[str, Formula | None],
    seen: Mapping[str, Number],
    task: Task | None = None,
    *,
    within: float = 0.0,
) -> Verdict:
    """Compare predictions with what the kernel has seen, by the same names.

    A prediction is a number, a formula of the task's secrets, or None for none yet. ``within`` is
    the part by which it may be off. What was seen is not told.
    """
    task = task or Task(0, 0, "")
    return Verdict({what: _judged(given.get(what), seen[what], task, within) for what in seen})


def counts(
    found: pd.DataFrame | Mapping[Hashable, Number],
    due: Mapping[Hashable, Formula],
    task: Task | None = None,
    *,
    slips: Mapping[str, str] | None = None,
    mistaken: Mapping[str, Collection[Hashable]] | None = None,
    exactly: bool = False,
) -> Verdict:
    """Compare a table that the learner's program has filled with what is due by the secrets.

    ``found`` is a table's frame, its last column the counts; those of a per-CPU table are added
    up. ``slips`` tells what a wrong count means: formula to words; ``mistaken`` what a wrong key
    is: words to keys. Other keys than those of ``due`` are let pass, since the machine does other
    things, too, unless ``exactly``.
    """
    table, task = _mapping(found, _words(due)), task or Task(0, 0, "")
    if not table:
        return Verdict({"your table": _EMPTY})
    problems: dict[str, str | None] = {}
    for key, formula in due.items():
        if key in table:
            wrong = _wrong_count(table[key], task.value(formula), task, slips or {})
            problems[f"the count of {key!r}"] = wrong
        else:
            problems["the keys"] = _wrong_key(key, table, mistaken or {})
    if exactly and set(table) - set(due):
        problems["the other keys"] = "there is a key that no part of the workload has made"
    return Verdict(problems)


def measured(
    what: str, found: Number, due: Formula, task: Task, *, within: float = 0.25
) -> Verdict:
    """Compare a measurement with what is due by the secrets, give or take the part ``within``."""
    return Verdict({what: _off(found, task.value(due), within)})


def _number(value: object, said: str) -> Number:
    """The number, be it one of numpy. Raises ValueError where it is none."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or math.isnan(value):
        raise ValueError(f"{said} is no number")
    return cast(Number, value)


def _filled(word: str, secrets: Mapping[str, int]) -> str:
    for name, number in secrets.items():
        word = word.replace("{" + name + "}", str(number))
    return word


def _words(due: Mapping[Hashable, Formula]) -> int:
    """Of how many columns a key is."""
    return max((len(key) if isinstance(key, tuple) else 1 for key in due), default=1)


def _mapping(found: pd.DataFrame | Mapping[Hashable, Number], words: int) -> dict[Hashable, Number]:
    if not isinstance(found, pd.DataFrame):
        return dict(found)
    if "cpu" in found and len(found.columns) == words + 2:  # its key, the CPU, the count
        names = [name for name in found if name != "cpu"]
        found = found[names].groupby(names[:-1], sort=False, as_index=False).sum()
    *keys, values = (found[column].tolist() for column in found)
    return dict(zip(keys[0] if len(keys) == 1 else zip(*keys, strict=True), values, strict=True))


def _judged(given: Formula | None, seen: Number, task: Task, within: float) -> str | None:
    """What is off with a prediction, for which nothing was counted or attached."""
    if given is None:
        return "no answer yet"
    try:
        predicted = task.value(given)
    except ValueError as error:
        return str(error)
    return _off(predicted, seen, within, nothing="too few", twice=_TWICE)


def _wrong_count(got: Number, due: Number, task: Task, slips: Mapping[str, str]) -> str | None:
    if got == due:
        return None
    for formula, meaning in slips.items():
        if got == task.value(formula):
            return meaning
    return _off(got, due, 0.0)


def _wrong_key(
    key: Hashable, table: Mapping[Hashable, Number], mistaken: Mapping[str, Collection[Hashable]]
) -> str:
    for meaning, keys in mistaken.items():
        if set(keys) & set(table):
            return meaning
    ids = [other for other in table if isinstance(other, int)]
    if isinstance(key, int) and any(other >> 32 == key > 0 for other in ids):
        return _BOTH_IDS
    return "one that the workload must have made is missing"


def _off(
    got: Number, due: Number, within: float, nothing: str = _NOTHING, twice: str = _COUNTED_TWICE
) -> str | None:
    """What is off, in words that do not give away ``due``."""
    if math.isclose(got, due, rel_tol=0, abs_tol=within * abs(due)):
        return None
    if got == 0 or math.isnan(got):  # as the least of no rows is
        return nothing
    for factor, meaning in _FACTORS.items():
        if due and math.isclose(got, factor * due, rel_tol=max(within, 1e-9)):
            return meaning
    if not within and abs(got - due) == 1:
        return "one too many" if got > due else "one too few"
    if due and math.isclose(got, 2 * due, rel_tol=within / 2):
        return twice
    return "too many" if got > due else "too few"
