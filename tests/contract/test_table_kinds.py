"""Every kind of map that BCC can declare: read where it can be read, written, and emptied."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest

from ebpflab import Lab
from ebpflab.errors import TableError
from ebpflab.program import Program

KINDS = r"""
#include <uapi/linux/ptrace.h>
enum side { LEFT, RIGHT };
struct bucket { enum side side; u32 third; u64 slot; };
struct network { u32 prefixlen; u8 data[4]; };
struct network6 { u32 prefixlen; u8 data[16]; };
struct limit { u32 most; enum side side; u32 flags:4; };
struct item { s64 n; char name[4]; };
BPF_HISTOGRAM(dist, struct bucket);
BPF_LPM_TRIE(networks, struct network, u32);
BPF_LPM_TRIE(networks6, struct network6, u32);
BPF_TABLE("lru_hash", u32, u64, recent, 64);
BPF_PERCPU_HASH(by_cpu, u32, u64);
BPF_HASH(limits, u32, struct limit);
BPF_ARRAY(settings, u64, 4);
BPF_QUEUE(waiting, struct item, 100);
BPF_STACK(pile, s64, 100);
BPF_STACK_TRACE(stacks, 64);
BPF_PROG_ARRAY(jumps, 4);
BPF_PERF_ARRAY(counters, 8);
BPF_CGROUP_ARRAY(groups, 1);
BPF_ARRAY(inner, u64, 2);
BPF_HASH_OF_MAPS(outer, u32, "inner", 4);
BPF_ARRAY_OF_MAPS(outers, "inner", 4);
BPF_HASH(jumped, u32, u64);
int on_work(struct pt_regs *ctx) {
  s64 n = PT_REGS_PARM1(ctx);
  u32 key = n;
  struct bucket bucket = {.side = key % 2, .third = key % 3, .slot = bpf_log2l(n)};
  dist.increment(bucket);
  struct limit *limit = limits.lookup(&key);
  if (limit) limit->flags = limit->most + 1;
  u64 count = n * 10;
  recent.update(&key, &count);
  u64 one = 1;
  by_cpu.update(&key, &one);
  struct item item = {.n = n, .name = "abc"};
  waiting.push(&item, 0);
  pile.push(&n, 0);
  jumps.call(ctx, 2);
  return 0;
}
int after_jump(struct pt_regs *ctx) {
  jumped.increment((u32)PT_REGS_PARM1(ctx));
  return 0;
}
"""


@pytest.fixture
def prog(lab: Lab, program: str) -> Iterator[Program]:
    with lab.load(KINDS) as prog:
        prog.attach_uprobe(name=program, sym="work", fn_name="on_work")
        yield prog


def test_a_histogram_for_each_value_of_its_key(lab: Lab, program: str, prog: Program) -> None:
    lab.run([program, "1009"])
    frame = prog["dist"].histogram()
    assert frame.index.names == ["side", "third", "bucket"]
    numbers = pd.Series(range(1009))
    for side, name in enumerate(("LEFT", "RIGHT")):
        for third in range(3):
            found = frame.loc[(name, third)]["count"]
            mine = numbers[(numbers % 2 == side) & (numbers % 3 == third)]
            truth = pd.cut(mine, found.index).value_counts().reindex(found.index)
            assert list(found) == list(truth)
    assert frame["count"].sum() == 1009


def test_lru_and_per_cpu_hashes(lab: Lab, program: str, prog: Program) -> None:
    lab.run([program, "13"])
    recent = prog["recent"].frame().set_index("key")["value"]
    assert recent.sort_index().to_dict() == {n: 10 * n for n in range(13)}
    by_cpu = prog["by_cpu"].frame()
    assert by_cpu.groupby("key")["value"].sum().to_dict() == dict.fromkeys(range(13), 1)


def test_a_queue_and_a_stack_are_emptied(lab: Lab, program: str, prog: Program) -> None:
    lab.run([program, "7"])
    first = prog["waiting"].pop(rows=2)
    assert list(first["n"]) == [0, 1] and set(first["name"]) == {"abc"}
    assert list(prog["waiting"].pop()["n"]) == [2, 3, 4, 5, 6]
    assert list(prog["pile"].pop()["value"]) == [6, 5, 4, 3, 2, 1, 0]
    assert prog["pile"].pop().empty


def test_networks(prog: Program) -> None:
    networks = {"10.0.0.0/8": 1, "10.1.2.0/24": 2}
    for network, value in networks.items():
        prog["networks"][ipaddress.ip_network(network)] = value
    prog["networks6"]["2001:db8::/32"] = 3
    found = prog["networks"].frame().set_index("network")["value"]
    assert found.to_dict() == networks
    (only,) = prog["networks6"].frame()["network"]
    assert only == "2001:db8::/32"
    del prog["networks"]["10.0.0.0/8"]
    assert list(prog["networks"].frame()["value"]) == [2]
    with pytest.raises(TableError, match="no room for an IPv6"):
        prog["networks"]["2001:db8::/32"] = 1


def test_entries_are_written_and_seen_by_the_program(lab: Lab, program: str, prog: Program) -> None:
    prog["limits"][3] = {"most": 4, "side": "RIGHT"}
    prog["limits"][9] = {"most": 1}
    prog["settings"][2] = 1 << 63
    prog["by_cpu"][100] = 5
    lab.run([program, "5"])
    limits = prog["limits"].frame().set_index("key")
    assert limits.loc[3].to_dict() == {"most": 4, "side": "RIGHT", "flags": 5}
    assert limits.loc[9].to_dict() == {"most": 1, "side": "LEFT", "flags": 0}
    assert list(prog["settings"].frame()["value"]) == [0, 0, 1 << 63, 0]
    by_cpu = prog["by_cpu"].frame()
    assert set(by_cpu.loc[by_cpu["key"] == 100, "value"]) == {5}
    del prog["limits"][9]
    assert list(prog["limits"].frame()["key"]) == [3]


def test_what_the_kernel_refuses_to_write(prog: Program) -> None:
    with pytest.raises(TableError, match="room for 4 entries"):
        prog["settings"][4] = 1
    with pytest.raises(TableError, match="no such entry"):
        del prog["limits"][77]
    with pytest.raises(TableError, match="cannot be deleted"):
        del prog["settings"][0]
    with pytest.raises(TableError, match="cannot be written"):
        prog["waiting"][0] = {"n": 1}


def test_a_tail_call_through_a_jump_table(lab: Lab, program: str, prog: Program) -> None:
    prog["jumps"][2] = "after_jump"
    lab.run([program, "11"])
    assert prog["jumped"].frame()["value"].sum() == 11
    assert list(prog["jumps"].frame()["key"]) == [2]


def test_a_jump_table_wants_to_know_who_jumps(lab: Lab) -> None:
    fresh = lab.load(KINDS + "/* nothing of it was ever attached */")
    with fresh as prog, pytest.raises(TableError, match="first attach the function that jumps"):
        prog["jumps"][2] = "after_jump"


@pytest.mark.parametrize("name", ["waiting", "pile"])
def test_looking_into_a_queue_says_why_not(prog: Program, name: str) -> None:
    with pytest.raises(TableError, match=r"pop\(\) takes them out"):
        prog[name].frame()


@pytest.mark.parametrize("name", ["counters", "groups"])
def test_maps_without_entries_say_so(prog: Program, name: str) -> None:
    with pytest.raises(TableError, match="no entries that can be read"):
        prog[name].frame()
    with pytest.raises(TableError, match="not a queue"):
        prog[name].pop()


def test_maps_of_maps_are_tables(prog: Program) -> None:
    assert prog["outer"].frame().empty and prog["outers"].frame().empty


def test_every_kind_is_empty_when_the_program_is_loaded_again(lab: Lab, program: str) -> None:
    for time in range(2):
        with lab.load(KINDS) as prog:
            assert not prog.compiled or time == 0
            for name in ("dist", "networks", "recent", "by_cpu", "limits", "jumps", "jumped"):
                assert prog[name].frame().empty, name
            assert not prog["settings"].frame()["value"].any()
            assert prog["waiting"].pop().empty and prog["pile"].pop().empty
            prog.attach_uprobe(name=program, sym="work", fn_name="on_work")
            prog["jumps"][2] = "after_jump"
            prog["networks"]["10.0.0.0/8"] = np.uint32(1)
            prog["settings"][0] = 1
            lab.run([program, "3"])
            assert len(prog["recent"].frame()) == 3
