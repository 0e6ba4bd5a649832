"""A stream keeps what it was told to; the rest is dropped and counted, or in a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import ebpflab
from ebpflab import Lab, Program
from ebpflab.errors import RecordingError

SOURCE = r"""
#include <uapi/linux/ptrace.h>
struct call { u64 number; };
BPF_RINGBUF_OUTPUT(calls, 64);
BPF_RINGBUF_OUTPUT(odd, 64);
int on_work(struct pt_regs *ctx) {
  struct call call = {.number = PT_REGS_PARM1(ctx)};
  calls.ringbuf_output(&call, sizeof(call), 0);
  if (call.number & 1) odd.ringbuf_output(&call, sizeof(call), 0);
  return 0;
}
"""
RECORD_BYTES = 16
"""Of a record in the kernel's buffer: 8 of header, 8 of data."""


@pytest.fixture
def prog(lab: Lab, program: str) -> Iterator[Program]:
    with lab.load(SOURCE) as prog:
        prog.attach_uprobe(name=program, sym="work", fn_name="on_work")
        yield prog


def test_no_more_rows_than_asked_for_are_kept(lab: Lab, program: str, prog: Program) -> None:
    calls = prog["calls"]
    lab.run([program, "1009"])
    calls.keep(rows=101)
    assert list(calls.frame()["number"]) == list(range(908, 1009))
    lab.run([program, "7"])
    frame = calls.frame()
    assert list(frame["number"]) == [*range(915, 1009), *range(7)]
    assert (frame.attrs["dropped"], frame.attrs["lost"], frame.attrs["spilled"]) == (915, 0, 0)
    assert "101 rows, 0 lost, 915 dropped" in repr(calls)
    assert "calls: 101 rows, 0 lost, 915 dropped; odd: 507 rows, 0 lost" in repr(prog)
    assert "101 rows, 0 lost, 915 dropped" in prog._repr_html_()


def test_no_more_bytes_than_asked_for_are_kept(lab: Lab, program: str, prog: Program) -> None:
    prog["calls"].keep(size_bytes=10 * RECORD_BYTES + 1)
    lab.run([program, "1009"])
    assert list(prog["calls"].frame()["number"]) == list(range(999, 1009))
    prog["calls"].keep()
    lab.run([program, "1009"])
    assert len(prog["calls"].frame()) == 10 + 1009


def test_what_is_not_kept_is_not_collected(lab: Lab, program: str, prog: Program) -> None:
    calls = prog["calls"]
    lab.run([program, "11"])
    assert list(calls.collect(rows=4)["number"]) == [0, 1, 2, 3]
    calls.keep(rows=5)
    assert list(calls.collect(rows=2)["number"]) == [6, 7]
    lab.run([program, "2"])
    assert list(calls.collect()["number"]) == [8, 9, 10, 0, 1]


def test_every_row_is_in_the_file_or_in_the_frame(
    lab: Lab, program: str, prog: Program, tmp_path: Path
) -> None:
    calls = prog["calls"]
    calls.keep(rows=100, spill=tmp_path / "older.arrows")
    lab.run([program, "1009"])
    kept = calls.frame()
    assert (calls.spilled, calls.dropped, len(kept)) == (909, 0, 100)
    calls.keep(rows=100)
    older = ebpflab.open_recording(tmp_path / "older.arrows").frame()
    assert older.attrs["whole"] and older.attrs["kernel"] == lab.kernel
    assert [*older["number"], *kept["number"]] == list(range(1009))
    lab.run([program, "3"])
    assert len(calls.frame()) == 100
    assert (calls.spilled, calls.dropped) == (909, 3), "the file has ended"


def test_a_file_that_is_full_drops_and_counts(lab: Lab, program: str, prog: Program) -> None:
    prog["calls"].keep(rows=10, spill="/dev/full")
    lab.run([program, "13"])
    lab.run([program, "1009"])
    assert list(prog["calls"].frame()["number"]) == list(range(999, 1009))
    assert prog["calls"].dropped == 13 + 1009 - 10


def test_what_cannot_be_kept_is_told(prog: Program, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="rows= is a whole number, 1 or more"):
        prog["calls"].keep(rows=0)
    with pytest.raises(RecordingError, match="No such file or directory"):
        prog["calls"].keep(rows=10, spill=tmp_path / "absent" / "older.arrows")
