"""Chapter 04 on a real kernel, in the VM: what a reader would see, and that it is true."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from chapters import Chapter, run

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1800)]

SOLUTION = '''my_source = r"""
BPF_HASH(paths, u64, u64);

int on_known(struct pt_regs *ctx) {
    u64 length = GO_WORD2(ctx);
    paths.atomic_increment(length);
    return 0;
}
"""'''


@pytest.fixture(scope="module")
def uprobes() -> Chapter:
    shown = {
        "book-work": "messages",
        "who-run": "calls",
        "symbols": "symbols",
        "peek-run": "pd.DataFrame({'before': before, 'after': after})",
        "peek-counts": "calls",
        "handle-run": "calls",
        "wrong-register": "messages",
        "slice-run": "seen",
        "slice-plot": "buckets.reset_index(drop=True)",
        "deep-run": "entries",
        "repaired": "messages",
    }
    return run("04-uprobes", show=shown)


def numbers(messages: list[str]) -> set[int]:
    return {int(message.rsplit(" ", 1)[1]) for message in messages}


def test_no_cell_writes_to_stderr(uprobes: Chapter) -> None:
    for name, cell in uprobes.cells.items():
        streams = [output.get("name") for output in cell.get("outputs", [])]
        assert "stderr" not in streams, name


def test_the_books_listing_is_right_of_hello_and_wrong_of_work(uprobes: Chapter) -> None:
    printed, pid = re.findall(r": (\d+)", uprobes.text("book-run"))
    assert printed == pid
    messages = uprobes.frame("book-work")
    assert len(messages) >= 144  # the entry of main.pause can be passed again
    assert numbers(messages["message"]) == set(messages["tid"]) and len(set(messages["tid"])) > 1


def test_the_repaired_listing_prints_the_process(uprobes: Chapter) -> None:
    messages = uprobes.frame("repaired")
    assert len(messages) >= 40
    said = re.findall(r"lab.run says: (\d+)", uprobes.text("repaired"))
    assert numbers(messages["message"]) == {int(said[0])}


def test_every_call_is_counted_by_thread(uprobes: Chapter) -> None:
    calls = uprobes.frame("who-run")
    assert calls["value"].sum() == 1600
    assert calls["pid"].nunique() == 1 and 1 < len(calls) < 8  # as the text says of the bars
    assert f"1 process, {len(calls)} threads, 1600 calls" in uprobes.text("who-run")


def test_a_symbol_is_a_place_in_the_file(uprobes: Chapter) -> None:
    symbols = uprobes.frame("symbols").set_index("symbol")["address"]
    address = re.findall(r"address (0x[0-9a-f]+)", uprobes.text("offset"))[0]
    assert int(address, 16) == symbols["main.known"]
    seen = uprobes.frame("peek-run")
    assert seen["before"].nunique() == 1  # so the place in the file is the one that was computed
    whole = "a0 00 20 d4"  # arm64's `brk #5`; on x86-64 it is one byte
    assert seen["after"][0] == (whole if uprobes.on_arm64 else "cc" + seen["before"][0][2:])
    assert list(seen["after"][1:]) == list(seen["before"][1:])
    assert "main.main.func1" in symbols.index
    deferred = {"main.handle.deferwrap1", "main.handle.func1"}  # the second before Go 1.22
    assert len(deferred & set(symbols.index)) == 1


def test_pid_means_one_process(uprobes: Chapter) -> None:
    calls = uprobes.frame("peek-counts")
    one, _ = re.findall(r"process (?:one|two) is (\d+)", uprobes.text("peek-counts"))
    assert set(calls["pid"]) == {int(one)} and calls["value"].sum() == 22


def test_ints_and_strings_are_the_calls_own(uprobes: Chapter) -> None:
    calls = uprobes.frame("handle-run")
    seen = set(zip(calls["worker"], calls["request"], calls["path"], strict=True))
    assert seen == {(worker, n, f"/item/{n}") for worker in range(3) for n in range(11)}
    assert list(calls["path_bytes"]) == [len(path) for path in calls["path"]]
    assert "33 different calls" in uprobes.text("handle-run")


def test_a_go_string_has_no_end_mark(uprobes: Chapter) -> None:
    # Without the second end: what follows may have a newline, which ends a message.
    by_length, to_zero = re.findall(r"'(\w+)' or '([^']+)", uprobes.text("text-run"))[0]
    assert by_length == "wait" and to_zero.startswith("wait") and len(to_zero) > len("wait")


def test_the_registers_of_c_hold_something_else(uprobes: Chapter) -> None:
    said = list(uprobes.frame("wrong-register")["message"])
    if uprobes.on_arm64:  # Go's first register is that of C: the only worker, 0
        assert numbers(said) == {0}
        return
    assert numbers(said) == {7, 8}
    assert said.count("PT_REGS_PARM1 is 7") >= 10 and said.count("PT_REGS_PARM1 is 8") >= 2


def test_each_slice_is_as_long_as_its_request_says(uprobes: Chapter) -> None:
    seen = uprobes.frame("slice-run")
    due = [r % 256 + 1 for r in range(251) if r % 5]
    assert list(seen["length"]) == list(seen["last"]) == due and len(due) == 200
    assert set(seen["first"]) == {1} and set(seen["capacity"]) == {256}
    assert uprobes.frame("slice-plot")["count"].iloc[-1] == sum(length >= 128 for length in due)
    assert sum(length >= 128 for length in due) == 99


def test_a_stack_that_grows_makes_rows_and_sym_off_does_not(uprobes: Chapter) -> None:
    entries = uprobes.frame("deep-run")
    assert set(entries["n"]) == set(range(101))
    twice = entries[entries.duplicated("n", keep=False)]
    moved = twice.groupby("n")["stack_pointer"].nunique()
    moved = moved[moved > 1].index.sort_values(ascending=False)
    assert len(moved) >= 3
    lasted = [before - after for before, after in pairwise(moved)]
    # arm64's frames of 304 bytes leave a part of each stack over; a call more or less fits in.
    over = 1 if uprobes.on_arm64 else 0
    assert all(abs(long - 2 * short) <= over for short, long in pairwise(lasted))
    code = uprobes.text("deep-code")
    look = {"CMP", "BLS"} if uprobes.on_arm64 else {"CMPQ", "JBE"}
    assert look <= set(code.split()) and "morestack" in code and "JMP main.deep" in code
    assert "behind the symbol: 101 rows" in uprobes.text("deep-offset")


def test_an_inlined_function_is_named_and_cured(uprobes: Chapter) -> None:
    assert "inlining call to cube" in uprobes.text("inlined-build")
    assert "the compiler inlined it" in uprobes.text("inlined-attach")
    assert uprobes.text("inlined-cured").startswith("211 calls")


def test_failures_that_are_meant_say_what_to_do(uprobes: Chapter) -> None:
    assert "Closest matches: main.known" in uprobes.text("misspelt")
    assert "was stripped" in uprobes.text("stripped") and "addr=" in uprobes.text("stripped")
    remains = uprobes.text("stripped-remains")
    assert "['.gopclntab']" in remains and "'main.known'" in remains
    bytes_of_both = uprobes.text("stripped-twin").split("\n")[:2]
    assert bytes_of_both[0] == bytes_of_both[1]
    assert "707 calls" in uprobes.text("stripped-twin")


def test_each_picture_is_there(uprobes: Chapter) -> None:
    for cell in ("who-run", "slice-plot"):
        assert uprobes.pictures(cell) == 1, cell


def test_the_exercises_know_right_from_wrong(uprobes: Chapter) -> None:
    assert uprobes.text("exercise-1-check").count("no answer yet") == 2
    assert "not yet: " in uprobes.text("exercise-2-check")
    needed = ["lab", "targets", "who-source", "registers", "exercise-1"]
    needed += [f"exercise-{cell}" for cell in ("1-answer", "1-check", "2-answer", "2-check")]
    prediction = "known, checksum = workers * requests, workers * requests * 4 // 5"
    answers = {"exercise-1-answer": prediction, "exercise-2-answer": SOLUTION}
    solved = run("04-uprobes", answers, only=needed)
    assert solved.text("exercise-1-check").count("right: ") == 2
    assert "right: " in solved.text("exercise-2-check")


def test_the_solution_is_the_one_that_the_chapter_shows(uprobes: Chapter) -> None:
    shown = uprobes.cells["exercise-2-hints"].source
    assert SOLUTION.partition("int on_known")[2].removesuffix('"""') in shown


def test_closes_its_lab(uprobes: Chapter) -> None:
    assert "closed" in uprobes.text("close")
