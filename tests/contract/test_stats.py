"""How often a function ran is what the kernel says, exactly, and from zero each time."""

from __future__ import annotations

import pandas as pd
import pytest

from ebpflab import Lab

SOURCE = r"""
#include <uapi/linux/ptrace.h>
BPF_ARRAY(calls, u64, 1);
int on_work(struct pt_regs *ctx) { calls.increment(0); return 0; }
int on_main(struct pt_regs *ctx) { return 0; }
"""


def test_every_run_is_counted(lab: Lab, program: str) -> None:
    with lab.load(SOURCE) as prog:
        prog.attach_uprobe(name=program, sym="work", fn_name="on_work")
        prog.attach_uprobe(name=program, sym="main", fn_name="on_main")
        lab.run([program, "1009"])
        stats = prog.stats()
        assert list(prog["calls"].frame()["value"]) == [1009]
    assert list(stats.columns) == ["function", "probe", "hits", "ns_per_hit", "total_ns", "misses"]
    assert list(stats["function"]) == ["on_work", "on_main"]
    assert list(stats["probe"]) == [f"uprobe {program}:work", f"uprobe {program}:main"]
    assert list(stats["hits"]) == [1009, 1]
    assert list(stats["misses"]) == [0, 0]
    assert (stats["total_ns"] > 0).all()
    assert list(stats["ns_per_hit"] * stats["hits"]) == pytest.approx(list(stats["total_ns"]))
    assert stats.attrs["kernel"] == lab.kernel


def test_counts_stay_readable_and_start_from_zero(lab: Lab, program: str) -> None:
    for runs in ("13", "7"):  # the second time it is the same program, from the idle ones
        with lab.load(SOURCE) as prog:
            assert prog.stats().empty
            prog.attach_uprobe(name=program, sym="work", fn_name="on_work")
            assert list(prog.stats()["hits"]) == [0]
            assert prog.stats()["ns_per_hit"].isna().all()
            lab.run([program, runs])
            prog.detach()
            lab.run([program, "5"])
            assert list(prog.stats()["hits"]) == [int(runs)]
            prog.attach_uprobe(name=program, sym="work", fn_name="on_work")
            lab.run([program, "3"])
        pd.testing.assert_series_equal(
            prog.stats()["hits"], pd.Series([3], name="hits", dtype="Int64")
        )


def test_a_function_at_two_places_has_one_row(lab: Lab, program: str) -> None:
    with lab.load(SOURCE) as prog:
        prog.attach_uprobe(name=program, sym="work", fn_name="on_work")
        lab.run([program, "2"])
        prog.attach_uprobe(name=program, sym="main", fn_name="on_work")
        lab.run([program, "5"])
        (row,) = prog.stats().to_dict("records")
    assert row["hits"] == 2 + 5 + 1
    assert row["probe"] == f"uprobe {program}:work, uprobe {program}:main"


def test_the_kernel_counts_for_nobody_when_nothing_is_attached(lab: Lab, program: str) -> None:
    def held() -> int:
        return lab.run(["ls", "-l", f"/proc/{lab.agent_pid}/fd"]).stdout.count("bpf-stats")

    before = held()
    with lab.load(SOURCE) as prog:
        assert held() == before
        prog.attach_uprobe(name=program, sym="work", fn_name="on_work")
        assert held() == before + 1
        prog.detach()
        assert held() == before


def test_what_reading_costs_and_what_was_lost(lab: Lab, program: str) -> None:
    source = SOURCE.replace("BPF_ARRAY", "BPF_RINGBUF_OUTPUT(numbers, 1);\nBPF_ARRAY").replace(
        "calls.increment(0);",
        """
        u64 n = 7;
        #pragma clang loop unroll(disable)
        for (int i = 0; i < 300; i++) numbers.ringbuf_output(&n, sizeof(n), 0);
        """,
    )
    with lab.load(source) as prog:
        assert prog.stats().attrs["streams"]["numbers"]["events"] == 0
        prog.attach_uprobe(name=program, sym="work", fn_name="on_work")
        lab.run([program, "13"])  # 4,800 bytes a call, into a ring of 4,096
        rows = len(prog["numbers"].frame())
        found = prog.stats().attrs["streams"]["numbers"]
        assert found["events"] == rows and found["lost"] == 13 * 300 - rows > 0
        assert found["share_lost"] == pytest.approx(1 - rows / (13 * 300))
        assert found["drain_ns_per_event"] > 0
        assert "ns an event" in prog._repr_html_()
