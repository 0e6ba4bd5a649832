"""produced = delivered + lost, exactly, for each way of sending a record."""

from __future__ import annotations

import pytest

from ebpflab import Lab

BURST = 300
"""Records that one call sends."""

HEAD = r"""
#include <uapi/linux/ptrace.h>
struct record { u64 n; char fill[56]; };
"""
RING = (
    HEAD
    + r"""
BPF_RINGBUF_OUTPUT(records, 1);
int on_work(struct pt_regs *ctx) {
  struct record record = {};
  #pragma clang loop unroll(disable)
  for (int i = 0; i < BURST; i++) {
    record.n = i;
    records.ringbuf_output(&record, sizeof(record), 0);
  }
  return 0;
}
"""
)
RESERVE = (
    HEAD
    + r"""
BPF_RINGBUF_OUTPUT(records, 1);
int on_work(struct pt_regs *ctx) {
  #pragma clang loop unroll(disable)
  for (int i = 0; i < BURST; i++) {
    struct record *record = records.ringbuf_reserve(sizeof(*record));
    if (!record) continue;
    record->n = i;
    records.ringbuf_submit(record, 0);
  }
  return 0;
}
"""
)
PERF = RING.replace("BPF_RINGBUF_OUTPUT(records, 1)", "BPF_PERF_OUTPUT(records)").replace(
    "records.ringbuf_output(&record, sizeof(record), 0)",
    "records.perf_submit(ctx, &record, sizeof(record))",
)
STALLED = 'kill -STOP "$1"; "$2" "$3"; kill -CONT "$1"'
"""Runs the workload while the agent, which would empty the buffer, is stopped."""


@pytest.mark.parametrize(
    "source", [RING, RESERVE, PERF], ids=["ringbuf_output", "ringbuf_reserve", "perf_submit"]
)
def test_every_record_is_delivered_or_counted_as_lost(
    lab: Lab, program: str, source: str, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = 23
    with lab.load(source.replace("BURST", str(BURST))) as prog:
        prog.attach_uprobe(name=program, sym="work", fn_name="on_work")
        lab.run(["sh", "-c", STALLED, "sh", str(lab.agent_pid), program, str(calls)])
        frame = prog["records"].frame()
        lost = prog["records"].lost
        assert lost > 0
        assert len(frame) + lost == calls * BURST
        assert frame.attrs["lost"] == lost
        assert frame["n"].between(0, BURST - 1).all(), "no record is torn"
        prog["records"].collect()
    said = capsys.readouterr()
    assert f"{lost:,} events were lost" in said.out and said.err == ""
