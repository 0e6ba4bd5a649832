"""Arguments are checked before anything is touched, and what is nearly right is taken."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ebpflab import Lab, PerfSWConfig, PerfType
from ebpflab.errors import EbpflabError, ProgramError, TargetError
from ebpflab.program import Program

SOURCE = r"""
#include <uapi/linux/ptrace.h>
#include <uapi/linux/bpf_perf_event.h>
struct call { u64 n; };
BPF_RINGBUF_OUTPUT(calls, 8);
BPF_QUEUE(waiting, u64, 64);
int on_work(struct pt_regs *ctx) {
  struct call call = {.n = PT_REGS_PARM1(ctx)};
  calls.ringbuf_output(&call, sizeof(call), 0);
  waiting.push(&call.n, 0);
  return 0;
}
int on_sample(struct bpf_perf_event_data *ctx) { return 0; }
"""


@pytest.fixture
def prog(lab: Lab, program: str) -> Iterator[Program]:
    with lab.load(SOURCE) as prog:
        prog.attach_uprobe(name=Path(program), sym="work", fn_name="on_work")
        yield prog


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"rows": 2.0}, r"rows= is a whole number, 0 or more, and is 2\.0\. Write 2\."),
        ({"rows": 1e3}, r"Write 1000\."),
        ({"rows": "3"}, r"rows= is a whole number"),
        ({"rows": True}, r"rows= is a whole number"),
        ({"rows": -1}, r"rows= is a whole number, 0 or more"),
        ({"seconds": math.nan}, r"seconds= is how long to wait, 0 or more seconds, and is nan"),
        ({"seconds": "1"}, r"seconds= is how long to wait"),
        ({"seconds": -0.5}, r"seconds= is how long to wait"),
    ],
)
def test_a_wrong_limit_loses_no_row(
    lab: Lab, program: str, prog: Program, given: dict[str, Any], said: str
) -> None:
    lab.run([program, "3"])
    with pytest.raises(ValueError, match=said):
        prog["calls"].collect(**given)
    assert list(prog["calls"].collect(seconds=np.float32(5), rows=np.int64(3))["n"]) == [0, 1, 2]


def test_numbers_may_be_numpys(lab: Lab, program: str, prog: Program) -> None:
    prog.detach()
    sleeper = lab.start(["sleep", "60"])
    prog.attach_uprobe(
        name=program, sym="work", fn_name="on_work", pid=np.int64(-1), sym_off=np.uint8(0)
    )
    lab.run([program, "2"])
    prog.attach_perf_event(
        ev_type=PerfType.SOFTWARE,
        ev_config=PerfSWConfig.TASK_CLOCK,
        fn_name="on_sample",
        sample_freq=np.int64(1),
        pid=np.int64(sleeper.pid),
        cpu=np.int64(-1),
    )
    assert list(prog["waiting"].pop(rows=np.uint8(3))["value"]) == [0, 1]
    prog["calls"].keep(rows=np.int32(1))
    assert list(prog["calls"].frame()["n"]) == [1]
    sleeper.kill()


@pytest.mark.parametrize("pid", [0, "12", 1.5, -2, None])
def test_a_pid_is_a_process_or_all(prog: Program, program: str, pid: Any) -> None:
    with pytest.raises(ValueError, match="pid= is the number of a process, or -1 for all"):
        prog.attach_uprobe(name=program, sym="work", fn_name="on_work", pid=pid)


def test_an_environment_is_text(lab: Lab) -> None:
    with pytest.raises(ValueError, match="Write 'A': '1'"):
        lab.run(["env"], env={"A": 1})  # type: ignore[dict-item]
    assert "A=b\n" in lab.run(["env"], env={"A": "b"}).stdout


def test_waiting_twice_gives_the_same(lab: Lab) -> None:
    workload = lab.start(["echo", "once"])
    assert workload.wait().stdout == "once\n"
    assert workload.wait() is workload.stop() is workload.wait()


def test_a_forked_child_is_refused_and_leaves_the_lab_alone(lab: Lab) -> None:
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            lab.run(["true"])
        except TargetError as error:
            os.write(tell, str(error).encode())
        lab.close()
        os._exit(0)
    os.close(tell)
    os.waitpid(child, 0)
    said = os.read(told, 1000).decode()
    os.close(told)
    assert f"This lab belongs to process {os.getpid()}" in said
    assert lab.run(["echo", "here"]).stdout == "here\n"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("prog.calls", r"taken by its name in brackets: prog\[.calls.\]"),
        ("prog.trace_print()", r"is BCC's\. Here: prog\.messages\.collect"),
        ("prog.perf_buffer_poll()", r'Here: prog\["events"\]\.collect'),
        ("prog.atached", r"has no \.atached\. Closest matches?: .*attached"),
        ("prog['counts'][1]", r"read whole.*frame\.set_index\(\['key'\]\)\.loc\[1\]"),
        ("[each for each in prog['counts']]", r"has a row for each entry"),
        ("lab.load(source, cflags='-DA -DB')", r"Write cflags=\['-DA', '-DB'\]"),
        ("lab.load(source, cflags=['-include', '/etc/shadow'])", r"'-include' is not taken"),
        ("prog.attach_uprobe(name='libc', sym='strlen', fn_name='on_work')", r"Write 'c'\."),
        ("prog.attach_uprobe(name='libc.so.6', sym='strlen', fn_name='on_work')", r"Write 'c'\."),
    ],
)
def test_what_a_reader_means_is_said(lab: Lab, code: str, said: str) -> None:
    source = SOURCE + "BPF_HASH(counts);\n"
    with lab.load(source) as prog, pytest.raises((AttributeError, EbpflabError), match=said):
        eval(code, {"prog": prog, "lab": lab, "source": source})


def test_a_table_has_a_length(lab: Lab, program: str) -> None:
    with lab.load(SOURCE + "BPF_HASH(counts);\nBPF_ARRAY(slots, u64, 7);\n") as prog:
        assert (len(prog["counts"]), len(prog["slots"])) == (0, 7)
        prog["counts"][1] = 2
        assert len(prog["counts"]) == 1 and bool(prog["counts"])


def test_a_file_of_c_may_have_a_mark_and_must_be_utf8(lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "probe.c"
    path.write_bytes(b"\xef\xbb\xbf" + SOURCE.encode())
    lab.load(path).close()
    path.write_bytes(SOURCE.encode() + b"// f\xfcr\n")
    with pytest.raises(ProgramError, match=r"byte 0xfc in line 14 is no character of it"):
        lab.load(path)
