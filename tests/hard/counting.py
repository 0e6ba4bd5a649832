"""A lab with a counted program, and how long the tests of this folder are to be.

With EBPFLAB_HARD=1, as ``make hard`` sets it, those that
repeat something do so a thousand times rather than some ten, and their figures go into the report.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import soak

from ebpflab import Lab, Program

LONG = os.environ.get("EBPFLAB_HARD") == "1"

TARGET_C = r"""
#include <stdlib.h>
#include <unistd.h>
__attribute__((noinline)) void work(void) { __asm__(""); }
int main(int argc, char **argv) {
  for (long n = atol(argv[1]); n > 0; n--) work();
  if (argc > 2) pause();
  return 0;
}
"""
COUNTER = r"""
BPF_RINGBUF_OUTPUT(seen, 64);
int on_work(void *ctx) {
  u64 time_ns = bpf_ktime_get_ns();
  seen.ringbuf_output(&time_ns, sizeof(time_ns), 0);
  return 0;
}
"""


class Counted:
    """A lab, a program on its machine, and a probe that sees each call of a function of it."""

    def __init__(self, target: str) -> None:
        self.lab = Lab(target)
        self.folder = self.lab.run(["mktemp", "-d"]).stdout.strip()
        self.path = f"{self.folder}/target"
        built = self.lab.run(["gcc", "-x", "c", "-o", self.path, "-"], input=TARGET_C)
        assert built.returncode == 0, built.stderr
        self.prog = self.attach(COUNTER)

    def attach(self, source: str) -> Program:
        prog = self.lab.load(source)
        prog.attach_uprobe(name=self.path, sym="work", fn_name="on_work")
        return prog

    def calls(self, number: int) -> int:
        """Make so many calls; how many rows there are."""
        assert self.lab.run([self.path, str(number)]).returncode == 0
        return self.rows()

    def new_rows(self, number: int) -> int:
        """Make so many calls; how many rows came of them."""
        before = self.rows()
        return self.calls(number) - before

    def rows(self) -> int:
        return len(self.prog["seen"].frame())

    @contextmanager
    def staying(self) -> Iterator[int]:
        """A process of the program, on this machine, that outlives the agent."""
        with subprocess.Popen([self.path, "0", "stay"]) as process:
            try:
                yield process.pid
            finally:
                process.kill()

    def is_probed(self, pid: int) -> bool:
        """Whether the code of a process is not what is in its file: a uprobe is a breakpoint."""
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            if line.endswith(self.path) and "x" in line.split()[1]:
                start, end = (int(each, 16) for each in line.split()[0].split("-"))
                offset = int(line.split()[2], 16)
                in_file = Path(self.path).read_bytes()[offset:][: end - start]
                with Path(f"/proc/{pid}/mem").open("rb") as memory:
                    memory.seek(start)
                    return memory.read(len(in_file)) != in_file
        raise AssertionError(f"process {pid} does not run {self.path}")

    def held(self) -> dict[str, int]:
        """Memory, files, threads, programs, maps and probes of the agent; what its kernel has."""
        asked = ["/usr/bin/python3", "-c", soak.COUNT, str(self.lab.agent_pid)]
        found: dict[str, int] = json.loads(self.lab.run(asked).stdout)
        return found

    def most_held(self) -> dict[str, int]:
        """Of some countings, the most of each: on a busy machine one may come before the threads
        of its own command have begun."""
        found = [self.held() for _ in range(3)]
        return {name: max(each[name] for each in found) for name in found[0]}

    def held_at_last(self, before: dict[str, int], *names: str) -> dict[str, int]:
        """`held`, again for a minute while there is more of ``names`` than before: what is about
        to end is counted, too, and what stays is there after a minute as well."""
        deadline = time.monotonic() + 60
        while True:
            found = self.held()
            more = [name for name in names if found[name] > before[name]]
            if not more or time.monotonic() > deadline:
                return found

    def close(self) -> None:
        self.lab.close()
        if self.lab.target == "local":  # a guest's went with it
            shutil.rmtree(self.folder, ignore_errors=True)  # closed twice


def own_files() -> int:
    """Open files of this process."""
    return len(list(Path("/proc/self/fd").iterdir()))
