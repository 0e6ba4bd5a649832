"""Maps come out as they are in the kernel."""

from __future__ import annotations

import pandas as pd
import pytest

from ebpflab import Lab
from ebpflab.errors import TableError, UnknownName

TABLES = r"""
#include <uapi/linux/ptrace.h>
struct key { u32 remainder; char name[4]; };
struct value { u64 sum; u64 count; };
BPF_HASH(by_number, s64, u64, 4096);
BPF_HASH(by_key, struct key, struct value);
BPF_ARRAY(totals, u64, 3);
BPF_PERCPU_ARRAY(per_cpu, u64, 1);
BPF_HISTOGRAM(dist);
BPF_HISTOGRAM(linear);
int on_work(struct pt_regs *ctx) {
  u64 n = PT_REGS_PARM1(ctx);
  by_number.increment(n);
  struct key key = {.remainder = n % 2, .name = "abc"};
  struct value zero = {}, *value = by_key.lookup_or_try_init(&key, &zero);
  if (value) { value->sum += n; value->count++; }
  totals.increment(n % 3);
  per_cpu.increment(0);
  dist.increment(bpf_log2l(n));
  linear.increment(n);
  return 0;
}
"""


@pytest.fixture(scope="module")
def prog(lab: Lab, program: str):  # type: ignore[no-untyped-def]
    with lab.load(TABLES) as prog:
        prog.attach_uprobe(name=program, sym="work", fn_name="on_work")
        lab.run([program, "3001"])
        yield prog


def test_hash(prog) -> None:  # type: ignore[no-untyped-def]
    frame = prog["by_number"].frame().sort_values("key")
    assert list(frame["key"]) == list(range(3001))
    assert set(frame["value"]) == {1}


def test_hash_of_structs(prog) -> None:  # type: ignore[no-untyped-def]
    frame = prog["by_key"].frame().set_index("remainder")
    assert list(frame["name"]) == ["abc", "abc"]
    assert frame.loc[0, "sum"] == sum(range(0, 3001, 2)) and frame.loc[0, "count"] == 1501
    assert frame.loc[1, "sum"] == sum(range(1, 3001, 2)) and frame.loc[1, "count"] == 1500


def test_array(prog) -> None:  # type: ignore[no-untyped-def]
    assert list(prog["totals"].frame()["value"]) == [1001, 1000, 1000]


def test_per_cpu_array_has_a_row_a_cpu(prog) -> None:  # type: ignore[no-untyped-def]
    frame = prog["per_cpu"].frame()
    assert list(frame["cpu"]) == list(range(len(frame)))
    assert frame["value"].sum() == 3001


def test_log2_histogram(prog) -> None:  # type: ignore[no-untyped-def]
    frame = prog["dist"].histogram()
    truth = pd.cut(pd.Series(range(3001)), frame.index).value_counts().reindex(frame.index)
    assert list(frame["count"]) == list(truth)
    assert frame.index[3] == pd.Interval(8, 16, closed="left")


def test_linear_histogram(prog) -> None:  # type: ignore[no-untyped-def]
    frame = prog["linear"].histogram(scale="linear")
    assert list(frame["count"][:64]) == [1] * 64


def test_stacks_begin_where_they_were(lab: Lab, program: str) -> None:
    source = r"""
    #include <uapi/linux/ptrace.h>
    BPF_STACK_TRACE(stacks, 1024);
    BPF_HASH(counts, int, u64);
    BPF_ARRAY(place, u64, 1);
    int on_work(struct pt_regs *ctx) {
      u64 here = PT_REGS_IP(ctx);
      place.update(&(int){0}, &here);
      counts.increment(stacks.get_stackid(ctx, BPF_F_USER_STACK));
      return 0;
    }
    """
    with lab.load(source) as prog:
        prog.attach_uprobe(name=program, sym="work", fn_name="on_work")
        assert prog["stacks"].frame().empty
        lab.run([program, "31"])
        counts, stacks = prog["counts"].frame(), prog["stacks"].frame()
        here = prog["place"].frame()["value"][0]
    assert list(counts["value"]) == [31]
    assert list(stacks["stack_id"]) == list(counts["key"])
    assert stacks["addresses"][0][0] == here


def test_what_is_no_histogram_says_so(prog) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(TableError, match="not a histogram"):
        prog["by_key"].histogram()


def test_clear(lab: Lab, program: str) -> None:
    with lab.load(TABLES) as prog:
        prog.attach_uprobe(name=program, sym="work", fn_name="on_work")
        lab.run([program, "5"])
        prog["by_number"].clear()
        prog["totals"].clear()
        assert prog["by_number"].frame().empty
        assert list(prog["totals"].frame()["value"]) == [0, 0, 0]


def test_an_unknown_map_gets_its_closest_match(prog) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UnknownName, match=r"no map 'total'.*Closest matches: totals"):
        prog["total"]
