"""What another process of the traced machine may put in the agent's way: files and names."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import fuzz
import pandas as pd
import pytest
from counting import Counted

from ebpflab import plots
from ebpflab.display import rich
from ebpflab.stacks import Frame

NAME = '<img src=x onerror="alert(1)"></script><script>alert(2)</script><!--<script>'


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """BCC can be imported, by `fuzz`'s own path."""
    pytest.importorskip("bcc")
    yield


@pytest.fixture
def perf_map(agent: None) -> Iterator[Path]:
    """Where this process would tell of code that it makes."""
    path = Path(f"/tmp/perf-{os.getpid()}.map")
    yield path
    path.unlink(missing_ok=True)


def read(path: Path) -> list[tuple[int, int, str]]:
    from ebpflab.agent.processes import symbols

    found: list[tuple[int, int, str]] = symbols._perf_map(os.getpid())
    return found


@pytest.mark.local
def test_an_agent_has_no_socket_and_its_wire_no_name(counted: Callable[[str], Counted]) -> None:
    pid = counted("local").lab.agent_pid
    held = [str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir()]
    assert sum(name.startswith("pipe:") for name in held) >= 2
    assert not [name for name in held if name.startswith("socket:")]


def test_a_perf_map_that_is_half_garbage_gives_its_good_lines(perf_map: Path) -> None:
    perf_map.write_bytes(b"1000 10 work\nroot:x:0:0\n\xff\xff\n0x2000 8 a b\nfff\n")
    assert read(perf_map) == [(0x1000, 0x10, "work"), (0x2000, 8, "a b")]


def test_a_perf_map_that_is_a_link_or_a_fifo_is_left_alone(perf_map: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("1000 10 secret\n")
    perf_map.symlink_to(secret)
    assert read(perf_map) == []
    perf_map.unlink()
    os.mkfifo(perf_map)  # to open it for reading would wait for ever
    assert read(perf_map) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file to another user: run as root")
def test_a_perf_map_of_another_user_is_left_alone(perf_map: Path) -> None:
    perf_map.write_text("1000 10 work\n")
    os.chown(perf_map, 65534, 65534)
    assert read(perf_map) == []


# What BCC's parser may make of an argument: registers and numbers, and nothing of the note's text.
_PLACE = r"ctx->\w+ \+ \(-?\d+\)|PT_REGS_IP\(ctx\) \+ \(-?\d+LL\)"
_READ = re.compile(
    r"argument = \([su]\d+\)-?\d+LL;"
    r'|argument = \([su]\d+\)ctx->\w+; __asm__ __volatile__\("" ::: "memory"\);'
    rf"|\{{ [su]\d+ value = 0; u64 at = (?:{_PLACE})(?: \+ ctx->\w+ \* \d+)?;"
    r' __asm__ __volatile__\("" ::: "memory"\);'
    r" bpf_probe_read_user\(&value, sizeof\(value\), \(void \*\)at\); argument = value; \}"
)
ARGUMENTS = [
    *("-4@%edi", "8@-16(%rbp)", "4@$-5", "-4@(%rax,%rbx,4)", "2@12(%rdx,%rcx,2)"),
    *('-4@%edi"); bpf_trace_printk("out', "4@%edi;return", "4@$5;out()", "8@%rax+out()"),
    *("4@%" + "a" * 999, "99@%edi", "4@$0x7/**/", "-4@out(%rip)", "4@(%rax,%rbx,out)", "@", "%n%n"),
    *("-4@-2147483649(%rbp)", "4@$99999999999999999999", "4@8(%rip)", "\xff@\xff", "4@%edi\n#x"),
]


def test_an_argument_of_a_probe_becomes_a_place_and_never_c(agent: None, tmp_path: Path) -> None:
    """What a note says of its arguments was written by whoever made the file."""
    from ebpflab.agent.faults import Fault
    from ebpflab.agent.probes import usdt

    read: dict[str, list[str]] = {}
    for text in ARGUMENTS:
        path = tmp_path / "program"
        path.write_bytes(fuzz._probe_elf(text.encode()))
        try:
            read[text] = [each for _, texts in usdt._arguments(str(path), "p:n") for each in texts]
        except Fault:
            read[text] = []
        assert all(_READ.fullmatch(each) for each in read[text]), (text, read[text])
    assert all(len(read[text]) == 1 for text in ARGUMENTS[:5]), "what compilers write is read"


def test_a_tracepoint_is_no_path(
    agent: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ebpflab.agent.faults import Fault
    from ebpflab.agent.kernel import names

    monkeypatch.setattr(names, "tracefs", lambda: tmp_path / "tracing")
    place = tmp_path / "tracing" / "events" / "sched" / "sched_switch"
    place.mkdir(parents=True)
    (place / "format").write_text("name: sched_switch\n")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "format").symlink_to("/etc/passwd")
    assert names.tracepoint_format("sched:sched_switch") == "name: sched_switch\n"
    for name in ("../..:mine", f"{tmp_path}:mine", "..:../mine", f"x:{tmp_path}/mine", ".:sched"):
        with pytest.raises(Fault, match="has no tracepoint"):
            names.tracepoint_format(name)


def test_what_fails_in_one_request_does_not_end_the_others(agent: None) -> None:
    from ebpflab.agent import session

    class Answering(session.Session):  # type: ignore[misc]
        def _answer(self, answer: dict[str, object]) -> None:
            answers.append(answer)

    answers: list[dict[str, object]] = []
    served = Answering(-1, end=lambda status: None)
    served._operations._methods["leave"] = lambda asked, then: sys.exit(1)  # as BCC does
    for op in ("leave", "no_such", "syscall_name"):
        served.respond({"id": op, "op": op, "name": "no_such_call"})
    kinds = [answer["fault"]["type"] for answer in answers]  # type: ignore[index]
    assert kinds == ["AgentFault", "AgentFault", "UnknownEvent"]
    assert [answer["id"] for answer in answers] == ["leave", "no_such", "syscall_name"]


def test_names_are_text_in_pages() -> None:
    stack = (Frame("main", "user", "program"), Frame(NAME, "user", NAME))
    stacks = pd.DataFrame({"stack": [stack], "value": [3], "comm": [NAME]})
    rows = pd.DataFrame({"comm": [NAME, "cat", NAME], "latency_ns": [1, 2, 3]})
    linked = plots.linked(plots.counts(rows, by="comm"))
    pages = {
        "flame graph": plots.flame_graph(stacks).html(),
        "bars": plots.counts(rows, by="comm").figure._repr_html_(),  # type: ignore[attr-defined]
        "bars and their rows": linked._repr_mimebundle_()["text/html"],
        "table": rows._repr_html_(),
        "card": rich.card(NAME, [("key", NAME)]) + rich.table([NAME], [[NAME]]),
    }
    for what, text in pages.items():
        assert "alert(1)" in text, f"{what}: the name is there"
        assert not re.search("<img src=x|<script>alert|<!--", text), what
