"""Every event of a workload arrives, once, typed, with nothing made up."""

from __future__ import annotations

import _thread
import threading
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ebpflab import Lab

RING = r"""
#include <uapi/linux/ptrace.h>
struct call { u64 at_ns; u32 pid; u32 tid; char comm[16]; s64 n; char text[8]; };
BPF_RINGBUF_OUTPUT(calls, 64);
int on_work(struct pt_regs *ctx) {
  struct call call = {};
  u64 id = bpf_get_current_pid_tgid();
  call.at_ns = bpf_ktime_get_ns();
  call.pid = id >> 32;
  call.tid = id;
  call.n = PT_REGS_PARM1(ctx);
  bpf_get_current_comm(&call.comm, sizeof(call.comm));
  bpf_probe_read_user_str(call.text, sizeof(call.text), (void *)PT_REGS_PARM2(ctx));
  calls.ringbuf_output(&call, sizeof(call), 0);
  return 0;
}
"""
PERF = RING.replace("BPF_RINGBUF_OUTPUT(calls, 64)", "BPF_PERF_OUTPUT(calls)").replace(
    "calls.ringbuf_output(&call, sizeof(call), 0)", "calls.perf_submit(ctx, &call, sizeof(call))"
)
RESERVE = r"""
#include <uapi/linux/ptrace.h>
struct call { s64 n; };
BPF_RINGBUF_OUTPUT(calls, 64);
int on_work(struct pt_regs *ctx) {
  struct call *call = calls.ringbuf_reserve(sizeof(struct call));
  if (!call) return 0;
  call->n = PT_REGS_PARM1(ctx);
  if ((u64)call->n % 3) calls.ringbuf_submit(call, 0); else calls.ringbuf_discard(call, 0);
  return 0;
}
"""
NESTED = r"""
#include <uapi/linux/ptrace.h>
struct inner { u8 small; u32 wide; };
struct call { u8 flag; u64 n; struct inner inner; u16 list[3]; char name[5]; };
BPF_RINGBUF_OUTPUT(calls, 8);
int on_work(struct pt_regs *ctx) {
  struct call call = {.flag = 7, .n = 1ull << 40, .list = {1, 2, 65535}, .name = "ab"};
  call.inner.small = 255;
  call.inner.wide = 4000000000;
  calls.ringbuf_output(&call, sizeof(call), 0);
  return 0;
}
"""
BARE = r"""
#include <uapi/linux/ptrace.h>
BPF_PERF_OUTPUT(names);
int on_work(struct pt_regs *ctx) {
  char comm[16];
  bpf_get_current_comm(&comm, sizeof(comm));
  names.perf_submit(ctx, &comm, sizeof(comm));
  return 0;
}
"""


@pytest.mark.parametrize("source", [RING, PERF], ids=["ring", "perf"])
def test_every_call_is_a_row(lab: Lab, program: str, source: str) -> None:
    with lab.load(source) as prog:
        prog.attach_uprobe(name=program, sym="work", fn_name="on_work")
        done = lab.run([program, "1009"])
        frame = prog["calls"].frame().sort_values("at_ns")
    assert list(frame["n"]) == list(range(1009))
    assert set(frame["pid"]) == set(frame["tid"]) == {done.pid}
    assert set(frame["comm"]) == {"target"} and set(frame["text"]) == {"hello"}
    assert frame["at_ns"].is_monotonic_increasing
    assert frame["n"].dtype == np.int64 and frame["pid"].dtype == np.uint32
    assert frame.attrs["lost"] == 0 and frame.attrs["kernel"] == lab.kernel
    wall = pd.to_datetime(frame["at_ns"] + frame.attrs["clock_offset_ns"], utc=True)
    now = pd.Timestamp(int(lab.run(["date", "+%s%N"]).stdout), tz="UTC")  # of a recording: then
    assert (wall - now).abs().max() < pd.Timedelta(minutes=2)
    assert ("cpu" in frame) == (source is PERF)


def test_discarded_records_are_not_rows(lab: Lab, program: str) -> None:
    with lab.load(RESERVE) as prog:
        prog.attach_uprobe(name=program, sym="work", fn_name="on_work")
        lab.run([program, "101"])
        frame = prog["calls"].frame()
    assert list(frame["n"]) == [n for n in range(101) if n % 3]
    assert frame.attrs["lost"] == 0


