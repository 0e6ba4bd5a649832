"""In a real Jupyter kernel: re-running a cell, interrupting, restarting."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager, start_new_kernel

PARAMS = [
    pytest.param("local", marks=pytest.mark.local),
    pytest.param("vm", marks=pytest.mark.vm),
]
SETUP = r"""
import os
from ebpflab import Lab
lab = Lab("TARGET")
folder = lab.run(["mktemp", "-d"]).stdout.strip()
target = folder + "/target"
code = "__attribute__((noinline)) void work(void) { __asm__(\"\"); } int main() { work(); }"
assert lab.run(["gcc", "-x", "c", "-o", target, "-"], input=code).returncode == 0
source = '''
BPF_RINGBUF_OUTPUT(seen, 8);
BPF_ARRAY(hits, u64, 1);
int on_work(struct pt_regs *ctx) {
  u64 n = NUMBER;
  hits.increment(0);
  seen.ringbuf_output(&n, sizeof(n), 0);
  return 0;
}
'''
"""
LOAD = r"""
prog = lab.load(source.replace("NUMBER", "1"))
prog.attach_uprobe(name=target, sym="work", fn_name="on_work")
programs = globals().get("programs", []) + [prog]
"""
# Before it waits, an interrupt would end the cell as it ends any other.
COLLECT = r"""
lab.run([target])
prog["seen"].frame()  # an interrupt returns the rows that have arrived: let it arrive
wait = prog["seen"]._wait
prog["seen"]._wait = lambda *args: (print("waits", flush=True), wait(*args))
df = prog["seen"].collect(seconds=600)
del prog["seen"]._wait
"""


class Kernel:
    """A notebook kernel and what its cells print."""

    def __init__(self) -> None:
        self.manager: KernelManager
        self.client: BlockingKernelClient
        self.manager, self.client = start_new_kernel()

    def begin(self, code: str, cell: str | None = None) -> str:
        """Send a cell, as JupyterLab does: its identity is in the request's metadata."""
        content = {"code": code, "silent": False, "store_history": True, "allow_stdin": False}
        metadata = {"cellId": cell} if cell else {}
        message = self.client.session.msg("execute_request", content, metadata=metadata)
        self.client.shell_channel.send(message)
        return str(message["header"]["msg_id"])

    def finish(self, ident: str, timeout: float = 120) -> str:
        """What the cell printed. An error of the cell is an assertion error here."""
        printed = ""
        while True:
            message: dict[str, Any] = self.client.get_iopub_msg(timeout=timeout)
            if message["parent_header"].get("msg_id") != ident:
                continue
            content = message["content"]
            if message["msg_type"] == "stream":
                printed += content["text"]
            assert message["msg_type"] != "error", "\n".join(content.get("traceback", []))
            if message["msg_type"] == "status" and content["execution_state"] == "idle":
                return printed

    def read_until(self, ident: str, mark: str) -> None:
        """Until the cell, which goes on, has printed a mark."""
        printed = ""
        while mark not in printed:
            message: dict[str, Any] = self.client.get_iopub_msg(timeout=120)
            if message["parent_header"].get("msg_id") == ident:
                assert message["msg_type"] != "error", "\n".join(message["content"]["traceback"])
                printed += message["content"].get("text", "")

    def run(self, code: str, cell: str | None = None) -> str:
        return self.finish(self.begin(code, cell))


@pytest.fixture(params=PARAMS)
def kernel(request: pytest.FixtureRequest) -> Iterator[Kernel]:
    kernel = Kernel()
    try:
        kernel.run(SETUP.replace("TARGET", request.param))
        yield kernel
        kernel.run("lab.run(['rm', '-r', folder]); lab.close()")
    finally:
        kernel.client.stop_channels()
        kernel.manager.shutdown_kernel(now=True)


@pytest.mark.parametrize("cell", ["cell-1", None], ids=["JupyterLab", "nbclient"])
def test_running_a_cell_again_replaces_its_program(kernel: Kernel, cell: str | None) -> None:
    for _ in range(3):
        kernel.run(LOAD, cell)
    kernel.run("lab.run([target])")
    assert kernel.run("print([p.closed for p in programs])").split() == [
        "[True,",
        "True,",
        "False]",
    ]
    assert kernel.run("print(len(prog['seen'].frame()), prog.compiled)") == "1 False\n"


def test_a_changed_cell_replaces_what_it_was(kernel: Kernel) -> None:
    kernel.run(LOAD, "cell-1")
    kernel.run(LOAD.replace('"1"', '"2"'), "cell-1")
    kernel.run("lab.run([target])")
    assert kernel.run("print(prog['seen'].frame()['n'].tolist())") == "[2]\n"
    assert kernel.run("print([p.closed for p in programs])") == "[True, False]\n"


def test_a_changed_cell_replaces_the_probe_that_it_attached(kernel: Kernel) -> None:
    kernel.run("prog = lab.load(source.replace('NUMBER', '1'))", "cell-1")
    attach = "prog.attach_uprobe(name=target, sym='SYM', fn_name='on_work')"
    kernel.run(attach.replace("SYM", "main"), "cell-2")
    kernel.run(attach.replace("SYM", "work"), "cell-2")
    kernel.run(attach.replace("SYM", "work"), "cell-2")
    kernel.run("lab.run([target])")
    assert kernel.run("print(len(prog['seen'].frame()), len(prog.attached))") == "1 1\n"
    assert kernel.run("print(len(prog.stats()), prog.stats()['hits'][0])") == "1 1\n"
    kernel.run("prog.detach(); prog.attach_again(); lab.run([target])")
    assert kernel.run("print(len(prog['seen'].frame()), len(prog.attached))") == "2 1\n"


def test_two_programs_of_one_cell_both_stay(kernel: Kernel) -> None:
    kernel.run(LOAD + LOAD, "cell-1")
    assert kernel.run("print([p.closed for p in programs])") == "[False, False]\n"


def test_interrupt_keeps_the_rows_and_the_next_cell_works(kernel: Kernel) -> None:
    kernel.run(LOAD, "cell-1")
    waiting = kernel.begin(COLLECT, "cell-2")
    kernel.read_until(waiting, "waits\n")
    kernel.manager.interrupt_kernel()
    assert "Interrupted after" in kernel.finish(waiting)
    assert kernel.run("print(len(df), df.attrs['interrupted'])") == "1 True\n"
    kernel.run("lab.run([target])")
    assert kernel.run("print(len(prog['seen'].collect()))") == "1\n"
