"""Verdicts on exercises: right is right, what is off is named, and the answer is never told."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebpflab import check
from ebpflab.check import Task

TASK = Task(4321, 0, "", {"n": 7, "size": 300})
PID = TASK.pid


class EchoLab:
    """A lab whose commands do nothing but be remembered."""

    def run(self, argv: list[str], env: dict[str, str] | None = None) -> Any:
        self.argv = argv
        return SimpleNamespace(pid=PID, returncode=0, stdout="done")


def problem(verdict: check.Verdict) -> str:
    (found,) = [problem for problem in verdict.problems.values() if problem]
    assert not verdict and "not yet: " in repr(verdict)
    return found


def test_a_workload_gets_secret_counts_that_its_task_does_not_show() -> None:
    lab, drawn = EchoLab(), set()
    for _ in range(60):
        task = check.run(lab, ["/bin/dd", "bs=7", "count={n}", "{other}"], n=(1000, 1003))
        drawn.add(task.value("n"))
        assert lab.argv == ["/bin/dd", "bs=7", f"count={task.value('n')}", "{other}"]
        assert str(task.value("n")) not in repr(task)
    assert drawn == {1000, 1001, 1002, 1003}


def test_a_shell_repeats_a_command_and_starts_nothing_else(tmp_path: Any) -> None:
    import subprocess

    argv = [word.replace("{n}", "13") for word in check.repeated("echo $i")]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(number) for number in range(13)]


@pytest.mark.parametrize("given", [8, "n + 1", "size // 300 + n"])
def test_predictions_are_numbers_or_formulas(given: check.Formula) -> None:
    verdict = check.answers({"rows": given}, {"rows": 8}, TASK)
    assert verdict and repr(verdict) == "right: rows"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (None, "no answer yet"),
        ("m + 1", "no formula of n, size"),
        ("n +", "no formula of n, size"),
        ("'n'", "is no number"),
        ("__import__('os')", "no formula"),
        ([8], "[8] is no number"),
        (True, "True is no number"),
        (float("nan"), "nan is no number"),
        (9, "one too many"),
        (7, "one too few"),
        (16, "twice as much"),
        (30, "too many"),
        (8000, "a thousand times too much"),
    ],
)
def test_predictions_that_are_off_say_how(given: check.Formula | None, said: str) -> None:
    assert said in problem(check.answers({"rows": given}, {"rows": 8}, TASK))


@pytest.mark.parametrize(("given", "said"), [(0, "too few"), (16, "twice as much")])
def test_a_prediction_that_is_off_is_told_nothing_of_probes(given: int, said: str) -> None:
    assert problem(check.answers({"rows": given}, {"rows": 8}, TASK)) == said


@pytest.mark.parametrize("number", [np.int64(8), np.uint32(8), np.float64(8), 8.0])
def test_predictions_may_be_numbers_of_numpy(number: Any) -> None:
    assert check.answers({"rows": number}, {"rows": 8}, TASK)


def test_text_where_there_is_no_secret_is_told_to_leave_the_quotes_out() -> None:
    (said,) = check.answers({"a": "2 * pages"}, {"a": 4}).problems.values()
    assert said == "'2 * pages' is text: leave the quotes out"


def test_each_prediction_has_its_line() -> None:
    verdict = check.answers({"rows": 8}, {"rows": 8, "failures": 3}, TASK)
    assert repr(verdict) == "right: rows\nnot yet: failures: no answer yet"


def test_of_many_counts_those_that_are_off_are_told_and_not_all_of_them() -> None:
    due: dict[int, check.Formula] = dict.fromkeys(range(100, 220), 1)
    assert repr(check.counts(dict.fromkeys(range(100, 220), 1), due)) == "right: all of it"
    one = check.counts({**dict.fromkeys(range(100, 220), 1), 147: 2}, due)
    assert repr(one) == "not yet: the count of 147: one too many"
    lines = repr(check.counts(dict.fromkeys(range(100, 220), 2), due)).splitlines()
    assert len(lines) == 10 and lines[-1] == "and so on"


def test_counts_are_looked_up_among_what_others_made() -> None:
    frame = pd.DataFrame({"key": [1, PID], "value": [99, 7]})
    assert check.counts(frame, {PID: "n"}, TASK)
    assert "other keys" in repr(check.counts(frame, {PID: "n"}, TASK, exactly=True))


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({}, "the table is empty"),
        ({PID: 8}, "the shell itself"),
        ({PID: 14}, "twice as much"),
        ({PID: 0}, "nothing was counted"),
        ({PID << 32 | PID + 2: 7}, ">> 32"),
        ({PID + 2: 7}, "a thread's id"),
        ({12: 7}, "is missing"),
    ],
)
def test_counts_that_are_off_say_how(found: dict[int, int], said: str) -> None:
    slips, mistaken = {"n + 1": "is it the shell itself?"}, {"a thread's id": [PID + 1, PID + 2]}
    assert said in problem(check.counts(found, {PID: "n"}, TASK, slips=slips, mistaken=mistaken))


def test_keys_of_several_columns() -> None:
    frame = pd.DataFrame({"comm": ["dd", "sh"], "slot": [3, 3], "count": [7, 1]})
    assert check.counts(frame, {("dd", 3): "n"}, TASK)


def test_the_counts_of_each_cpu_are_added_up() -> None:
    frame = pd.DataFrame({"key": [PID, PID, 1], "cpu": [0, 1, 0], "value": [3, 4, 9]})
    assert check.counts(frame, {PID: "n"}, TASK)
    named = pd.DataFrame({"comm": ["dd"] * 2, "slot": [3, 3], "cpu": [0, 1], "value": [3, 4]})
    assert check.counts(named, {("dd", 3): "n"}, TASK)
    own = pd.DataFrame({"pid": [PID, PID], "cpu": [0, 1], "value": [3, 4]})  # cpu is of the key
    assert check.counts(own, {(PID, 0): 3, (PID, 1): 4}, TASK, exactly=True)


def test_no_measurement_is_not_told_to_be_too_small() -> None:
    least = pd.Series([], dtype="int64").min()
    assert problem(check.measured("the shortest", least, "n", TASK)) == "nothing was counted"


def test_measurements_may_be_a_little_off_and_units_are_named() -> None:
    due = "n * 1000000"
    assert check.measured("the latency", 7.9e6, due, TASK)
    assert "a million times too much" in problem(check.measured("it", 7.9e12, due, TASK))
    assert "a thousandth" in problem(check.measured("it", 7.1e3, due, TASK))
    assert "twice" in problem(check.measured("it", 14.2e6, due, TASK))
    assert "too few" in problem(check.measured("it", 4e6, due, TASK))


@given(due=st.integers(100, 10**9), got=st.integers(0, 10**12))
def test_no_verdict_holds_the_number_that_was_due(due: int, got: int) -> None:
    task = Task(PID, 0, "", {"n": due})
    verdicts = [
        check.answers({"rows": got}, {"rows": due}, task),
        check.counts({PID: got}, {PID: "n"}, task),
        check.measured("it", got, "n", task),
    ]
    for verdict in verdicts:
        if not verdict:
            assert str(due) not in re.findall(r"\d+", repr(verdict).replace(str(PID), ""))
