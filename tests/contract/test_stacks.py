"""Stacks have the names of their functions, while their process lives and afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pandas as pd
import pytest
from perf_sample import SAMPLE_C

from ebpflab import Lab, PerfSWConfig, PerfType
from ebpflab.errors import ProgramError
from ebpflab.lab import Workload

# Each new page that is touched is one page fault, so stacks are counted exactly.
STACKS = (
    SAMPLE_C
    + r"""
struct key { u32 pid; int user_stack_id, kernel_stack_id; char comm[16]; };
BPF_STACK_TRACE(stacks, 1024);
BPF_HASH(counts, struct key, u64);
int on_fault(struct sample *ctx) {
  u64 addr = ctx->addr;
  if (addr >> 32 != 0x6000) return 0;
  struct key key = {.pid = bpf_get_current_pid_tgid() >> 32};
  key.user_stack_id = stacks.get_stackid(ctx, BPF_F_USER_STACK);
  key.kernel_stack_id = stacks.get_stackid(ctx, 0);
  bpf_get_current_comm(&key.comm, sizeof(key.comm));
  counts.increment(key);
  return 0;
}
"""
)
PROGRAM_C = r"""
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#define APART __attribute__((noinline, noclone))
static volatile char *page = (char *)0x600000000000;
static sigset_t usr1;
APART void touch(void) { *page = 1; page += 4096; __asm__ volatile(""); }
APART void warm(void) { for (int n = 0; n < 101; n++) touch(); __asm__ volatile(""); }
APART void hot(void) { for (int n = 0; n < 401; n++) touch(); __asm__ volatile(""); }
#ifdef __aarch64__  // stp x29, x30, [sp, #-16]!; mov x29, sp; mov w1, #1; strb w1, [x0]
static unsigned made[] = {0xa9bf7bfd, 0x910003fd, 0x52800021, 0x39000001,
                          0xa8c17bfd, 0xd65f03c0};  // ldp x29, x30, [sp], #16; ret
