"""Exercises, checked by what a workload has made in the kernel and not by their text.

    run      a workload with secret random counts      -> Task
    answers  predictions, against what was counted     -> Verdict
    counts   a learner's own table, against the secrets -> Verdict
    measured a learner's own measurement, likewise      -> Verdict

The workload's words hold names in braces, and `run` draws a number for each, so an answer has to be
counted: another run has other numbers. A Verdict is true or false, and says what is off ("one too
many", "a million times too much") without ever holding the number that was due.

>>> task = check.run(lab, check.repeated("/bin/true"), n=(4, 9))
>>> steps = prog["steps"].collect()
>>> execs = steps[(steps["what"] == "exec") & (steps["comm"] == "true")]
>>> check.answers({"execs": "n"}, {"execs": len(execs)}, task)
right: execs
>>> check.answers({"execs": "n + 1"}, {"execs": len(execs)}, task)
not yet: execs: one too many
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
    """A workload that has run; ``secrets`` are its counts, which are not shown.

    Made by `run`. ``pid`` is its process id on the traced machine, ``returncode`` its exit status
    and ``stdout`` its text.

    >>> Task(7, 0, "", {"n": 12})
    Task(pid=7, returncode=0, stdout='')
    """

    pid: int
    returncode: int
    stdout: str
    secrets: Mapping[str, int] = field(default_factory=dict, repr=False)

    def value(self, formula: Formula) -> Number:
        """Return the number that a formula of the secrets comes to.

        ``formula`` is a number, or arithmetic as text. Raises ValueError where it is neither.

        >>> Task(7, 0, "", {"n": 12}).value("2 * n + 1")
        25
        """
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
    """Whether an exercise is done, and what is off; true where all of it is right.

    It prints a line for each thing that was looked at. ``problems`` has what is off with each, or
    None.

    >>> answers({"rows": 3, "losses": 0}, {"rows": 4, "losses": 0})
    not yet: rows: one too few
    right: losses
    """

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
    """Run a command on the traced machine, with secret random numbers in its words.

    ``argv`` and ``env`` are those of `Lab.run`. Each keyword of ``secrets`` is a pair, the lowest
    and the highest number; the number that is drawn replaces ``{name}`` in each word. Returns a
    `Task`. Raises what `Lab.run` raises.

    >>> check.run(lab, check.repeated("/bin/true"), n=(4, 9)).returncode
    0
    """
    drawn = {name: random.randint(*limits) for name, limits in secrets.items()}
    done = lab.run([_filled(word, drawn) for word in argv], env=env)
    return Task(done.pid, done.returncode, done.stdout, drawn)


def repeated(command: str, times: str = "{n}") -> list[str]:
    """Return the words of a shell that runs ``command`` ``times`` times, and starts nothing else.

    ``times`` is a number as text, or a secret's name in braces. Counting is done by builtins, and
    the last ``:`` keeps the shell from becoming the last command. The counter is ``$i``, from 0 on.

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

    ``given`` has the predictions: a number, a formula of the task's secrets, or None for none yet.
    ``seen`` has the numbers that were counted, and ``task`` the secrets. ``within`` is the part by
    which a prediction may be off: 0.1 is 10 %. Returns a `Verdict`, which does not show the numbers
    of ``seen``.

    >>> answers({"rows": "2 * n"}, {"rows": 24}, Task(7, 0, "", {"n": 12}))
    right: rows
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

    ``found`` is a table's frame, its last column the counts, or a mapping of keys to counts; those
    of a per-CPU table are added up. ``due`` has the formula for each key, and ``task`` the secrets.
    ``slips`` says what a wrong count means: formula to words; ``mistaken`` what a wrong key is:
    words to keys. Other keys than those of ``due`` are ignored, since the machine does other
    things, too; with ``exactly``, they are a mistake.

    Returns a `Verdict`. Raises ValueError for a text that is not a formula.

    >>> counts({7: 13}, {7: "n"}, Task(7, 0, "", {"n": 12}))
    not yet: the count of 7: one too many
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
    """Compare a measurement with what is due by the secrets.

    ``what`` names it, ``found`` is the measurement, ``due`` a formula of the secrets of ``task``,
    in the same unit. ``within`` is the part by which it may be off: 0.25 is 25 %. Returns a
    `Verdict`. Raises ValueError where ``due`` is not a formula.

    >>> measured("the median, in ms", 41e6, "n", Task(7, 0, "", {"n": 40}))
    not yet: the median, in ms: a million times too much: ...
    """
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
