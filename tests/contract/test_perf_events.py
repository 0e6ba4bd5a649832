"""Perf events run a function by a counter or a clock, in the processes they are asked to watch."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from perf_sample import SAMPLE_C

from ebpflab import Lab, PerfHWConfig, PerfSWConfig, PerfType
from ebpflab.errors import AttachError

CLOCK = {"ev_type": PerfType.SOFTWARE, "ev_config": PerfSWConfig.CPU_CLOCK}
FAULTS = {"ev_type": PerfType.SOFTWARE, "ev_config": PerfSWConfig.PAGE_FAULTS}
COUNT = (
    SAMPLE_C
    + r"""
BPF_HASH(faults, u32, u64);
BPF_HASH(samples, u32, u64);
int on_fault(struct sample *ctx) {
  u64 addr = ctx->addr;
  if (addr >> 32 == 0x6000) faults.increment(bpf_get_current_pid_tgid() >> 32);
  return 0;
}
int on_sample(struct sample *ctx) {
  samples.increment(bpf_get_current_pid_tgid() >> 32);
  return 0;
}
"""
)
# Once it gets SIGUSR1, touches new pages (at addresses that are its own): in a thread that was
# there before, then as many in a child that comes later. Then it spins until SIGUSR1 comes again.
PAGES_C = r"""
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
static pthread_barrier_t ready;
static volatile char *memory = (char *)0x600000000000;
static long pages;
static void touch(void) { for (long n = 0; n < pages; n++) memory[n * 4096] = 1; }
static void *worker(void *none) {
  pthread_barrier_wait(&ready);
  pthread_barrier_wait(&ready);
  touch();
  return none;
}
static volatile int stopped;
static void stop(int signal) { stopped = signal; }
int main(int argc, char **argv) {
  sigset_t usr1;
  int got;
  pthread_t thread;
  sigemptyset(&usr1);
  sigaddset(&usr1, SIGUSR1);
  sigprocmask(SIG_BLOCK, &usr1, NULL);
  signal(SIGUSR1, stop);
  pages = atol(argv[argc - 1]);
  if (mmap((void *)memory, pages * 4096, PROT_READ | PROT_WRITE,
           MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED) return 1;
  madvise((void *)memory, pages * 4096, MADV_NOHUGEPAGE);
  pthread_barrier_init(&ready, NULL, 2);
  pthread_create(&thread, NULL, worker, NULL);
  pthread_barrier_wait(&ready);
  sigwait(&usr1, &got);
  pthread_barrier_wait(&ready);
  pthread_join(thread, NULL);
  madvise((void *)memory, pages * 4096, MADV_DONTNEED);
  if (fork() == 0) { touch(); _exit(0); }
  wait(NULL);
  sigprocmask(SIG_UNBLOCK, &usr1, NULL);
  while (!stopped) {}
  return 0;
}
"""


@pytest.fixture(scope="module")
def pages(lab: Lab) -> Iterator[str]:
    """A program that does as the comment above says."""
    folder = lab.run(["mktemp", "-d"]).stdout.strip()
    command = ["gcc", "-O1", "-pthread", "-x", "c", "-o", f"{folder}/pages", "-"]
    built = lab.run(command, input=PAGES_C)
    assert built.returncode == 0, built.stderr
    yield f"{folder}/pages"
    lab.run(["rm", "-r", folder])


def _ready(lab: Lab, pid: int) -> None:
    """Wait until its second thread is there and its first waits for the signal."""
    wait = 'while ! { [ "$(ls /proc/$1/task | wc -l)" = 2 ] && grep -q "S (sl" /proc/$1/status; }'
    assert lab.run(["sh", "-c", f"{wait}; do sleep 0.01; done", "sh", str(pid)]).returncode == 0


def test_threads_and_children_of_one_process(lab: Lab, pages: str) -> None:
    workload = lab.start([pages, "4001"])
    _ready(lab, workload.pid)
    with lab.load(COUNT) as prog:
        prog.attach_perf_event(**FAULTS, fn_name="on_fault", sample_period=1, pid=workload.pid)
        prog.attach_perf_event(**CLOCK, fn_name="on_sample", sample_freq=99, pid=workload.pid)
        assert prog.attached == [
            f"perf_event PAGE_FAULTS, every 1 in process {workload.pid} -> on_fault",
            f"perf_event CPU_CLOCK at 99 Hz in process {workload.pid} -> on_sample",
        ]
        began = float(lab.run(["cut", "-d ", "-f1", "/proc/uptime"]).stdout)
        lab.run(["kill", "-USR1", str(workload.pid)])
        user_ticks = f"cut -d' ' -f14 /proc/{workload.pid}/stat"  # 100 a second
        lab.run(["sh", "-c", f"while [ $({user_ticks}) -lt 31 ]; do sleep 0.05; done"])
        faults = prog["faults"].frame().set_index("key")["value"]
        samples = prog["samples"].frame().set_index("key")["value"]
        prog.detach()
        detached = prog["samples"].frame()["value"].sum()
        seconds = float(lab.run(["cut", "-d ", "-f1", "/proc/uptime"]).stdout) - began
        lab.run(["kill", "-USR1", str(workload.pid)])
        assert workload.wait().returncode == 0
        assert prog["samples"].frame()["value"].sum() == detached
    assert faults[workload.pid] == 4001, "a thread that was there before"
    assert list(faults.drop(workload.pid)) == [4001], "a child that came later"
    assert 20 <= samples[workload.pid] <= 2 * 99 * seconds, "31 ticks of 10 ms or more, at 99 Hz"


def test_nothing_is_left_open(lab: Lab, pages: str) -> None:
    def events() -> int:
        return lab.run(["ls", "-l", f"/proc/{lab.agent_pid}/fd"]).stdout.count("perf_event")

    before = events()
    workload = lab.start([pages, "3"])
    _ready(lab, workload.pid)
    with lab.load(COUNT) as prog:
        prog.attach_perf_event(**FAULTS, fn_name="on_fault", sample_period=1, pid=workload.pid)
        assert events() == before + 2, "one for each thread"
    assert events() == before
    workload.stop()


def test_a_clock_that_would_drown_the_machine_is_refused(lab: Lab) -> None:
    with lab.load(COUNT) as prog:
        with pytest.raises(AttachError, match=r"1,000,000,000 samples a second.*sample_freq=99"):
            prog.attach_perf_event(**CLOCK, fn_name="on_sample", sample_period=1, pid=lab.agent_pid)
        with pytest.raises(AttachError, match="exactly one of sample_freq"):
            prog.attach_perf_event(**CLOCK, fn_name="on_sample", pid=lab.agent_pid)
        assert prog.attached == []


def test_what_there_is_not_is_explained(lab: Lab) -> None:
    gone = lab.run(["true"]).pid
    with lab.load(COUNT) as prog:
        with pytest.raises(AttachError, match=f"no process {gone}"):
            prog.attach_perf_event(**CLOCK, fn_name="on_sample", sample_freq=99, pid=gone)
        with pytest.raises(AttachError, match="this is neither"):
            prog.attach_perf_event(7, 7, "on_sample", sample_freq=99, pid=lab.agent_pid)
        if lab.target == "vm":  # whose processor is emulated, and counts nothing
            hardware = {"ev_type": PerfType.HARDWARE, "ev_config": PerfHWConfig.CPU_CYCLES}
            with pytest.raises(AttachError, match=r"no such counter.*PerfSWConfig\.CPU_CLOCK"):
                prog.attach_perf_event(
                    **hardware, fn_name="on_sample", sample_period=1009, pid=lab.agent_pid
                )