#else  // push %rbp; mov %rsp, %rbp; movb $1, (%rdi); pop %rbp; ret
static unsigned char made[] = {0x55, 0x48, 0x89, 0xe5, 0xc6, 0x07, 0x01, 0x5d, 0xc3};
#endif
APART void jit(void) {
  char path[64];
  int rwx = PROT_READ | PROT_WRITE | PROT_EXEC;
  void *code = mmap(NULL, 4096, rwx, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  memcpy(code, made, sizeof(made));
  __builtin___clear_cache(code, (char *)code + sizeof(made));
  sprintf(path, "/tmp/perf-%d.map", getpid());
  FILE *map = fopen(path, "w");
  fprintf(map, "%lx %zx py::made while it ran\n", (long)code, sizeof(made));
  fclose(map);
  for (int n = 0; n < 53; n++, page += 4096) ((void (*)(volatile char *))code)(page);
}
static void pause_here(void) { int got; sigwait(&usr1, &got); }
int main(void) {
  sigemptyset(&usr1);
  sigaddset(&usr1, SIGUSR1);
  sigprocmask(SIG_BLOCK, &usr1, NULL);
  mmap((void *)page, 4096 * 4096, PROT_READ | PROT_WRITE,
       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  madvise((void *)page, 4096 * 4096, MADV_NOHUGEPAGE);
  pause_here();
  warm();
  hot();
  jit();
  puts("done");
  fflush(stdout);
  pause_here();
  return 0;
}
"""


@pytest.fixture(scope="module")
def touching(lab: Lab) -> Iterator[str]:
    """The program above, built with frame pointers."""
    folder = lab.run(["mktemp", "-d"]).stdout.strip()
    # For each function to have a frame: gcc leaves it out of small ones when it optimises, and on
    # arm64 always out of those that call nothing.
    flags = ["-O0", "-mno-omit-leaf-frame-pointer"]
    command = ["gcc", *flags, "-x", "c", "-o", f"{folder}/touching", "-"]
    built = lab.run(command, input=PROGRAM_C)
    assert built.returncode == 0, built.stderr
    yield f"{folder}/touching"
    lab.run(["rm", "-r", folder])


@pytest.fixture
def start(lab: Lab, touching: str) -> Iterator[Callable[[], Workload]]:
    """Starts the program. What it writes about itself goes with the test."""
    started: list[Workload] = []

    def start() -> Workload:
        started.append(lab.start([touching]))
        return started[-1]

    yield start
    for workload in started:
        lab.run(["rm", "-f", f"/tmp/perf-{workload.pid}.map"])


def _wait(lab: Lab, pid: int) -> None:
    """Until it waits for a signal; fails when it has ended instead."""
    wait = 'until grep -q "S (sl" /proc/$1/status && grep -q sigtimedwait /proc/$1/wchan'
    loop = f"{wait}; do [ -e /proc/$1/exe ] || exit 1; sleep 0.01; done"
    assert lab.run(["sh", "-c", loop, "sh", str(pid)]).returncode == 0


def _named(frame: pd.DataFrame) -> dict[tuple[str, ...], int]:
    """The innermost three names of each stack, and how often."""
    return {
        tuple(each.name for each in stack[-3:]): value
        for stack, value in zip(frame["stack"], frame["value"], strict=True)
    }


@pytest.mark.parametrize("first", ["program", "process"])
def test_names_while_it_lives_and_afterwards(
    lab: Lab, start: Callable[[], Workload], first: str
) -> None:
    workload = start() if first == "process" else None
    with lab.load(STACKS) as prog:
        workload = workload or start()
        _wait(lab, workload.pid)
        prog.attach_perf_event(
            ev_type=PerfType.SOFTWARE,
            ev_config=PerfSWConfig.PAGE_FAULTS,
            fn_name="on_fault",
            sample_period=1,
            pid=workload.pid,
        )
        assert prog.stacks().empty
        lab.run(["kill", "-USR1", str(workload.pid)])
        done = "until [ -e /tmp/perf-$1.map ]; do sleep 0.01; done"
        lab.run(["sh", "-c", done, "sh", str(workload.pid)])
        _wait(lab, workload.pid)
        alive = prog.stacks()
        lab.run(["kill", "-USR1", str(workload.pid)])
        assert workload.wait().stdout == "done\n"
        afterwards = prog.stacks()
        raw = prog["stacks"].frame()
    assert _named(alive) == {
        ("main", "hot", "touch"): 401,
        ("main", "warm", "touch"): 101,
        ("main", "jit", "py::made while it ran"): 53,
    }
    assert set(alive["pid"]) == {workload.pid} and set(alive["comm"]) == {"touching"}
    kinds = {each.name: (each.kind, each.module) for stack in alive["stack"] for each in stack}
    assert kinds["touch"] == ("user", "touching")
    assert kinds["py::made while it ran"] == ("python", "")
    assert alive.attrs["total"] == 555 and alive.attrs["lost"] == 0
    assert list(afterwards["stack"]) == list(alive["stack"])
    assert len(raw) == 3 and raw["addresses"].map(len).min() >= 3


def test_a_full_table_loses_stacks_and_says_so(lab: Lab, start: Callable[[], Workload]) -> None:
    with lab.load(STACKS.replace("stacks, 1024", "stacks, 1")) as prog:
        workload = start()
        _wait(lab, workload.pid)
        where = {"ev_type": PerfType.SOFTWARE, "ev_config": PerfSWConfig.PAGE_FAULTS}
        prog.attach_perf_event(**where, fn_name="on_fault", sample_period=1, pid=workload.pid)
        lab.run(["kill", "-USR1", str(workload.pid)])
        _wait(lab, workload.pid)
        lab.run(["kill", "-USR1", str(workload.pid)])
        workload.wait()
        frame = prog.stacks()
    assert frame.attrs["total"] == 555
    assert frame.attrs["lost"] == 401 + 53, "the first stack has the only place"
    assert _named(frame) == {("[lost]",): 454, ("main", "warm", "touch"): 101}


def test_what_holds_no_stacks_is_refused(lab: Lab) -> None:
    source = """
    struct key { u32 pid; };
    BPF_HASH(counts, struct key, u64);
    struct place { int user_stack_id; };
    BPF_HASH(places, struct place, u64);
    BPF_STACK_TRACE(stacks, 64);
    int on_fault(void *ctx) { places.increment((struct place){1}); return 0; }
    """
    with lab.load(source) as prog:
        with pytest.raises(ProgramError, match="which hold numbers of stacks"):
            prog.stacks()
        with pytest.raises(ProgramError, match="is no BPF_STACK_TRACE"):
            prog.stacks(stacks="counts")
        assert prog.stacks("places", pid=lab.agent_pid).empty
