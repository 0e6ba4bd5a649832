"""A DataFrame of ours survives what users of pandas do with it."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable

import pandas as pd
import pytest

from ebpflab import Lab, open_recording

SOURCE = r"""
#include <uapi/linux/ptrace.h>
#include <uapi/linux/in6.h>
enum way { IN, OUT };
struct call {
  u64 time_ns; u32 pid; enum way way; char comm[16]; u8 mac[6]; struct in6_addr from;
};
struct key { u32 cpu; u32 value; };
struct value { u64 value; u64 value_value; u32 cpu; };
BPF_RINGBUF_OUTPUT(calls, 8);
BPF_PERCPU_HASH(by_cpu, struct key, struct value);
BPF_HISTOGRAM(sizes);
BPF_STACK_TRACE(stacks, 64);
struct site { u32 pid; int user_stack; };
BPF_HASH(sites, struct site);
int on_work(struct pt_regs *ctx) {
  struct call call = {.time_ns = bpf_ktime_get_ns(), .way = OUT};
  call.pid = bpf_get_current_pid_tgid() >> 32;
  bpf_get_current_comm(&call.comm, sizeof(call.comm));
  calls.ringbuf_output(&call, sizeof(call), 0);
  struct key key = {.cpu = 40, .value = 41};
  struct value value = {.value = 42, .value_value = 43, .cpu = 44};
  by_cpu.update(&key, &value);
  sizes.increment(bpf_log2l(PT_REGS_PARM1(ctx)));
  struct site site = {.pid = call.pid};
  site.user_stack = stacks.get_stackid(ctx, BPF_F_USER_STACK);
  sites.increment(site);
  return 0;
}
"""


@pytest.fixture(scope="module")
def frames(
    lab: Lab, program: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, pd.DataFrame]:
    path = tmp_path_factory.mktemp("recording") / "calls.arrows"
    with lab.load(SOURCE) as prog:
        prog.attach_uprobe(name=program, sym="work", fn_name="on_work")
        with prog["calls"].record(path):
            lab.run([program, "3"])
        return {
            "stream": prog["calls"].frame(),
            "collected": prog["calls"].collect(rows=2),
            "table": prog["by_cpu"].frame(),
            "histogram": prog["sizes"].histogram(),
            "stats": prog.stats(),
            "features": lab.features(),
            "recording": open_recording(path).frame(),
            "stacks": prog.stacks("sites"),
        }


def parquet(frame: pd.DataFrame) -> pd.DataFrame:
    frame.to_parquet(file := io.BytesIO())
    return pd.read_parquet(file)


def feather(frame: pd.DataFrame) -> pd.DataFrame:
    frame.reset_index(drop=True).to_feather(file := io.BytesIO())
    return pd.read_feather(file)


def csv(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(frame.to_csv(index=False)))


def as_json(frame: pd.DataFrame) -> pd.DataFrame:
    text = frame.reset_index(drop=True).to_json(orient="records", default_handler=str)
    return pd.DataFrame(json.loads(text))


WAYS: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "to_parquet": parquet,
    "to_feather": feather,
    "to_csv": csv,
    "to_json": as_json,
    "pickle": lambda frame: pickle.loads(pickle.dumps(frame)),
    "copy": lambda frame: frame.copy(),
    "concat": lambda frame: pd.concat([frame, frame]).iloc[: len(frame)],
    "merge": lambda frame: frame.merge(frame, left_index=True, right_index=True).iloc[: len(frame)],
    "query": lambda frame: frame[frame.columns[:1]].join(frame[frame.columns[1:]]),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_frame_survives(frames: dict[str, pd.DataFrame], way: str) -> None:
    for name, frame in frames.items():
        assert len(frame), name
        after = WAYS[way](frame)
        assert len(after) == len(frame), name
        json.dumps(after.attrs)


def test_attrs_are_json(frames: dict[str, pd.DataFrame]) -> None:
    for name, frame in frames.items():
        assert json.loads(json.dumps(frame.attrs)) == frame.attrs, name


def test_no_field_of_the_reader_is_lost(frames: dict[str, pd.DataFrame]) -> None:
    """Fields have the names that columns of ours would have."""
    table = frames["table"].set_index("cpu_", drop=False)
    assert list(table) == ["cpu", "value", "cpu_", "value_value_", "value_value", "cpu_value"]
    [row] = table[table["value_value_"] != 0].to_dict("records")
    assert row.pop("cpu_") in table.index
    assert row == {
        "cpu": 40,
        "value": 41,
        "value_value_": 42,
        "value_value": 43,
        "cpu_value": 44,
    }
