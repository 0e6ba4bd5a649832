"""Recordings of real events: whole, cut off, on a full disk; read by pandas and by DuckDB."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow.parquet
import pytest

import ebpflab
from ebpflab import Lab, Program
from ebpflab.errors import RecordingError

SOURCE = r"""
#include <uapi/linux/ptrace.h>
struct call { u64 number; u32 pid; char comm[16]; char name[8]; u8 raw[20]; };
BPF_RINGBUF_OUTPUT(calls, 64);
int on_work(struct pt_regs *ctx) {
  struct call call = {};
  call.number = PT_REGS_PARM1(ctx);
  call.pid = bpf_get_current_pid_tgid() >> 32;
  bpf_get_current_comm(&call.comm, sizeof(call.comm));
  bpf_probe_read_user_str(call.name, sizeof(call.name), (void *)PT_REGS_PARM2(ctx));
  calls.ringbuf_output(&call, sizeof(call), 0);
  return 0;
}
"""


@pytest.fixture(scope="module")
def prog(lab: Lab, program: str) -> Iterator[Program]:
    with lab.load(SOURCE) as prog:
        prog.attach_uprobe(name=program, sym="work", fn_name="on_work")
        yield prog


@pytest.fixture
def recorded(lab: Lab, program: str, prog: Program, tmp_path: Path) -> Path:
    """A recording of 1009 calls, in three runs."""
    before = len(prog["calls"].frame())
    with prog["calls"].record(tmp_path / "calls.arrows") as recorder:
        for calls in (2, 7, 1000):
            lab.run([program, str(calls)])
            prog["calls"].frame()
        assert not recorder.error
    assert recorder.rows == 1009 == len(prog["calls"].frame()) - before
    lab.run([program, "3"])  # after its end: not in it
    return tmp_path / "calls.arrows"


def test_a_recording_is_what_the_stream_showed(prog: Program, lab: Lab, recorded: Path) -> None:
    recording = ebpflab.open_recording(recorded)
    frame = recording.frame()
    shown = prog["calls"].frame().iloc[-1012:-3].reset_index(drop=True)
    assert list(frame) == list(shown) and len(frame) == 1009
    assert frame.attrs["kernel"] == lab.kernel and frame.attrs["target"] == lab.target
    assert (frame.attrs["lost"], frame.attrs["whole"]) == (0, True)
    for name in ("number", "pid"):
        assert frame[name].dtype == shown[name].dtype
        assert (frame[name] == shown[name]).all()
    assert set(frame["comm"]) == {"target"} and set(frame["name"]) == {"hello"}
    assert lab.kernel in repr(recording)


def test_cut_anywhere_it_reads_up_to_the_cut(recorded: Path) -> None:
    data = recorded.read_bytes()
    whole = ebpflab.open_recording(recorded).frame()["number"].tolist()
    seen = set()
    for size in range(len(data) - 1, 2000, -(len(data) // 40)):
        recorded.write_bytes(data[:size])
        cut = ebpflab.open_recording(recorded)
        rows = cut.frame()["number"].tolist()
        assert rows == whole[: len(rows)] and cut.whole is False
        seen.add(len(rows))
    assert len(seen) > 1  # some cuts fell before the end of a batch with rows


def test_a_full_disk_ends_the_recording_and_nothing_else(
    lab: Lab, program: str, prog: Program, capsys: pytest.CaptureFixture[str]
) -> None:
    before = len(prog["calls"].frame())
    with prog["calls"].record("/dev/full") as recorder:
        lab.run([program, "5"])
        assert len(prog["calls"].frame()) == before + 5
    assert recorder.error is not None and recorder.rows == 0
    assert "'/dev/full' has ended" in capsys.readouterr().out


def test_parquet_by_host_and_date_is_read_by_duckdb(recorded: Path, tmp_path: Path) -> None:
    folder = ebpflab.open_recording(recorded).to_parquet(tmp_path / "all")
    ebpflab.open_recording(recorded).to_parquet(folder)  # the same once more changes nothing
    where = str(folder / "**" / "*.parquet")
    found = duckdb.sql(
        f"SELECT host, date, count(*), sum(number) FROM '{where}' GROUP BY ALL"
    ).fetchall()
    today = pd.Timestamp.now(tz="UTC").date()
    ((_, date, rows, total),) = found
    assert (rows, total) == (1009, sum(map(sum, (range(2), range(7), range(1000)))))
    assert abs((pd.Timestamp(date).date() - today).days) <= 1
    (file,) = folder.rglob("*.parquet")
    told = json.loads(pyarrow.parquet.read_schema(file).metadata[b"ebpflab"])
    assert told == {**ebpflab.open_recording(recorded).attrs, "lost": 0, "whole": True}


def test_duckdb_reads_a_recording_batch_by_batch(recorded: Path) -> None:
    rows = ebpflab.open_recording(recorded).reader()
    assert duckdb.sql("SELECT max(number), count(*) FROM rows").fetchall() == [(999, 1009)]
    del rows


def test_what_is_no_recording_is_told(prog: Program, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("number,pid\n1,2\n")
    for path, said in [("text", "is not a recording"), ("absent", "There is no recording")]:
        with pytest.raises(RecordingError, match=said):
            ebpflab.open_recording(tmp_path / path)
    with pytest.raises(RecordingError, match="No such file or directory"):
        prog["calls"].record(tmp_path / "absent" / "calls.arrows")
