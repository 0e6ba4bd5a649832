"""The targets of ``labs/``, as built into the guest, do what their READMEs say."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from ebpflab import Lab
from ebpflab.errors import AttachError

pytestmark = pytest.mark.vm

LABS = "/opt/ebpflab/labs"
GO, USDT = f"{LABS}/go-hello", f"{LABS}/usdt-c"
COUNT = r"""
#include <uapi/linux/ptrace.h>
BPF_ARRAY(calls, u64, 5);
int on_main(struct pt_regs *ctx) { calls.atomic_increment(0); return 0; }
int on_handle(struct pt_regs *ctx) { calls.atomic_increment(1); return 0; }
int on_known(struct pt_regs *ctx) { calls.atomic_increment(2); return 0; }
int on_pause(struct pt_regs *ctx) { calls.atomic_increment(3); return 0; }
int on_deep(struct pt_regs *ctx) { calls.atomic_increment(4); return 0; }
"""
# Arguments of a Go function are in AX, BX, CX, DI, SI (amd64, since Go 1.17).
ARGUMENTS = r"""
#include <uapi/linux/ptrace.h>
struct call { s64 worker, request; char path[16]; };
struct sum { u64 length, capacity; u8 first, last; };
BPF_RINGBUF_OUTPUT(calls, 64);
BPF_RINGBUF_OUTPUT(sums, 64);
int on_handle(struct pt_regs *ctx) {
  struct call call = {.worker = ctx->ax, .request = ctx->bx};
  u64 length = ctx->di;
  if (length > sizeof(call.path) - 1) length = sizeof(call.path) - 1;
  bpf_probe_read_user(call.path, length, (void *)ctx->cx);
  calls.ringbuf_output(&call, sizeof(call), 0);
  return 0;
}
int on_checksum(struct pt_regs *ctx) {
  struct sum sum = {.length = ctx->bx, .capacity = ctx->cx};
  bpf_probe_read_user(&sum.first, 1, (void *)ctx->ax);
  bpf_probe_read_user(&sum.last, 1, (void *)(ctx->ax + ctx->bx - 1));
  sums.ringbuf_output(&sum, sizeof(sum), 0);
  return 0;
}
"""
STEP = r"""
#include <uapi/linux/ptrace.h>
struct step { u64 total; int n; char word[8]; };
BPF_RINGBUF_OUTPUT(steps, 128);
BPF_ARRAY(hits, u64, 2);
int on_step(struct pt_regs *ctx) {
  struct step step = {};
  u64 word = 0;
  bpf_usdt_readarg(1, ctx, &step.n);
  bpf_usdt_readarg(2, ctx, &word);
  bpf_usdt_readarg(3, ctx, &step.total);
  bpf_probe_read_user_str(step.word, sizeof(step.word), (void *)word);
  steps.ringbuf_output(&step, sizeof(step), 0);
  return 0;
}
int on_done(struct pt_regs *ctx) {
  u32 steps = 0;
  bpf_usdt_readarg(1, ctx, &steps);
  hits.increment(0, steps);
  return 0;
}
int on_main(struct pt_regs *ctx) { hits.increment(1); return 0; }
"""


def test_the_guest_has_what_the_readmes_name(lab: Lab) -> None:
    here = Path(__file__).parents[2] / "labs"
    for folder in (GO, USDT):
        readme = (here / Path(folder).name / "README.md").read_text()
        assert folder in readme
        for name in re.findall(r"^\| `([\w-]+)", readme.split("## What to trace")[0], re.MULTILINE):
            assert lab.run(["test", "-x", f"{folder}/{name}"]).returncode == 0, name


def test_go_has_compiled_its_library_already(lab: Lab) -> None:
    """In an emulated guest that takes minutes: whoever builds a Go program would wait for it."""
    cached = "go list -deps -export -f '{{.Export}}' fmt | grep -c /root/.cache/go-build"
    before = "ls -R /root/.cache/go-build | wc -l"
    env = {"CGO_ENABLED": "0", "GO111MODULE": "off"}
    listed = [lab.run(["sh", "-c", each], env=env).stdout for each in (before, cached, before)]
    assert int(listed[1]) > 20 and listed[0] == listed[2]


def test_go_functions_are_called_as_often_as_it_says(lab: Lab) -> None:
    with lab.load(COUNT) as prog:
        for name in ("main", "handle", "pause", "deep"):
            prog.attach_go_return(name=f"{GO}/work", sym=f"main.{name}", fn_name=f"on_{name}")
        prog.attach_uprobe(name=f"{GO}/work", sym="main.known", fn_name="on_known")
        done = lab.run([f"{GO}/work", "7", "101", "53"])
        main, handle, known, pause, deep = prog["calls"].frame()["value"]
    requests = range(101)
    found = [r for r in requests if r % 5]
    answered = [r for r in found if r % 7]
    assert (main, handle, known, deep) == (1, 707, 707, 7 * 54)
    assert pause == 7 * sum(r % 10 == 3 for r in answered)
    assert done.stdout == (
        f"handled 707: {7 * len(answered)} ok, {7 * (101 - len(found))} not found,"
        f" {7 * (len(found) - len(answered))} failed; {7 * 53} recursions\n"
    )


def test_a_go_entry_is_hit_again_when_the_stack_has_grown(lab: Lab) -> None:
    with lab.load(COUNT) as prog:
        prog.attach_uprobe(name=f"{GO}/work", sym="main.deep", fn_name="on_deep")
        lab.run([f"{GO}/work", "7", "1", "53"])
        assert prog["calls"].frame()["value"].iloc[4] > 7 * 54


def test_go_arguments_are_in_registers(lab: Lab) -> None:
    with lab.load(ARGUMENTS) as prog:
        prog.attach_uprobe(name=f"{GO}/work", sym="main.handle", fn_name="on_handle")
        prog.attach_uprobe(name=f"{GO}/work", sym="main.checksum", fn_name="on_checksum")
        lab.run([f"{GO}/work", "3", "307"])
        calls, sums = prog["calls"].frame(), prog["sums"].frame()
    seen = set(zip(calls["worker"], calls["request"], calls["path"], strict=True))
    assert seen == {(worker, n, f"/item/{n}") for worker in range(3) for n in range(307)}
    expected = sorted(3 * [r % 256 + 1 for r in range(307) if r % 5])
    assert sorted(sums["length"]) == expected
    assert set(sums["first"]) == {1}
    assert list(sums["last"]) == [(length - 1) % 255 + 1 for length in sums["length"]]
    assert list(sums["capacity"]) == [256] * len(sums)


def test_the_books_go_program_and_what_is_stripped(lab: Lab) -> None:
    with lab.load(COUNT) as prog:
        prog.attach_go_return(name=f"{GO}/hello", sym="main.main", fn_name="on_main")
        assert [lab.run([f"{GO}/hello"]).stdout for _ in range(5)] == ["Hello, BPF\n"] * 5
        assert prog["calls"].frame()["value"].iloc[0] == 5
        with pytest.raises(AttachError, match="stripped"):
            prog.attach_uprobe(name=f"{GO}/work-stripped", sym="main.main", fn_name="on_main")


def test_go_work_waits_for_its_signal(lab: Lab) -> None:
    workload = lab.start([f"{GO}/work", "-wait", "2", "11"])
    with lab.load(COUNT) as prog:
        prog.attach_uprobe(
            name=f"{GO}/work", sym="main.known", fn_name="on_known", pid=workload.pid
        )
        lab.run([f"{GO}/work", "2", "11"])
        lab.run(["kill", "-USR1", str(workload.pid)])
        assert workload.wait().stdout.startswith("waiting; attach now")
        assert prog["calls"].frame()["value"].iloc[2] == 22


def test_go_work_refuses_what_is_no_number(lab: Lab) -> None:
    for arguments in ([], ["8"], ["8", "many"], ["8", "-1"]):
        done = lab.run([f"{GO}/work", *arguments])
        assert done.returncode == 2 and done.stderr.startswith("usage:")


def test_usdt_probes_are_hit_as_often_as_it_says(lab: Lab) -> None:
    loop, hello = lab.usdt(f"{USDT}/usdt_loop"), lab.usdt(f"{USDT}/hello_usdt")
    loop.enable_probe(probe="step", fn_name="on_step")
    loop.enable_probe(probe="done", fn_name="on_done")
    hello.enable_probe(probe="probe_main", fn_name="on_main")
    with lab.load(STEP, usdt_contexts=[loop, hello]) as prog:
        done = lab.run([f"{USDT}/usdt_loop", "10007"])
        assert lab.run([f"{USDT}/hello_usdt"]).stdout == "hello, USDT\n"
        frame = prog["steps"].frame()
        assert list(prog["hits"].frame()["value"]) == [10007, 1]
    assert frame.attrs["lost"] == 0
    n = np.arange(10007, dtype=np.uint64)
    totals = np.cumsum((np.uint64(1) << np.uint64(32)) + n)
    assert list(frame["n"]) == list(n) and list(frame["total"]) == list(totals)
    assert list(frame["word"][:6]) == ["one", "two", "three", "five", "seven", "one"]
    assert done.stdout == f"steps 10007, prepared 10007, total {totals[-1]}\n"


def test_steps_are_prepared_only_for_those_who_listen(lab: Lab) -> None:
    program = f"{USDT}/usdt_loop_semaphore"
    assert lab.run([program, "5"]).stdout == "steps 5, prepared 0, total 21474836490\n"
    workload = lab.start([program, "1009", "--wait"])
    usdt = lab.usdt(pid=workload.pid)
    usdt.enable_probe(probe="step", fn_name="on_step")
    with lab.load(STEP.split("int on_done")[0], usdt_contexts=[usdt]) as prog:
        lab.run(["kill", "-USR1", str(workload.pid)])
        assert "prepared 1009" in workload.wait().stdout
        assert list(prog["steps"].frame()["n"]) == list(range(1009))


def test_readelf_shows_what_the_lab_shows(lab: Lab) -> None:
    probes = lab.usdt_probes(f"{USDT}/usdt_loop_semaphore")
    text = lab.run(["readelf", "--notes", f"{USDT}/usdt_loop_semaphore"]).stdout
    for label, column in (("Location", "address"), ("Semaphore", "semaphore")):
        found = [int(value, 16) for value in re.findall(rf"{label}: (0x\w+)", text)]
        assert found == list(probes[column])
    assert re.findall(r"Arguments: (.*)", text) == list(probes["arguments"])


def test_usdt_loop_refuses_what_is_no_number(lab: Lab) -> None:
    done = lab.run([f"{USDT}/usdt_loop", "many"])
    assert done.returncode == 2 and done.stderr.startswith("usage:")
