"""The main job: who starts what, every start exactly one row."""

from __future__ import annotations

import pytest
from attached import probes
from interrupts import Wait

from ebpflab import Lab
from ebpflab.errors import ProgramError
from ebpflab.transport import connection

pytestmark = pytest.mark.vm

EXEC = r"""
#include <uapi/linux/ptrace.h>
#include <linux/sched.h>

struct start {
  u64 at_ns;
  u32 pid, ppid, uid;
  char comm[16], filename[64], arg1[32];
};
BPF_RINGBUF_OUTPUT(starts, 16);

int syscall__execve(struct pt_regs *ctx, const char __user *filename,
                    const char __user *const __user *argv) {
  struct start start = {};
  struct task_struct *task = (struct task_struct *)bpf_get_current_task();
  const char *arg = NULL;
  start.at_ns = bpf_ktime_get_ns();
  start.pid = bpf_get_current_pid_tgid() >> 32;
  start.ppid = task->real_parent->tgid;
  start.uid = bpf_get_current_uid_gid();
  bpf_get_current_comm(&start.comm, sizeof(start.comm));
  bpf_probe_read_user_str(start.filename, sizeof(start.filename), filename);
  bpf_probe_read_user(&arg, sizeof(arg), &argv[1]);
  bpf_probe_read_user_str(start.arg1, sizeof(start.arg1), arg);
  starts.ringbuf_output(&start, sizeof(start), 0);
  return 0;
}
"""


@pytest.mark.parametrize("turn", range(20))
def test_thirteen_starts_are_thirteen_rows(lab: Lab, turn: int) -> None:
    with lab.load(EXEC) as prog:
        prog.attach_kprobe(event=lab.syscall_name("execve"), fn_name="syscall__execve")
        pids = [lab.run(["/bin/true", f"turn-{turn}-{n}"]).pid for n in range(13)]
        frame = prog["starts"].frame()
    assert list(frame["pid"]) == pids
    assert set(frame["filename"]) == {"/bin/true"}
    assert list(frame["arg1"]) == [f"turn-{turn}-{n}" for n in range(13)]
    assert set(frame["ppid"]) == {lab.agent_pid}
    assert set(frame["uid"]) == {0}
    assert frame["at_ns"].is_monotonic_increasing and frame.attrs["lost"] == 0


def test_a_shell_that_starts_programs(lab: Lab) -> None:
    with lab.load(EXEC) as prog:
        prog.attach_kprobe(event=lab.syscall_name("execve"), fn_name="syscall__execve")
        shell = lab.run(["/bin/sh", "-c", "for n in 1 2 3 4 5; do /bin/true $n; done"])
        frame = prog["starts"].frame()
    assert len(frame) == 6
    children = frame[frame["ppid"] == shell.pid]
    assert list(children["arg1"]) == ["1", "2", "3", "4", "5"]
    assert set(children["comm"]) == {"sh"}, "an entry probe sees the caller's name"


def test_unchanged_c_is_not_compiled_again(lab: Lab) -> None:
    lab.load(EXEC).close()
    prog = lab.load(EXEC)
    assert not prog.compiled
    prog.close()


def test_printk_messages_have_every_field(lab: Lab) -> None:
    source = r"""
    int hello(struct pt_regs *ctx) {
      bpf_trace_printk("hello: from %d\n", bpf_get_current_pid_tgid() >> 32);
      return 0;
    }
    """
    with lab.load(source) as prog:
        prog.attach_kprobe(event=lab.syscall_name("execve"), fn_name="hello")
        pids = [lab.run(["/bin/true"]).pid for _ in range(5)]
        frame = prog.messages.collect()
    assert list(frame["message"]) == [f"hello: from {pid}" for pid in pids]
    assert list(frame["tid"]) == pids
    assert set(frame["function"]) == {"bpf_trace_printk"}
    assert set(frame["cpu"]) <= {0, 1}
    assert frame["flags"].str.len().between(4, 5).all()
    assert frame["time_s"].is_monotonic_increasing


def test_two_programs_that_print_both_hear(lab: Lab) -> None:
    source = 'int %s(struct pt_regs *ctx) { bpf_trace_printk("%s\\n"); return 0; }'
    with lab.load(source % ("one", "one")) as one, lab.load(source % ("two", "two")) as two:
        one.attach_kprobe(event=lab.syscall_name("execve"), fn_name="one")
        two.attach_kprobe(event=lab.syscall_name("execve"), fn_name="two")
        lab.run(["/bin/true"])
        for prog in (one, two):
            assert sorted(prog.messages.collect()["message"]) == ["one", "two"]


def test_trace_pipe_has_one_reader_who_is_named_and_lets_go(lab: Lab) -> None:
    source = 'int say(struct pt_regs *ctx) { bpf_trace_printk("said\\n"); return 0; }'
    pipe = "/sys/kernel/tracing/trace_pipe"
    lab.load(source).close()
    reader = lab.start(["cat", pipe])
    try:
        while pipe not in lab.run(["readlink", f"/proc/{reader.pid}/fd/3"]).stdout:
            pass  # it has not opened it yet
        with pytest.raises(ProgramError, match=rf"process {reader.pid} \(cat\) is reading it"):
            lab.load(source)
    finally:
        reader.stop()
    with lab.load(source) as prog:
        prog.attach_kprobe(event=lab.syscall_name("execve"), fn_name="say")
        lab.run(["/bin/true"])
        assert list(prog.messages.collect()["message"]) == ["said"]


def test_an_interrupted_load_leaves_nothing_attached(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = "int kprobe__do_nanosleep(struct pt_regs *ctx) { return 0; } // interrupted"
    before = probes(lab)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(connection, "Future", Wait)
        lab.load(source)
    assert probes(lab) == before
    with lab.load(source) as prog:
        assert probes(lab) == before + 1, "what attaches itself by its name is attached"
        assert prog.attached == ["kprobe do_nanosleep -> kprobe__do_nanosleep"]
        prog.detach()
        assert probes(lab) == before


def test_a_program_that_nobody_refers_to_is_closed(lab: Lab) -> None:
    before = probes(lab)
    prog = lab.load("int kprobe__do_nanosleep(struct pt_regs *ctx) { return 0; } // forgotten")
    assert probes(lab) == before + 1
    del prog
    assert probes(lab) == before
