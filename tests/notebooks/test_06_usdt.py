"""Chapter 06 on a real kernel, in the VM: what a reader would see, and that it is true."""

from __future__ import annotations

import re

import pytest
from chapters import Chapter, run

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1800)]

SOLUTION = '''my_source = r"""
#include <uapi/linux/ptrace.h>

struct word {
    char text[8];
};
BPF_HASH(words, struct word, u64);

int on_step(struct pt_regs *ctx) {
    struct word word = {};
    u64 address = 0;
    bpf_usdt_readarg(2, ctx, &address);
    bpf_probe_read_user_str(word.text, sizeof(word.text), (void *)address);
    words.increment(word);
    return 0;
}
"""'''


@pytest.fixture(scope="module")
def usdt() -> Chapter:
    shown = {
        "probes": "probes",
        "steps-run": "steps",
        "cost-plot": "each",
        "by-pid-run": "rows",
        "audit-run": "audits",
        "book-run": "messages",
    }
    return run("06-usdt", show=shown)


def test_no_cell_writes_to_stderr(usdt: Chapter) -> None:
    for name, cell in usdt.cells.items():
        streams = [output.get("name") for output in cell.get("outputs", [])]
        assert "stderr" not in streams, name


def test_the_notes_are_those_that_readelf_shows(usdt: Chapter) -> None:
    assert "DTRACE_PROBE3(usdt_loop, step, n, words[n % 5], total)" in usdt.text("source")
    probes = usdt.frame("probes")
    assert list(probes["probe"]) == ["step", "done"] and set(probes["semaphore"]) == {0}
    told = usdt.text("readelf")
    assert re.findall(r"Arguments: (.*)", told) == list(probes["arguments"])
    found = [int(value, 16) for value in re.findall(r"Location: (0x\w+)", told)]
    assert found == list(probes["address"])
    nop = "d503201f" if usdt.on_arm64 else "90"
    assert re.search(rf"^\s+[0-9a-f]+:\s+{nop}\s+nop$", usdt.text("nop"), re.MULTILINE)


def test_every_step_is_a_row_with_its_arguments(usdt: Chapter) -> None:
    steps = usdt.frame("steps-run")
    words = ["one", "two", "three", "five", "seven"]
    assert list(steps["n"]) == [*range(1009)]
    assert list(steps["word"]) == [words[n % 5] for n in range(1009)]
    assert steps["total"][2] == 12_884_901_891
    assert "12,884,901,891" in usdt.cells["steps-reading"].source
    assert f"prepared 1009, total {steps['total'].iloc[-1]}" in usdt.text("steps-said")


def test_a_step_is_timed_off_and_on(usdt: Chapter) -> None:
    each = usdt.frame("cost-plot")
    assert list(each["probe"]) == ["off", "on"]
    assert re.search(r"on, a step takes -?[\d,]+ times as long", usdt.text("cost-times"))


def test_steps_are_prepared_while_somebody_listens(usdt: Chapter) -> None:
    assert "prepared 0," in usdt.text("semaphores-off")
    by_path = usdt.text("by-path-run")
    assert re.findall(r"prepared (\d+)", by_path) == ["1009", "0"] and "1009 rows" in by_path
    assert re.findall(r"prepared (\d+)", usdt.text("by-pid-run")) == ["211", "0"]
    rows = usdt.frame("by-pid-run")
    assert len(rows) == 211 and rows["pid"].nunique() == 1


def test_software_that_is_there_has_probes(usdt: Chapter) -> None:
    found = usdt.text("look")
    assert re.search("^/usr/bin/python3: .*gc__start", found, re.MULTILINE)
    assert re.search(r"libstdc\+\+\.so\S*: .*throw", found)
    audits = usdt.frame("audit-run")["event"].value_counts()
    assert audits["open"] > 13


def test_the_books_program_and_its_repair(usdt: Chapter) -> None:
    assert '"hello-usdt"' in usdt.text("book-program")
    assert '"probe-main"' in usdt.text("book-program")
    assert "quotation marks are part of these names" in usdt.text("book-enable")
    assert "probe_main" in usdt.text("book-repaired")
    assert "unexpected keyword argument 'usdt'" in usdt.text("book-handler")
    assert "non-void function does not return a value" in usdt.text("book-no-return")
    assert "R0 !read_ok" in usdt.text("book-refused")
    (printed,) = re.findall(r"^\[(.*)\]$", usdt.text("book-run"), re.MULTILINE)
    pids = printed.split(", ")
    messages = usdt.frame("book-run")["message"]
    assert list(messages) == [f"New hello_usdt process running with PID: {pid}" for pid in pids]


def test_each_picture_is_there(usdt: Chapter) -> None:
    for cell in ("cost-plot", "audit-run"):
        assert usdt.pictures(cell) == 1, cell


def test_failures_that_are_meant_say_what_to_do(usdt: Chapter) -> None:
    misspelt = usdt.text("misspelt")
    assert "'stpe'. Closest matches: step." in misspelt
    assert "Closest matches: usdt_loop:step" in misspelt
    assert "has no USDT probes" in usdt.text("none")
    assert "finds no such argument" in usdt.text("fourth")


def test_the_exercises_know_right_from_wrong(usdt: Chapter) -> None:
    assert usdt.text("exercise-1-verdict").count("no answer yet") == 4
    assert "not yet" in usdt.text("exercise-2-check")
    name = "by_pid_rows, by_pid_prepared, by_path_rows, by_path_prepared"
    answer = f"{name} = b, b, a + b + c, a + b + c"
    needed = ["lab", "source", "steps-source", "exercise-1", "exercise-1-answer"]
    needed += ["exercise-1-check", "exercise-1-verdict", "exercise-2-answer", "exercise-2-check"]
    answers = {
        "source": 'labs = "/opt/ebpflab/labs/usdt-c"\nloop = f"{labs}/usdt_loop"\n'
        'counted = f"{labs}/usdt_loop_semaphore"',
        "exercise-1-answer": answer,
        "exercise-2-answer": SOLUTION,
    }
    solved = run("06-usdt", answers, only=needed)
    assert solved.text("exercise-1-verdict").count("right: ") == 4
    assert "right: " in solved.text("exercise-2-check")


def test_the_solution_is_the_one_that_the_chapter_shows(usdt: Chapter) -> None:
    shown = usdt.cells["exercise-2-hints"].source
    assert SOLUTION.partition("int on_step")[2].removesuffix('"""') in shown


def test_closes_its_lab(usdt: Chapter) -> None:
    assert "closed" in usdt.text("close")
