"""What the book's listings do today: each fault seen on a real kernel, each repair exact."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from listings import LISTINGS, Fault, Listing

from ebpflab import Lab
from ebpflab.errors import AttachError

pytestmark = pytest.mark.vm

HERE = Path(__file__).parent / "listings"
UNQUOTED = (('"', ""), ("probe-main", "probe_main"), ("hello-usdt", "hello_usdt"))
MASKED = ((r"process \d+", "process …"), (r"0x\w+", "0x…"), (r"b'", "'"), (r" +", " "))


def changed(text: str, changes: tuple[tuple[str, str], ...]) -> str:
    for old, new in changes:
        assert old in text, f"{old!r} is not in the listing"
        text = text.replace(old, new)
    return text


@pytest.fixture(scope="module")
def stage(lab: Lab) -> Iterator[str]:
    """A folder in the guest with stage.py and the USDT program, as printed and without quotes."""
    folder = lab.run(["mktemp", "-d"]).stdout.strip()
    lab.run(["tee", f"{folder}/stage.py"], input=(HERE / "stage.py").read_text())
    printed = (HERE / "hello_usdt.c").read_text()
    for path, text in (("hello_usdt", printed), ("unquoted", changed(printed, UNQUOTED))):
        built = lab.run(["gcc", "-x", "c", "-o", f"/tmp/{path}", "-"], input=text)
        assert built.returncode == 0, built.stderr
    yield folder
    lab.run(["rm", "-r", folder, "/tmp/hello_usdt", "/tmp/unquoted"])


class Seen:
    """Runs each listing once; the tests and the page share what was seen."""

    def __init__(self, lab: Lab, stage: str) -> None:
        self._lab, self._stage = lab, stage
        self._outputs: dict[Fault, str] = {}
        self._repaired: dict[str, str] = {}

    def output(self, listing: Listing, fault: Fault) -> str:
        """What the listing prints, as far as ``fault`` has it put right."""
        if fault not in self._outputs:
            text = changed((HERE / f"{listing.file}.py").read_text(), fault.changes)
            path = f"{self._stage}/{listing.file}.py"
            self._lab.run(["tee", path], input=text)
            command = ["/usr/bin/python3", f"{self._stage}/stage.py", path, *fault.command]
            done = self._lab.run(command)
            self._outputs[fault] = done.stdout + done.stderr
        return self._outputs[fault]

    def message(self, listing: Listing, fault: Fault) -> str:
        output = self.output(listing, fault)
        found = re.search(fault.seen, output)
        assert found, f"{fault.seen!r} is not in:\n{output}"
        text = found.group()
        for pattern, instead in MASKED:
            text = re.sub(pattern, instead, text)
        return text

    def repaired(self, listing: Listing) -> str:
        if listing.file not in self._repaired:
            self._repaired[listing.file] = listing.today(self._lab)
        return self._repaired[listing.file]


@pytest.fixture(scope="module")
def seen(lab: Lab, stage: str) -> Seen:
    return Seen(lab, stage)


FAULTS = [
    pytest.param(listing, fault, id=f"{listing.file}-{n}")
    for listing in LISTINGS
    for n, fault in enumerate(listing.faults, start=1)
]


@pytest.mark.parametrize(("listing", "fault"), FAULTS)
def test_what_happens_today(seen: Seen, listing: Listing, fault: Fault) -> None:
    assert seen.message(listing, fault)


@pytest.mark.parametrize("listing", LISTINGS, ids=lambda listing: listing.file)
def test_the_repaired_form_is_exact(seen: Seen, listing: Listing) -> None:
    assert seen.repaired(listing)


def faulty(seen: Seen, file: str, n: int = 0) -> str:
    (listing,) = (each for each in LISTINGS if each.file == file)
    return seen.output(listing, listing.faults[n])


def test_the_kprobe_never_names_the_new_program(seen: Seen) -> None:
    names = re.findall(r"executing program: (\w+)", faulty(seen, "kprobes"))
    assert len(names) == 7 and names.count("sh") == 6 and "true" not in names


def test_the_uprobe_prints_the_thread(seen: Seen) -> None:
    lines = re.findall(r"-(\d+) .*in process (\d+)", faulty(seen, "uprobes"))
    assert len(lines) == 211
    assert all(tid == said for tid, said in lines), "what trace_pipe has as the thread's id"


def test_the_histogram_tells_nanoseconds_for_milliseconds(seen: Seen) -> None:
    rows = re.findall(r"(\d+) -> \d+ +: (\d+)", faulty(seen, "histogram", 1))
    counted = {int(low): int(count) for low, count in rows if int(count)}
    assert sum(counted.values()) == 7
    assert min(counted) >= 1000, "were these milliseconds, each load would take a second and more"


def test_the_perf_event_counts_nothing(seen: Seen) -> None:
    output = faulty(seen, "perf_events", 1)
    assert "Counter()" in output and output.count("unhashable") >= 7


def test_a_sample_each_nanosecond_is_refused(lab: Lab) -> None:
    with (
        lab.load("int on_sample(void *ctx) { return 0; }") as prog,
        pytest.raises(AttachError, match="1,000,000,000 samples a second"),
    ):
        prog.attach_perf_event(ev_type=1, ev_config=0, fn_name="on_sample", sample_period=1)


def test_the_page_shows_what_was_seen(
    lab: Lab, seen: Seen, committed: Callable[[str, str], None]
) -> None:
    kernel, bcc = (".".join(version.split(".")[:2]) for version in (lab.kernel, lab.bcc_version))
    rows = []
    for listing in LISTINGS:
        faults = [
            f"`{seen.message(listing, fault)}`<br>{fault.meaning}" for fault in listing.faults
        ]
        chapter = f"[{listing.chapter}](../notebooks/{listing.chapter}.ipynb)"
        rows.append(
            f"| [{listing.name}](../tests/kernel/listings/{listing.file}.py) |"
            f" {'<br>'.join(faults)} | {listing.repair} | {seen.repaired(listing)} |"
            f" {chapter} |"
        )
    committed(
        "book-versus-today.md",
        "# Book versus today\n\n"
        'The nine listings of the chapter "Tracing with BPF" of *Linux Observability with BPF*'
        " (2019), on a kernel of today. A test runs each in the guest, in our own words with the"
        f" book's faults, under BCC's own Python (Linux {kernel}, BCC {bcc}); it runs the repaired"
        " form in ebpflab, on a workload of a known number of events; and it writes this page"
        " (`tests/kernel/test_listings.py`). The repaired programs are in"
        " [tests/kernel/repaired.py](../tests/kernel/repaired.py).\n\n"
        "| listing | what happens today | the repair | the repaired form sees | chapter |\n"
        "|---|---|---|---|---|\n" + "\n".join(rows) + "\n",
    )
