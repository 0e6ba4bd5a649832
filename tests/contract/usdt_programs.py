"""What is traced in the tests of USDT probes, and with what: C for both sides."""

from __future__ import annotations

from pathlib import Path

from ebpflab import Lab

LAB = Path(__file__).parents[2] / "labs" / "usdt-c"
WORDS = ["one", "two", "three", "five", "seven"]
BOOK = '#include <sys/sdt.h>\nint main() { DTRACE_PROBE("hello-usdt", "probe-main"); return 0; }\n'
TWO_PROVIDERS = (
    "#include <sys/sdt.h>\n"
    "int main() { DTRACE_PROBE(first, same); DTRACE_PROBE(second, same); return 0; }\n"
)
# One probe at two places, with an argument of another kind at each.
TWO_PLACES = r"""
#include <stdlib.h>
#include <sys/sdt.h>
int main(int argc, char **argv) {
  for (int n = 0; n < atoi(argv[1]); n++) DTRACE_PROBE1(places, here, n);
  DTRACE_PROBE1(places, here, -7);
  return 0;
}
"""
# A global variable for an argument: in a note "-4@4+answers(%rip)".
GLOBAL = r"""
#include <sys/sdt.h>
int answers[2] = {41, 42};
__attribute__((noinline)) void tell(void) { DTRACE_PROBE1(global, answer, answers[1]); }
int main(void) {
  for (int n = 0; n < 3; n++, answers[1]++) tell();
  return 0;
}
"""
# The parent hits its probe as often as the first argument says, then its child.
FORKED = r"""
#define _SDT_HAS_SEMAPHORES 1
#include <stdlib.h>
#include <unistd.h>
#include <sys/sdt.h>
#include <sys/wait.h>
#include "wait.h"
unsigned short forked_turn_semaphore __attribute__((section(".probes")));
int main(int argc, char **argv) {
  int seen = 0, child;
  wait_if_asked(argc, argv);
  child = fork() == 0;
  if (!child) wait(NULL);
  for (int n = 0; n < atoi(argv[1]); n++) {
    seen += *(volatile unsigned short *)&forked_turn_semaphore;
    DTRACE_PROBE1(forked, turn, child);
  }
  printf("%s counted %d\n", child ? "child" : "parent", seen);
  return 0;
}
"""
STEPS = r"""
#include <uapi/linux/ptrace.h>
struct step { u64 total; u32 pid; int n; char word[8]; };
BPF_RINGBUF_OUTPUT(steps, 64);
int on_step(struct pt_regs *ctx) {
  struct step step = {.pid = bpf_get_current_pid_tgid() >> 32};
  u64 word = 0;
  bpf_usdt_readarg(1, ctx, &step.n);
  bpf_usdt_readarg(2, ctx, &word);
  bpf_usdt_readarg(3, ctx, &step.total);
  bpf_probe_read_user_str(step.word, sizeof(step.word), (void *)word);
  steps.ringbuf_output(&step, sizeof(step), 0);
  return 0;
}
"""
ONE = r"""
#include <uapi/linux/ptrace.h>
BPF_RINGBUF_OUTPUT(hits, 64);
int on_hit(struct pt_regs *ctx) {
  u64 n = 1;
  hits.ringbuf_output(&n, sizeof(n), 0);
  return 0;
}
"""
WIDER = r"""
#include <uapi/linux/ptrace.h>
struct hit { s64 wide; s16 narrow; };
BPF_RINGBUF_OUTPUT(hits, 64);
int on_hit(struct pt_regs *ctx) {
  struct hit hit = {};
  bpf_usdt_readarg(1, ctx, &hit.wide);
  bpf_usdt_readarg(1, ctx, &hit.narrow);
  hits.ringbuf_output(&hit, sizeof(hit), 0);
  return 0;
}
"""


def build(lab: Lab) -> str:
    """A folder on the traced machine with the programs of labs/usdt-c, and some more."""
    folder = lab.run(["mktemp", "-d"]).stdout.strip()
    for path in (*LAB.glob("*.[ch]"), LAB / "Makefile"):
        lab.run(["tee", f"{folder}/{path.name}"], input=path.read_text())
    built = lab.run(["make", "-C", folder])
    assert built.returncode == 0, built.stderr
    more = {"book": BOOK, "two_providers": TWO_PROVIDERS, "two_places": TWO_PLACES}
    more.update(global_variable=GLOBAL, forked=FORKED)
    for name, source in more.items():
        gcc = ["gcc", "-O1", "-I", folder, "-x", "c", "-o", f"{folder}/{name}", "-"]
        built = lab.run(gcc, input=source)
        assert built.returncode == 0, built.stderr
    return folder


def go(lab: Lab, pid: int) -> None:
    """Let a program that waits for SIGUSR1 go on. Before it waits, the signal would end it."""
    waits = 'until grep -q sigtimedwait "/proc/$1/wchan"'
    script = f'{waits}; do [ -e "/proc/$1/exe" ] || exit 1; sleep 0.01; done; kill -USR1 "$1"'
    assert lab.run(["sh", "-c", script, "sh", str(pid)]).returncode == 0
