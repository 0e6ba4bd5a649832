"""Again and again: cycles that must leave nothing, and interrupts at any moment."""

from __future__ import annotations

import json
import queue
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from counting import COUNTER, LONG, Counted, own_files
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import start_new_kernel

from ebpflab.errors import CompileError, WorkloadError
from ebpflab.lab import Workload
from ebpflab.protocol.messages import WAIT, Operation

Counting = Callable[[str], Counted]
_MINUTES = pytest.mark.skipif(not LONG, reason="takes minutes in the guest: make hard")
TARGETS = [
    pytest.param("local", marks=pytest.mark.local),
    pytest.param("vm", marks=(pytest.mark.vm, _MINUTES)),
]
CYCLES, FRESH = (1000, 50) if LONG else (40, 4)
IDLE = 9  # more than the agent keeps idle (agent/programs.py)
INTERRUPTS = 200 if LONG else 12
HELD = ("files", "threads", "programs", "maps", "probes")
pytestmark = pytest.mark.timeout(7200 if LONG else 900)


@pytest.mark.parametrize("target", TARGETS)
def test_cycles_of_load_attach_detach_close_leave_nothing(
    counted: Counting, target: str, measured: Callable[[str, Any], None]
) -> None:
    it = counted(target)

    def cycle(source: str) -> None:
        with it.attach(source) as prog:
            it.lab.run([it.path, "1"])
            assert len(prog["seen"].frame()) == 1
            prog.detach()

    for number in range(IDLE):
        cycle(f"{COUNTER}// {number}\n")  # until as many programs are kept idle as ever are
    cycle(COUNTER)
    before, files = it.most_held(), own_files()
    for number in range(CYCLES):
        fresh = number % (CYCLES // FRESH) == 0  # some are compiled, most are taken up again
        cycle(f"{COUNTER}// fresh {number}\n" if fresh else COUNTER)
    cycle(COUNTER)
    after = it.held_at_last(before, *HELD)
    for name in before:
        measured(name, f"{before[name]:,} → {after[name]:,}")
    measured("cycles", CYCLES)
    for name in HELD:
        assert after[name] <= before[name], name
    assert own_files() <= files
    grown = after["memory_kib"] - before["memory_kib"]
    assert grown < FRESH * 1024 + 4096, "clang keeps some; a cycle nothing"


PREPARE = """
import json, sys
sys.path.insert(0, {folder!r})
from counting import COUNTER, Counted
it = Counted({target!r})
it.prog.close()
for number in range({idle}):
    it.attach(COUNTER + f"// {{number}}").close()
before = it.most_held()
"""
BUSY = """
print("loads", flush=True)
with it.lab.load(COUNTER + "// {number}") as prog:
    prog.attach_uprobe(name=it.path, sym="work", fn_name="on_work")
    it.lab.run([it.path, "3"])
    print("collects", flush=True)
    prog["seen"].collect(seconds=0.5)
    prog.detach()
"""
# What the cell has printed, and how many seconds later the interrupt comes at most.
MOMENTS = (("loads", 0.0), ("", 1.5), ("collects", 0.1))
NEXT = """
with it.attach(COUNTER) as prog:
    it.lab.run([it.path, "5"])
    print(len(prog["seen"].frame()))
"""
LEFT = """
import gc
prog = None
gc.collect()
after = it.held_at_last(before, *{held!r})
print(json.dumps([before, after]))
it.close()
"""


def _wait_for(client: BlockingKernelClient, ident: str, mark: str) -> None:
    """Until a cell, which goes on, has printed a mark."""
    printed = ""
    while mark not in printed:
        message = client.get_iopub_msg(timeout=120)
        if message["parent_header"].get("msg_id") == ident:
            assert message["content"].get("execution_state") != "idle", printed
            printed += message["content"].get("text", "")


def _finish(client: BlockingKernelClient, ident: str, timeout: float) -> tuple[str, str]:
    """What a cell printed, and the name of the exception that ended it."""
    printed, error = "", ""
    while True:
        message = client.get_iopub_msg(timeout=timeout)
        if message["parent_header"].get("msg_id") != ident:
            continue
        content = message["content"]
        if message["msg_type"] == "stream":
            printed += content["text"]
        elif message["msg_type"] == "error":
            error = content["ename"]
        elif message["msg_type"] == "status" and content["execution_state"] == "idle":
            return printed, error


@pytest.mark.parametrize("target", TARGETS)
def test_interrupted_at_any_moment_the_next_cell_works(
    target: str, measured: Callable[[str, Any], None]
) -> None:
    folder = str(Path(__file__).parent)
    dice = random.Random(7)
    manager, client = start_new_kernel()
    ends: dict[str, int] = {}
    try:

        def run(code: str) -> str:
            printed, error = _finish(client, client.execute(code), 300)
            assert not error, error
            return printed

        run(PREPARE.format(folder=folder, target=target, idle=IDLE))
        for number in range(INTERRUPTS):
            cell = client.execute(BUSY.format(number=f"busy {number}"))
            # However fast the machine is, some come while it compiles, and some while it waits.
            mark, longest = MOMENTS[number % len(MOMENTS)]
            if mark:
                _wait_for(client, cell, mark)
            pause = dice.uniform(0, longest if target == "local" else 3 * longest)
            time.sleep(pause)
            manager.interrupt_kernel()
            try:
                _, error = _finish(client, cell, 120)
            except queue.Empty:
                when = f"{pause:.2f} s after it {mark or 'was sent'}"
                raise AssertionError(f"interrupt {number}, {when}, hangs") from None
            ends[error or "rows so far"] = ends.get(error or "rows so far", 0) + 1
            assert error in ("", "KeyboardInterrupt")
            assert run(NEXT).split()[-1] == "5"
        before, after = json.loads(run(LEFT.format(held=HELD)).splitlines()[-1])
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    for name in ("interrupts", *ends):
        measured(name, ends.get(name, INTERRUPTS))
    assert {*ends} == {"KeyboardInterrupt", "rows so far"}
    for name in HELD:
        assert after[name] <= before[name], name


def test_an_interrupt_stays_one_when_the_command_has_just_ended() -> None:
    class Ended:
        """A connection whose agent knows the command no more."""

        told: list[dict[str, Any]] = []

        def request(self, operation: Operation[Any, Any], fields: object) -> None:
            ended = WorkloadError("No command is running.")
            raise KeyboardInterrupt if operation is WAIT else ended

        def tell(self, operation: Operation[Any, Any], fields: dict[str, Any]) -> None:
            self.told.append({"op": operation.name, **fields})

    with pytest.raises(KeyboardInterrupt):
        Workload(Ended(), ("sleep", "9"), 7).wait()  # type: ignore[arg-type]
    assert Ended.told == [{"op": "stop", "pid": 7, "signal": signal.SIGKILL}]


GIVEN_UP = "int on_work(void *ctx) { volatile char much[600] = {}; return much[511]; }"


@pytest.mark.local
def test_a_cell_that_llvm_gives_up_on_costs_memory_once(counted: Counting) -> None:
    it = counted("local")
    said = set()

    def give_up() -> None:
        with pytest.raises(CompileError) as raised:
            it.lab.load(GIVEN_UP)
        said.add(str(raised.value))

    give_up()
    once = it.most_held()
    for _ in range(7):  # more threads than a counting may be off by
        give_up()
    assert len(said) == 1 and "512 bytes" in said.pop()
    assert it.held_at_last(once, "threads")["threads"] <= once["threads"]
    assert it.calls(3) == 3


@pytest.mark.local
def test_commands_that_nobody_waits_for_leave_no_files_open(counted: Counting) -> None:
    it = counted("local")
    before = it.most_held()
    for _ in range(7):
        pid = it.lab.start([it.path, "1"]).pid
        it.lab.run(["/bin/sh", "-c", f"while [ -e /proc/{pid}/exe ]; do sleep 0.01; done"])
    assert it.held_at_last(before, "files")["files"] <= before["files"]
