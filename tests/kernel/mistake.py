"""What learners do wrong: for each mistake the code, the exception, and what to do about it.

`tests/kernel/test_mistakes.py` makes every mistake in the guest, and writes
`docs/when-it-fails.md` from what it sees. ``code`` runs with these names: ``lab``; ``program``,
the C of the case; ``prog``, a loaded program with the functions ``count`` and ``note``.
"""

from __future__ import annotations

from dataclasses import dataclass

WORK_C = r"""
#include <stdio.h>
#include <stdlib.h>
__attribute__((noinline)) long work(long n, const char *text) {
  __asm__ volatile("" : : "r"(text) : "memory");
  return n * 2;
}
int main(int argc, char **argv) {
  char text[] = "hello";
  for (long n = 0; n < atol(argv[1]); n++) work(n, text);
  return 0;
}
"""
GOOD = r"""
#include <uapi/linux/ptrace.h>

struct event { u32 pid; };
struct pair { u32 pid, ppid; };
BPF_ARRAY(calls, u64, 1);
BPF_HASH(pairs, u32, struct pair);
BPF_RINGBUF_OUTPUT(events, 8);

int count(struct pt_regs *ctx) {
    calls.increment(0);
    return 0;
}

int note(struct tracepoint__sched__sched_process_exec *args) {
    struct event event = {.pid = args->pid};
    events.ringbuf_output(&event, sizeof(event), 0);
    return 0;
}
"""


@dataclass(frozen=True)
class Case:
    """One mistake. ``words`` are the decisive ones of the message, regular expressions."""

    name: str
    error: type[Exception]
    words: tuple[str, ...]
    cure: str
    code: str = "lab.load(program)"
    c: str = ""
