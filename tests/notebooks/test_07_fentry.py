"""Chapter 07 on a real kernel, in the VM: what a reader would see, and that it is true."""

from __future__ import annotations

import re

import pytest
from chapters import Chapter, run

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1800)]

PREDICTION = "rows, failures = good + write_only, write_only"

SOLUTION = '''my_source = r"""
BPF_HASH(written, u32, u64);

KRETFUNC_PROBE(vfs_write, void *file, char *buffer, size_t count, loff_t *at, ssize_t result) {
    u32 pid = bpf_get_current_pid_tgid() >> 32;
    if (result > 0)
        written.increment(pid, result);
    return 0;
}
"""'''


@pytest.fixture(scope="module")
def fentry() -> Chapter:
    shown = {
        "opens-run": "ours",
        "ends-run": "blocks",
        "cost-table": "cost.reset_index()",
        "lsm-run": "questions",
        "book-run": "messages",
    }
    answers = {"exercise-1-answer": PREDICTION, "exercise-2-answer": SOLUTION}
    return run("07-fentry", answers, show=shown)


def test_no_cell_writes_to_stderr(fentry: Chapter) -> None:
    for name, cell in fentry.cells.items():
        streams = [output.get("name") for output in cell.get("outputs", [])]
        assert "stderr" not in streams, name


def test_arguments_and_result_are_in_one_row(fentry: Chapter) -> None:
    opens = fentry.frame("opens-run")
    asked = opens.tail(3)
    assert list(asked["filename"]) == ["/etc/hostname", "/no/such/file", "/etc/passwd/x"]
    assert list(asked["result"]) == [3, -2, -20]
    assert set(opens["comm"]) == {"cat"}
    named = fentry.text("opens-named")
    assert "'/no/such/file': 'ENOENT'" in named and "'/etc/passwd/x': 'ENOTDIR'" in named
    loaders = opens["flags"] & 0o2000000 > 0  # O_CLOEXEC
    assert loaders.sum() >= 2 and not loaders.tail(3).any(), "the loader asks for it, cat does not"
    assert f"{loaders.sum()})" in named
    assert "kretfunc do_sys_openat2 -> " in fentry.text("opens-source")


def test_the_kretprobe_has_lost_what_fexit_has(fentry: Chapter) -> None:
    blocks = fentry.frame("ends-run")
    by = dict(list(blocks.groupby("seen_by")["asked_bytes"]))
    assert list(by["fexit"]) == [4096] * 3
    assert len(by["kretprobe"]) == 3 and not (by["kretprobe"] == 4096).any()


def test_the_kernel_counts_every_read(fentry: Chapter) -> None:
    cost = fentry.frame("cost-table").set_index("probe")
    assert list(cost.index) == ["none", "fentry", "fexit", "kprobe", "kretprobe"]
    assert (cost["hits"].dropna() >= 100_003).all() and cost["hits"].notna().sum() == 4
    assert (cost["min"] <= cost["max"]).all() and (cost["ns_per_hit"].dropna() > 0).all()
    for cell in ("cost-plot", "published"):
        assert fentry.pictures(cell) == 1, cell


def test_the_guard_refuses_mkdir_and_nobody_else(fentry: Chapter) -> None:
    questions = fentry.frame("lsm-run")
    assert list(questions["comm"]) == ["mktemp", "mkdir", "python3"]
    assert list(questions["refused"]) == [0, 1, 0]
    shell = fentry.text("lsm-run")
    assert "Operation not permitted" in shell and "\ntwo\n" in shell
    assert "bpf is asked" in fentry.text("lsm-list")


def before_6_12(chapter: Chapter) -> bool:
    """Whether the kernel lets a guard answer anything: 5d99e198be27 in 6.12 was the first check."""
    found = re.search(r"Linux (\d+)\.(\d+)", chapter.text("lab"))
    assert found is not None
    return (int(found[1]), int(found[2])) < (6, 12)


def test_failures_that_are_meant_say_what_to_do(fentry: Chapter) -> None:
    assert "Closest matches: vfs_read" in fentry.text("not-there")
    assert "static inline" in fentry.text("not-there")
    assert "access beyond struct open_how" in fentry.text("too-far")
    assert "((u64 *)how)[8]" in fentry.text("too-far")
    answer = fentry.text("lsm-answer")
    if before_6_12(fentry):
        assert "This kernel takes it" in answer
    else:
        assert "R0" in answer and "[-4095, 0]" in answer and "An LSM_PROBE answers 0" in answer


def test_the_books_listing_prints_the_same_names_as_in_chapter_02(fentry: Chapter) -> None:
    assert list(fentry.frame("book-run")["message"]) == [
        f"program: {name}, return: 0" for name in ("sh", "ls", "date")
    ]


def test_the_exercises_know_right_from_wrong(fentry: Chapter) -> None:
    assert fentry.text("exercise-1-check").count("right: ") == 2
    assert "right: " in fentry.text("exercise-2-check")
    needed = ["lab", "exercise-1", "exercise-1-answer", "ends-source", "exercise-2-answer"]
    needed += ["exercise-1-check", "exercise-2-check"]
    listing = fentry.cells["ends-source"].source.partition("prog.close()")[0]
    unsolved = run("07-fentry", {"ends-source": listing}, only=needed)
    assert unsolved.text("exercise-1-check").count("no answer yet") == 2
    assert "not yet: " in unsolved.text("exercise-2-check")


def test_it_closes_its_lab(fentry: Chapter) -> None:
    assert "closed" in fentry.text("close")