def test_nested_types_padding_and_arrays(lab: Lab, program: str) -> None:
    with lab.load(NESTED) as prog:
        prog.attach_uprobe(name=program, sym="work", fn_name="on_work")
        lab.run([program, "2"])
        frame = prog["calls"].frame()
    expected = {
        "flag": 7,
        "n": 1 << 40,
        "inner.small": 255,
        "inner.wide": 4_000_000_000,
        "list[0]": 1,
        "list[1]": 2,
        "list[2]": 65535,
        "name": "ab",
    }
    assert frame.to_dict("records") == [expected, expected]


def test_a_bare_array_is_a_column(lab: Lab, program: str) -> None:
    with lab.load(BARE) as prog:
        prog.attach_uprobe(name=program, sym="work", fn_name="on_work")
        lab.run([program, "3"])
        assert list(prog["names"].frame()["comm"]) == ["target"] * 3


TYPED = r"""
#include <uapi/linux/ptrace.h>
#include <uapi/linux/in6.h>
enum state { IDLE, BUSY = 40000, GONE = -1 };
struct call {
  s64 n; char args[2][8]; u32 low:3, high:29; enum state state; struct in6_addr from;
  unsigned __int128 to; s16 grid[2][2]; u8 mac[6]; union { u32 word; struct { u16 lo, hi; }; };
};
BPF_RINGBUF_OUTPUT(calls, 8);
int on_work(struct pt_regs *ctx) {
  s64 n = PT_REGS_PARM1(ctx);
  struct call call = {};
  call.n = n;
  call.low = n; call.high = -n;
  call.state = (u64)n % 3 == 0 ? IDLE : (u64)n % 3 == 1 ? BUSY : GONE;
  call.args[1][0] = 'a' + n;
  call.from.s6_addr[15] = n;
  call.to = (unsigned __int128)n << 120 | 0x20;
  call.grid[1][0] = -n;
  call.mac[5] = n;
  call.hi = n;
  calls.ringbuf_output(&call, sizeof(call), 0);
  return 0;
}
"""


def test_bit_fields_enums_addresses_and_arrays_of_arrays(lab: Lab, program: str) -> None:
    with lab.load(TYPED) as prog:
        prog.attach_uprobe(name=program, sym="work", fn_name="on_work")
        lab.run([program, "7"])
        frame = prog["calls"].frame()
    assert list(frame["low"]) == list(range(7))
    assert list(frame["high"]) == [-n % (1 << 29) for n in range(7)]
    assert list(frame["state"]) == ["IDLE", "BUSY", "GONE"] * 2 + ["IDLE"]
    assert list(frame["state"].cat.categories) == ["IDLE", "BUSY", "GONE"]
    assert list(frame["args[1]"]) == list("abcdefg") and set(frame["args[0]"]) == {""}
    assert [str(each) for each in frame["from"]] == ["::", *(f"::{n}" for n in range(1, 7))]
    assert [str(each) for each in frame["to"]] == ["2000::", *(f"2000::{n}" for n in range(1, 7))]
    assert list(frame["grid[1][0]"]) == [-n for n in range(7)]
    assert [each[-1] for each in frame["mac"]] == list(range(7))
    assert list(frame["word"]) == [n << 16 for n in range(7)] and list(frame["hi"]) == list(
        range(7)
    )


UNDESCRIBED = {
    "untyped": (
        "static int send(void *record) { calls.ringbuf_output(record, 8, 0); return 0; }",
        "send(&call)",
        "does not tell of which type",
    ),
    "refused": (
        "struct odd { double *number; }; BPF_HASH(odd, u32, struct odd);",
        "calls.ringbuf_output(&call, 8, 0)",
        "float or double",
    ),
}


