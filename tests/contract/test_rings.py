"""EBPFLAB_RINGS: a ring for each CPU, one stream, merged by time, every loss counted."""

from __future__ import annotations

from ebpflab import Lab

SOURCE = r"""
#include <uapi/linux/ptrace.h>
struct call { u64 time_ns; u32 tid, cpu; u64 n; };
EBPFLAB_RINGS(calls, 64);
BPF_RINGBUF_OUTPUT(beside, 8);
int on_work(struct pt_regs *ctx) {
  struct call call = {}, *taken;
  call.time_ns = bpf_ktime_get_ns();
  call.tid = bpf_get_current_pid_tgid();
  call.cpu = bpf_get_smp_processor_id();
  call.n = PT_REGS_PARM1(ctx);
  if (call.n & 1) {
    calls.ringbuf_output(&call, sizeof(call), 0);
  } else {
    taken = calls.ringbuf_reserve(sizeof(struct call));
    if (!taken) return 0;
    *taken = call;
    if (call.n % 3) calls.ringbuf_submit(taken, 0); else calls.ringbuf_discard(taken, 0);
  }
  if (call.n < 5) beside.ringbuf_output(&call, sizeof(call), 0);
  return 0;
}
"""
ON_EACH_CPU = """
for cpu in $(seq 0 $(($(nproc) - 1))); do taskset -c "$cpu" "$0" "$1" & done
wait
"""
SENT = [n for n in range(1009) if n % 2 or n % 3]


def test_rings_of_all_cpus_are_one_stream_in_the_order_of_time(lab: Lab, program: str) -> None:
    cpus = int(lab.run(["nproc"]).stdout)
    assert cpus > 1
    for _ in "12":  # the second time it is the same program, from the idle ones
        with lab.load(SOURCE) as prog:
            prog.attach_uprobe(name=program, sym="work", fn_name="on_work")
            lab.run(["sh", "-c", ON_EACH_CPU, program, "1009"])
            frame = prog["calls"].frame()
            taken = [prog["calls"].collect(rows=1000), prog["calls"].collect()]
            assert len(prog["beside"].frame()) == 5 * cpus
            assert repr(prog["beside"])
        assert frame["time_ns"].is_monotonic_increasing
        assert list(frame.index) == list(range(len(SENT) * cpus))
        assert set(frame["cpu"]) == set(range(cpus))
        for _, calls in frame.groupby("tid"):
            assert list(calls["n"]) == SENT
        assert [len(each) for each in taken] == [1000, len(frame) - 1000]
        assert all(each["time_ns"].is_monotonic_increasing for each in taken)
        found = sorted([*taken[0]["time_ns"], *taken[1]["time_ns"]])
        assert found == list(frame["time_ns"]), "each row once"


def test_what_is_lost_in_any_ring_is_counted(lab: Lab, program: str) -> None:
    cpus = int(lab.run(["nproc"]).stdout)
    source = SOURCE.replace("calls, 64", "calls, 1")
    stalled = f'kill -STOP "$2"; {ON_EACH_CPU} kill -CONT "$2"'
    with lab.load(source) as prog:
        prog.attach_uprobe(name=program, sym="work", fn_name="on_work")
        lab.run(["sh", "-c", stalled, program, "1009", str(lab.agent_pid)])
        rows, lost = len(prog["calls"].frame()), prog["calls"].lost
    # Which of those to be discarded found no room, and were counted as lost, nobody can tell.
    assert len(SENT) * cpus <= rows + lost <= 1009 * cpus
    assert lost > (1009 - 4096 // 40) * (cpus - 1), "in more than one ring"
