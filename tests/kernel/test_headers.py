"""Kernel headers that the caller names: they count for one program, and for nothing after it."""

from __future__ import annotations

import pytest

from ebpflab import Lab

pytestmark = pytest.mark.vm

# One tree, as a kernel's own source is, of the two that Debian makes of it; and one more header.
MAKE_TREE = """
set -e
tree=$(mktemp -d)
flavour=$(readlink -f /lib/modules/$(uname -r)/build)
common=$(ls -d /usr/src/linux-headers-*-common)
for part in include arch/x86/include arch/arm64/include; do
  mkdir -p $tree/$part/own
  ln -sf $common/$part/* $tree/$part/
  if [ -d $flavour/$part ]; then ln -sf $flavour/$part/* $tree/$part/; fi
done
echo '#define ANSWER 42' > $tree/include/own/answer.h
echo $tree
"""
SOURCE = r"""
#include <uapi/linux/ptrace.h>
#if __has_include(<own/answer.h>)
#include <own/answer.h>
#else
#define ANSWER 41
#endif
struct answer { u32 n; };
BPF_RINGBUF_OUTPUT(answers, 8);
int on_exec(struct pt_regs *ctx) {
  struct answer answer = {.n = ANSWER};
  answers.ringbuf_output(&answer, sizeof(answer), 0);
  return 0;
}
"""


def test_a_program_is_found_again_by_its_headers_too(lab: Lab) -> None:
    made = lab.run(["sh", "-c", MAKE_TREE])
    assert made.returncode == 0, made.stderr
    tree = made.stdout.strip()
    seen = []
    for headers in (None, tree, None, tree):
        with lab.load(SOURCE, headers=headers) as prog:
            prog.attach_kprobe(event=lab.syscall_name("execve"), fn_name="on_exec")
            lab.run(["true"])
            seen.append((prog.compiled, set(prog["answers"].frame()["n"])))
    assert seen == [(True, {41}), (True, {42}), (False, {41}), (False, {42})]
    lab.run(["rm", "-r", tree])
