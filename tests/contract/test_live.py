"""A live view over real events: what it counts, and what its end leaves attached."""

from __future__ import annotations

import threading

import pytest

from ebpflab import Lab
from ebpflab.errors import ProgramError, TableError, UnknownName

SOURCE = r"""
#include <uapi/linux/ptrace.h>
struct call { u64 time_ns; s64 size_bytes; };
BPF_RINGBUF_OUTPUT(calls, 64);
BPF_HISTOGRAM(dist);
BPF_HASH(by_size, s64, u64);
int on_work(struct pt_regs *ctx) {
  struct call call = {.time_ns = bpf_ktime_get_ns(), .size_bytes = PT_REGS_PARM1(ctx)};
  dist.increment(bpf_log2l(call.size_bytes));
  by_size.increment(call.size_bytes);
  calls.ringbuf_output(&call, sizeof(call), 0);
  return 0;
}
"""
LOG2_OF_0_TO_1008 = [2, 2, 4, 8, 16, 32, 64, 128, 256, 497]
PROBES = 'ls -l "/proc/$1/fd" | grep -c perf_event'


def probes(lab: Lab) -> int:
    """How many probes the agent holds open, as the kernel lists them; and perf buffers, of programs
    that it keeps for another time, so what counts is the difference."""
    return int(lab.run(["sh", "-c", PROBES, "sh", str(lab.agent_pid)]).stdout)


def test_each_event_is_counted_once_and_stays_to_be_collected(lab: Lab, program: str) -> None:
    with lab.load(SOURCE) as prog:
        before = probes(lab)
        prog.attach_uprobe(name=program, sym="work", fn_name="on_work")
        views = [prog["calls"].live("size_bytes"), prog["dist"].live(unit="bytes")]
        views.append(prog["by_size"].live())
        assert probes(lab) == before + 1
        lab.run([program, "1009"])
        views[0].stop()
        assert (prog.attached, probes(lab)) == ([], before)
        sources = [view._source for view in views]
        histories = [view._history for view in views]
        for view, source in zip(views, sources, strict=True):
            view.close()
            assert view.events == source.totals[0] == 1009
        for history in histories[:2]:
            frame = history.frame(120)
            assert frame.first == 1 and list(frame.counts.sum(axis=0)) == LOG2_OF_0_TO_1008
        assert len(sources[2].newest()) == 10
        assert list(sources[0].newest()["size_bytes"]) == [*range(1008, 998, -1)]
        assert len(prog["calls"].collect()) == 1009
    assert not [each for each in threading.enumerate() if each.name == "ebpflab live"]


def test_start_attaches_what_stop_detached(lab: Lab, program: str) -> None:
    with lab.load(SOURCE) as prog:
        prog.attach_uprobe(name=program, sym="work", fn_name="on_work")
        live = prog["calls"].live()
        live.stop()
        lab.run([program, "5"])
        live.start()
        lab.run([program, "7"])
        live.close()
        assert len(prog["calls"].frame()) == 7 and prog.attached == []
        prog["calls"].live().close()  # a new one attaches again


def test_a_closed_program_ends_its_view(lab: Lab, program: str) -> None:
    with lab.load(SOURCE) as prog:
        prog.attach_uprobe(name=program, sym="work", fn_name="on_work")
        live = prog["calls"].live()
        thread = live._thread
    thread.join(60)
    assert not thread.is_alive() and "ended" in repr(live)
    with pytest.raises(ProgramError, match="its program is closed"):
        prog["calls"].live()


def test_what_cannot_be_drawn_is_refused(lab: Lab) -> None:
    more = SOURCE + "struct triple { u32 a, b, c; };\nBPF_HASH(triples, struct triple, u64);\n"
    with lab.load(more) as prog:
        with pytest.raises(UnknownName, match=r"'size_byte'.*Closest matches: size_bytes"):
            prog["calls"].live("size_byte")
        with pytest.raises(TableError, match="is not a histogram"):
            prog["triples"].live(scale="log2")
