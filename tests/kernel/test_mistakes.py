"""Every mistake of `mistakes` gets its named exception and its words, and the lab goes on."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterator

import pytest
from attached import probes
from mistake import GOOD, WORK_C, Case
from mistakes import GROUPS

from ebpflab import Lab, Program

pytestmark = pytest.mark.vm

CASES = [case for cases in GROUPS.values() for case in cases]
WIDTH = 98
# What differs from run to run, or with the next update of the guest's kernel and compiler.
VARIES = (
    (r"(This kernel .*Closest matches: [\w:]+), .*", r"\1, …"),
    (r"\b([Pp]rocess) \d+", r"\1 …"),
    (r"\.h:\d+", ".h:…"),
    (r"\(\d+ lines of", "(… lines of"),
    (r"has \d+ of the \d+", "has … of the …"),
    (r"(insn|id)([= ])\d+", r"\1\2…"),
)


def filled(line: str) -> str:
    """A long line of prose in several; code, which is indented, as it is."""
    if len(line) <= WIDTH or line.startswith(" "):
        return line
    return textwrap.fill(line, WIDTH, subsequent_indent="  ", break_on_hyphens=False)


class Mistakes:
    """Makes each mistake once, and keeps the message for the page."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self._made = lab, dict[str, Exception]()
        for path, flags in (("/tmp/work", []), ("/tmp/work-stripped", ["-s"])):
            built = lab.run(["gcc", "-O1", *flags, "-x", "c", "-o", path, "-"], input=WORK_C)
            assert built.returncode == 0, built.stderr
        machine = "printf '\\050\\0' | dd of=/tmp/work-arm bs=1 seek=18 conv=notrunc"
        lab.run(["sh", "-c", f"cp /tmp/work /tmp/work-arm; {machine}"])

    def make(self, case: Case) -> Exception:
        if case.name not in self._made:
            self._made[case.name] = self._make(case)
        return self._made[case.name]

    def _make(self, case: Case) -> Exception:
        names: dict[str, object] = {"lab": self.lab, "program": case.c}
        if "prog = " not in case.code:
            names["prog"] = self.lab.load(GOOD)
        try:
            with pytest.raises(case.error) as caught:
                exec(case.code, names)
        finally:
            for each in names.values():
                if isinstance(each, Program):
                    each.close()
        return caught.value


@pytest.fixture(scope="module")
def mistakes(lab: Lab) -> Iterator[Mistakes]:
    # Room for some 60 probes, so that too many of them are soon there.
    limit = ["prlimit", "--pid", str(lab.agent_pid), "--nofile=160:"]
    assert lab.run(limit).returncode == 0
    yield Mistakes(lab)
    lab.run(["prlimit", "--pid", str(lab.agent_pid), "--nofile=1024:"])


@pytest.mark.parametrize("case", CASES, ids=[case.name.replace(" ", "-") for case in CASES])
def test_a_mistake_is_named_and_the_lab_goes_on(lab: Lab, mistakes: Mistakes, case: Case) -> None:
    before = probes(lab)
    error = mistakes.make(case)
    assert type(error) is case.error
    for words in case.words:
        assert re.search(words, str(error), re.DOTALL), f"{words!r} is not in:\n{error}"
    assert probes(lab) == before, "nothing stays attached"
    with lab.load(GOOD) as prog:
        prog.attach_uprobe(name="/tmp/work", sym="work", fn_name="count")
        lab.run(["/tmp/work", "13"])
        assert list(prog["calls"].frame()["value"]) == [13]


def test_the_page_shows_what_is_seen(
    lab: Lab, mistakes: Mistakes, committed: Callable[[str, str], None]
) -> None:
    kernel, bcc = (".".join(version.split(".")[:2]) for version in (lab.kernel, lab.bcc_version))
    parts = [
        "# When it fails\n",
        "What learners do wrong, what they see, and what to do. A test makes each of these mistakes"
        f" in the guest (Linux {kernel}, BCC {bcc}) and writes this page"
        " (`tests/kernel/test_mistakes.py`); after each, the same lab loads a program and counts"
        " exactly. `…` stands for what differs from run to run.\n",
        f"`prog`, where it is not loaded, is this program:\n\n```c\n{GOOD.strip()}\n```\n",
        "\n".join(
            f"- [{group}](#{group.lower().replace(' ', '-')}): {len(cases)} ways"
            for group, cases in GROUPS.items()
        )
        + "\n",
    ]
    for group, cases in GROUPS.items():
        parts.append(f"## {group}\n")
        for case in cases:
            text = f"{case.error.__name__}: {mistakes.make(case)}".replace(lab.kernel, kernel)
            for pattern, instead in VARIES:
                text = re.sub(pattern, instead, text)
            seen = "\n".join(filled(line) for line in text.splitlines())
            listing = f"```c\n{case.c.strip()}\n```\n\n" if case.c and case.c != GOOD else ""
            parts.append(
                f"### {case.name[0].upper()}{case.name[1:]}\n\n{listing}"
                f"```python\n{case.code}\n```\n\n```text\n{seen}\n```\n\n{case.cure}\n"
            )
    committed("when-it-fails.md", "\n".join(parts))


def test_an_address_is_a_place_and_so_is_the_next_instruction(lab: Lab, mistakes: Mistakes) -> None:
    work = lab.symbols("/tmp/work", "work")["address"].iloc[0]
    code = lab.run(["objdump", "-d", "--no-show-raw-insn", "/tmp/work"]).stdout
    inside = code.split("<work>:\n")[1].split("\n\n")[0].splitlines()
    second = int(inside[1].split(":")[0], 16) - int(work)
    with lab.load(GOOD) as prog:
        prog.attach_uprobe(name="/tmp/work", addr=int(work), fn_name="count")
        prog.attach_uprobe(name="/tmp/work", sym="work", sym_off=second, fn_name="count")
        lab.run(["/tmp/work", "17"])
        assert list(prog["calls"].frame()["value"]) == [2 * 17]
