"""A recording of 2 GiB, read in 1 GiB of memory.

    .venv/bin/python benchmarks/recording.py [FOLDER]

A program is traced that sends records of 40 bytes as fast as it can, until 2 GiB of rows are in the
file. Then a process in a memory cgroup of 1 GiB, page cache included, asks DuckDB to count, sum and
group all rows, straight from the recording and from a Parquet dataset made of it, and the answers
are compared with what is known of the program. Takes root, and memory cgroups (version 1 or 2).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import duckdb
from measure import HERE

import ebpflab
from ebpflab import Lab

FILE_BYTES, LIMIT_BYTES = 2 << 30, 1 << 30
BURST, CALLS = 250, 4_000
SOURCE = r"""
#include <uapi/linux/ptrace.h>
struct call { u64 number, time_ns; u32 pid, tid; char comm[16]; };
BPF_RINGBUF_OUTPUT(calls, 16384);
int on_work(struct pt_regs *ctx) {
  struct call call = {.time_ns = bpf_ktime_get_ns(), .number = PT_REGS_PARM1(ctx) * BURST};
  call.tid = bpf_get_current_pid_tgid();
  call.pid = bpf_get_current_pid_tgid() >> 32;
  bpf_get_current_comm(&call.comm, sizeof(call.comm));
  #pragma clang loop unroll(disable)
  for (int n = 0; n < BURST; n++, call.number++) calls.ringbuf_output(&call, sizeof(call), 0);
  return 0;
}
"""


def make(path: Path) -> None:
    """Record until the file is large enough."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, Lab("local") as lab:
        program = f"{folder}/workload"
        subprocess.run(["gcc", "-O2", "-o", program, HERE / "workload.c"], check=True)
        with lab.load(SOURCE.replace("BURST", str(BURST))) as prog:
            prog.attach_uprobe(name=program, sym="work", fn_name="on_work")
            calls = prog["calls"]
            calls.keep(rows=1)
            with calls.record(path) as recorder:
                while path.stat().st_size < FILE_BYTES:
                    lab.run([program, "calls", str(CALLS)])
            rows, lost = recorder.rows, recorder.lost
    seconds = time.monotonic() - began
    print(f"made {path.stat().st_size:,} bytes: {rows:,} rows, {lost:,} lost, {seconds:.0f} s")


def limited() -> Path:
    """A memory cgroup of LIMIT_BYTES, with this process in it."""
    one = Path("/sys/fs/cgroup/memory")
    root, limit = (one, "memory.limit_in_bytes") if one.exists() else (one.parent, "memory.max")
    group = root / f"ebpflab-{os.getpid()}"
    group.mkdir()
    (group / limit).write_text(str(LIMIT_BYTES))
    (group / "cgroup.procs").write_text(str(os.getpid()))
    return group


def ask(path: Path) -> None:
    """Two questions to the recording and to Parquet; both must give the same answers."""
    group = limited()
    recording = ebpflab.open_recording(path)
    question = "SELECT count(*), sum(number), count(DISTINCT comm), max(time_ns) FROM"
    began = time.monotonic()
    rows = recording.reader()  # the name in the query
    (direct,) = duckdb.execute(f"{question} rows").fetchall()
    del rows
    print(f"DuckDB, the recording: {time.monotonic() - began:.1f} s, {direct[0]:,} rows")
    began = time.monotonic()
    folder = recording.to_parquet(path.with_suffix(""))
    print(f"into Parquet: {time.monotonic() - began:.1f} s")
    began = time.monotonic()
    (parquet,) = duckdb.execute(f"{question} '{folder}/**/*.parquet'").fetchall()
    print(f"DuckDB, Parquet: {time.monotonic() - began:.1f} s")
    assert recording.whole and direct == parquet, (recording.whole, direct, parquet)
    for name in ("memory.max_usage_in_bytes", "memory.peak"):
        if (group / name).exists():
            peak = int((group / name).read_text())
            print(f"at most {peak:,} bytes of memory, of {LIMIT_BYTES:,}")


def main() -> None:
    if sys.argv[1:2] == ["--ask"]:
        return ask(Path(sys.argv[2]))
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as folder:
        path = Path(folder) / "calls.arrows"
        make(path)
        asking = subprocess.Popen([sys.executable, __file__, "--ask", str(path)])
        status = asking.wait()
        for group in Path("/sys/fs/cgroup").glob(f"**/ebpflab-{asking.pid}"):
            group.rmdir()
    sys.exit(status)


main()
