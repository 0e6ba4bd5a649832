"""Where programs of known shares spend their time, on a CPU and off it: ``labs/hot``."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
import pytest

from ebpflab import Frame, Lab, PerfSWConfig, PerfType, Program

pytestmark = pytest.mark.vm

HOT = "/opt/ebpflab/labs/hot"
ON_CPU = r"""
struct key { u32 pid; int user_stack_id, kernel_stack_id; char comm[16]; };
BPF_STACK_TRACE(stacks, 16384);
BPF_HASH(counts, struct key, u64, 16384);
int on_sample(void *ctx) {
  struct key key = {.pid = bpf_get_current_pid_tgid() >> 32};
  key.user_stack_id = stacks.get_stackid(ctx, BPF_F_USER_STACK);
  key.kernel_stack_id = stacks.get_stackid(ctx, 0);
  bpf_get_current_comm(&key.comm, sizeof(key.comm));
  counts.increment(key);
  return 0;
}
"""
OFF_CPU = r"""
struct key { u32 pid; int user_stack_id, kernel_stack_id; char comm[16]; };
struct leave { struct key key; u64 at_ns; };
BPF_STACK_TRACE(stacks, 16384);
BPF_HASH(counts, struct key, u64, 16384);
BPF_HASH(left, u32, struct leave, 16384);
BPF_HASH(began, u32, u64);
BPF_HASH(asleep_ns, u32, u64);
TRACEPOINT_PROBE(syscalls, sys_enter_nanosleep) {
  u32 tid = bpf_get_current_pid_tgid();
  u64 now_ns = bpf_ktime_get_ns();
  began.update(&tid, &now_ns);
  return 0;
}
TRACEPOINT_PROBE(syscalls, sys_exit_nanosleep) {
  u32 tid = bpf_get_current_pid_tgid();
  u64 *began_ns = began.lookup(&tid);
  if (began_ns) asleep_ns.increment(tid, bpf_ktime_get_ns() - *began_ns);
  return 0;
}
TRACEPOINT_PROBE(sched, sched_switch) {
  u32 out = args->prev_pid, in = args->next_pid;
  struct leave leave = {.at_ns = bpf_ktime_get_ns()};
  leave.key.pid = bpf_get_current_pid_tgid() >> 32;
  leave.key.user_stack_id = stacks.get_stackid(args, BPF_F_USER_STACK);
  leave.key.kernel_stack_id = stacks.get_stackid(args, 0);
  bpf_get_current_comm(&leave.key.comm, sizeof(leave.key.comm));
  if (out) left.update(&out, &leave);
  struct leave *back = left.lookup(&in);
  if (in && back) {
    struct key key = back->key;
    counts.increment(key, leave.at_ns - back->at_ns);
    left.delete(&in);
  }
  return 0;
}
"""


@pytest.fixture(scope="module")
def sampled(lab: Lab) -> Iterator[Program]:
    """Every CPU sampled, at a prime number of times a second."""
    with lab.load(ON_CPU) as prog:
        event = {"ev_type": PerfType.SOFTWARE, "ev_config": PerfSWConfig.CPU_CLOCK}
        prog.attach_perf_event(**event, fn_name="on_sample", sample_freq=997)
        yield prog


def _through(frame: pd.DataFrame, function: str) -> float:
    """The sum of the values whose stack goes through a function."""
    through = frame["stack"].map(lambda stack: function in _names(stack))
    return float(frame.loc[through, "value"].sum())


def _names(stack: tuple[Frame, ...]) -> set[str]:
    return {each.name for each in stack}


def _run(lab: Lab, prog: Program, *argv: str) -> pd.DataFrame:
    """Samples of a command, which has ended."""
    done = lab.run(argv)
    assert done.returncode == 0, done.stderr
    frame = prog.stacks()
    for name in ("counts", "stacks"):  # old stacks take the places of new ones
        prog[name].clear()
    return frame[frame["pid"] == done.pid]


@pytest.mark.parametrize(
    ("command", "shares"),
    [
        ([f"{HOT}/hot", "2"], {"checksum": 70, "parse": 10, "reply": 20}),
        ([f"{HOT}/hot", "--repaired", "2"], {"checksum_repaired": 19, "parse": 27, "reply": 54}),
        ([f"{HOT}/hot-go", "2"], {"main.checksum": 70, "main.parse": 10, "main.reply": 20}),
    ],
    ids=["c", "repaired", "go"],
)
def test_shares_are_as_designed(
    lab: Lab, sampled: Program, command: list[str], shares: dict[str, int]
) -> None:
    # An emulated machine takes fewer samples than it was asked for, so it runs until there are
    # enough. Shares are of main: the start of a process takes a while there as well.
    frame, main = pd.DataFrame(), "main.main" if "hot-go" in command[0] else "main"
    while frame.empty or _through(frame, main) < 1500:
        capture = _run(lab, sampled, *command)
        if _through(capture, "[lost]") < 0.02 * capture["value"].sum():  # else it was a hot stack
            frame = pd.concat([frame, capture])
    for function, share in shares.items():
        assert 100 * _through(frame, function) / _through(frame, main) == pytest.approx(
            share, abs=5
        ), function
    kinds = {each.name: each.kind for stack in frame["stack"] for each in stack}
    assert kinds[next(iter(shares))] == ("go" if "main." in next(iter(shares)) else "user")


def test_kernel_functions_are_named(lab: Lab, sampled: Program) -> None:
    frame = _run(lab, sampled, "dd", "if=/dev/zero", "of=/dev/null", "bs=1M", "count=8192")
    kernel = {each.name for stack in frame["stack"] for each in stack if each.kind == "kernel"}
    assert {"vfs_read", "read_iter_zero"} & kernel and "[unknown]" not in kernel


def _slept(lab: Lab) -> tuple[pd.DataFrame, float]:
    """The stacks of a program that naps 3 x 100 ms, and the ms that its system calls took."""
    with lab.load(OFF_CPU) as prog:
        sleeper = lab.run([f"{HOT}/hot", "--sleep", "3", "100"])
        prog.detach()
        frame, asleep = prog.stacks(), prog["asleep_ns"].frame().set_index("key")["value"]
    return frame[frame["pid"] == sleeper.pid], asleep[sleeper.pid] / 1e6


def test_sleep_is_time_off_the_cpu(lab: Lab) -> None:
    naps = pd.DataFrame()
    while naps.empty:  # or a stack's number was another stack's
        stacks, asleep_ms = _slept(lab)
        if not _through(stacks, "[lost]"):
            # Not those of a nap that has not begun or is over, when something else had the CPU.
            calls = stacks["stack"].map(lambda stack: {"nap", "do_nanosleep"} <= _names(stack))
            naps = stacks[calls]
    # How late a sleeper is woken is up to the machine, and in both figures. What the calls took
    # besides is time on the CPU: of the guest, which may itself wait for a CPU then.
    off_cpu_ms = naps["value"].sum() / 1e6
    assert 300 <= asleep_ms < 2 * off_cpu_ms and off_cpu_ms <= asleep_ms
    names = [each.name for each in naps["stack"].iloc[0]]
    assert names.index("main") < names.index("nap") < names.index("schedule")