@pytest.mark.parametrize("case", UNDESCRIBED)
def test_what_is_not_described_is_shown_as_bytes(
    lab: Lab, program: str, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    declared, sent, reason = UNDESCRIBED[case]
    source = (
        "#include <uapi/linux/ptrace.h>\n"
        "struct call { u64 n; };\n"
        "BPF_RINGBUF_OUTPUT(calls, 8);\n"
        f"{declared}\n"
        "int on_work(struct pt_regs *ctx) {\n"
        "  struct call call = {};\n"
        "  call.n = PT_REGS_PARM1(ctx);\n"
        f"  {sent};\n"
        "  return 0;\n"
        "}\n"
    )
    with lab.load(source) as prog:
        prog.attach_uprobe(name=program, sym="work", fn_name="on_work")
        lab.run([program, "3"])
        rows = prog["calls"].frame()["data"]
    assert reason in capsys.readouterr().out
    assert [int.from_bytes(row, "little") for row in rows] == [0, 1, 2]


def test_collect_hands_out_each_row_once(lab: Lab, program: str) -> None:
    with lab.load(RING) as prog:
        prog.attach_uprobe(name=program, sym="work", fn_name="on_work")
        lab.run([program, "11"])
        calls = prog["calls"]
        assert list(calls.collect(rows=4)["n"]) == [0, 1, 2, 3]
        assert list(calls.collect()["n"]) == [4, 5, 6, 7, 8, 9, 10]
        assert calls.collect(seconds=0.2).empty
        lab.run([program, "2"])
        assert list(calls.collect(seconds=5, rows=2)["n"]) == [0, 1]
        assert len(calls.frame()) == 13
    assert len(calls.frame()) == 13, "rows stay readable after the program is closed"


@pytest.mark.takes_time
def test_an_interrupt_keeps_the_rows_and_the_lab(
    lab: Lab, program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with lab.load(RING) as prog:
        prog.attach_uprobe(name=program, sym="work", fn_name="on_work")
        lab.run([program, "5"])
        interrupt = threading.Timer(0.5, _thread.interrupt_main)
        wait = prog["calls"]._wait

        def begin_to_wait(*args: Any) -> None:
            interrupt.start()
            wait(*args)

        try:
            with monkeypatch.context() as patch:
                patch.setattr(prog["calls"], "_wait", begin_to_wait)
                frame = prog["calls"].collect(seconds=60)
        finally:
            interrupt.cancel()
        assert len(frame) == 5 and frame.attrs["interrupted"]
        lab.run([program, "3"])
        assert len(prog["calls"].collect()) == 3


def test_two_programs_at_one_place(lab: Lab, program: str) -> None:
    with lab.load(RING) as first, lab.load(RESERVE) as second:
        first.attach_uprobe(name=program, sym="work", fn_name="on_work")
        second.attach_uprobe(name=program, sym="work", fn_name="on_work")
        lab.run([program, "7"])
        assert len(first["calls"].frame()) == 7
        assert len(second["calls"].frame()) == 4
        second.detach()
        lab.run([program, "7"])
        assert len(first["calls"].frame()) == 14
        assert len(second["calls"].frame()) == 4


def test_attaching_twice_is_one_probe(lab: Lab, program: str) -> None:
    with lab.load(RING) as prog:
        for _ in range(2):
            prog.attach_uprobe(name=program, sym="work", fn_name="on_work")
        lab.run([program, "7"])
        assert len(prog["calls"].frame()) == 7
        assert prog.attached == [f"uprobe {program}:work -> on_work"]


def test_the_same_text_is_compiled_once_and_starts_empty(lab: Lab, program: str) -> None:
    source = RING + "BPF_HASH(seen, u64);\nBPF_ARRAY(total, u64, 2);\n/* unique to this test */"
    source = source.replace("return 0;", "seen.increment(call.n); total.increment(1); return 0;")
    source = source.replace(
        "BPF_RINGBUF", "BPF_HASH(seen, u64); BPF_ARRAY(total, u64, 2);\nBPF_RINGBUF"
    )
    source = source.split("\nBPF_HASH(seen, u64);\nBPF_ARRAY")[0]
    for _ in range(3):
        with lab.load(source) as prog:
            prog.attach_uprobe(name=program, sym="work", fn_name="on_work")
            lab.run([program, "5"])
            assert len(prog["calls"].frame()) == 5
            assert list(prog["seen"].frame()["value"]) == [1] * 5
            assert list(prog["total"].frame()["value"]) == [0, 5]


@pytest.mark.local
def test_large_programs_are_not_kept_when_they_are_closed() -> None:
    def compiled(name: str, pages: int) -> bool:
        source = RING.replace("(calls, 64)", f"(calls, {pages})")
        with lab.load(f"{source}/* {name} */") as prog:
            return prog.compiled

    with Lab("local") as lab:
        assert [compiled("128 MiB", 32768) for _ in range(2)] == [True, True]
        assert [compiled("32 MiB", 8192) for _ in range(2)] == [True, False]
        assert compiled("as many more", 8192)  # both are too much
        assert [compiled("32 MiB", 8192) for _ in range(2)] == [True, False]


def test_what_was_detached_is_attached_again(lab: Lab, program: str) -> None:
    with lab.load(RING) as prog:
        prog.attach_uprobe(name=program, sym="work", fn_name="on_work")
        attached = prog.attached
        prog.attach_again()  # nothing was detached: nothing happens
        assert prog.attached == attached
        prog.detach()
        assert prog.attached == []
        lab.run([program, "5"])
        prog.attach_again()
        assert prog.attached == attached
        lab.run([program, "11"])
        assert len(prog["calls"].frame()) == 11
