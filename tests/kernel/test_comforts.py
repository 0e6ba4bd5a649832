"""``%%bpf``, Tab completion, errors and representations, in a real notebook kernel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import start_new_kernel

pytestmark = pytest.mark.vm

GOOD = """%%bpf prog
BPF_HASH(calls, u32, u64);
int count(void *ctx) { u32 zero = 0; calls.increment(zero); return 0; }
"""


class Notebook:
    """A kernel with a lab, asked as JupyterLab asks it."""

    def __init__(self, client: BlockingKernelClient) -> None:
        self._client = client

    def run(self, code: str) -> dict[str, Any]:
        """What the cell shows: ``data`` of its result, or ``traceback`` of its error."""
        shown: dict[str, Any] = {}

        def note(message: dict[str, Any]) -> None:
            if message["msg_type"] in ("execute_result", "error"):
                shown.update(message["content"])

        self._client.execute_interactive(code, timeout=120, output_hook=note)
        return shown

    def fails(self, code: str) -> list[str]:
        return "\n".join(self.run(code)["traceback"]).split("\n")

    def complete(self, code: str) -> list[str]:
        answer = self._client.complete(code, reply=True, timeout=60)
        return list(answer["content"]["matches"])


@pytest.fixture(scope="module")
def notebook() -> Iterator[Notebook]:
    manager, client = start_new_kernel()
    notebook = Notebook(client)
    shown = notebook.run('%load_ext ebpflab\nfrom ebpflab import Lab\nlab = Lab("vm")')
    assert "traceback" not in shown, shown
    yield notebook
    notebook.run("lab.close()")
    client.stop_channels()
    manager.shutdown_kernel()


def test_bpf_cell_makes_the_program_and_runs_again(notebook: Notebook) -> None:
    for _ in range(2):
        assert "count" in notebook.run(GOOD)["data"]["text/html"]
    assert notebook.run("prog.functions")["data"]["text/plain"] == "['count']"


def test_an_error_is_shown_at_the_line_of_the_cell(notebook: Notebook) -> None:
    lines = notebook.fails("%%bpf broken\n\nint count(void *ctx) {\n  return nothing;\n}\n")
    assert lines[0] == "CompileError"
    assert "    4 |   return nothing;" in lines
    assert not any("site-packages" in line or "lab.py" in line for line in lines)


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("%%bpf 2nd\nint f(void *ctx) { return 0; }", "'2nd' cannot be the name"),
        ("%%bpf x --lab lap\nint f(void *ctx) { return 0; }", "Closest matches: lab."),
    ],
)
def test_a_magic_that_is_misused_says_how(notebook: Notebook, cell: str, said: str) -> None:
    assert said in " ".join(notebook.fails(cell))


def test_an_error_shows_the_readers_own_line_alone(notebook: Notebook) -> None:
    lines = notebook.fails('x = 1\nlab.tracepoint_format("sched:sched_proces_exec")\n')
    assert lines[0] == (
        'UnknownEvent, at line 2 of the cell: lab.tracepoint_format("sched:sched_proces_exec")'
    )
    assert "Closest matches: sched:sched_process_exec" in lines[2]


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ('prog.attach_kprobe(event="do_sys_openat', "do_sys_openat2"),
        ('prog.attach_kretprobe("do_sys_openat', "do_sys_openat2"),
        ('prog.attach_kprobe(event=lab.syscall_name("execve"), fn_name="c', "count"),
        ('prog.attach_kprobe(\n    event=lab.syscall_name("execv', "execve"),
        ('prog.attach_tracepoint(tp="sched:sched_process_ex', "sched:sched_process_exec"),
        ('prog.attach_raw_tracepoint(tp="sched_process_ex', "sched_process_exec"),
        ('prog.attach_uprobe(name="/opt/ebpflab/labs/go-hello/hello", sym="main.m', "main.main"),
        ('prog.attach_go_return(hello, "main.m', "main.main"),
        ('usdt.enable_probe(probe="st', "step"),
        ('lab.tracepoint_format("syscalls:sys_enter_bp', "syscalls:sys_enter_bpf"),
        ('prog["cal', "calls"),
    ],
)
def test_tab_offers_what_the_machine_has(notebook: Notebook, typed: str, offered: str) -> None:
    notebook.run(
        'hello = "/opt/ebpflab/labs/go-hello/hello"\n'
        'usdt = lab.usdt("/opt/ebpflab/labs/usdt-c/usdt_loop")'
    )
    notebook.run(GOOD)
    assert offered in notebook.complete(typed)


def test_tab_offers_nothing_of_ours_where_there_is_nothing(notebook: Notebook) -> None:
    notebook.run(GOOD)
    for typed in ('prog.attach_kprobe(event="no_such_function_', 'other.attach_kprobe(event="vfs'):
        assert not [each for each in notebook.complete(typed) if each.startswith("vfs")]


def test_a_program_shows_what_it_is_attached_to(notebook: Notebook) -> None:
    notebook.run(GOOD)
    notebook.run('prog.attach_kprobe(event=lab.syscall_name("execve"), fn_name="count")')
    notebook.run("for _ in range(13): lab.run(['/bin/true'])")
    shown = notebook.run("prog")["data"]["text/html"]
    assert "attached" in shown and "__x64_sys_execve" in shown and ">13</td>" in shown
    assert "__x64_sys_execve" in notebook.run("lab")["data"]["text/html"]
    notebook.run("prog.close()")
    shown = notebook.run("prog")["data"]["text/html"]
    assert "closed" in shown and ">13</td>" in shown
