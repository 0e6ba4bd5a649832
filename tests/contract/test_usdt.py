"""USDT probes: every hit is a row with the right values, and every mistake gets its reason.

The programs are built on the traced machine, from the sources of ``labs/usdt-c``.
"""

from __future__ import annotations

import numpy as np
import pytest
from usdt_programs import ONE, STEPS, WIDER, WORDS, go

from ebpflab import Lab
from ebpflab.errors import (
    AttachError,
    CompileError,
    ProgramError,
    UnknownEvent,
    UnknownName,
    VerifierError,
)


def _totals(count: int) -> list[int]:
    n = np.arange(count, dtype=np.uint64)
    return list(np.cumsum((np.uint64(1) << np.uint64(32)) + n))


def test_by_path_every_hit_is_a_typed_row(lab: Lab, folder: str) -> None:
    usdt = lab.usdt(f"{folder}/usdt_loop")
    usdt.enable_probe(probe="step", fn_name="on_step")
    with lab.load(STEPS, usdt_contexts=[usdt]) as prog:
        assert prog.attached == [f"usdt {folder}/usdt_loop:usdt_loop:step -> on_step"]
        done = [lab.run([f"{folder}/usdt_loop", "1009"]) for _ in range(2)]
        frame = prog["steps"].frame()
        prog.detach()
        lab.run([f"{folder}/usdt_loop", "5"])
        assert len(prog["steps"].frame()) == 2018, "detached"
    assert list(frame["n"]) == [*range(1009)] * 2
    assert list(frame["word"]) == [WORDS[n % 5] for n in range(1009)] * 2
    assert list(frame["total"]) == _totals(1009) * 2
    assert list(frame["pid"]) == [done[0].pid] * 1009 + [done[1].pid] * 1009
    assert frame["n"].dtype == np.int32 and frame["total"].dtype == np.uint64
    assert frame.attrs["lost"] == 0


@pytest.mark.parametrize("program", ["usdt_loop", "usdt_loop_semaphore"])
def test_by_pid_only_that_process_is_seen(lab: Lab, folder: str, program: str) -> None:
    path = f"{folder}/{program}"
    traced, other = (lab.start([path, "211", "--wait"]) for _ in range(2))
    usdt = lab.usdt(path, pid=traced.pid)
    usdt.enable_probe(probe="usdt_loop:step", fn_name="on_step")
    with lab.load(STEPS, usdt_contexts=[usdt]) as prog:
        for workload in (traced, other):
            go(lab, workload.pid)
        said, unseen = traced.wait().stdout, other.wait().stdout
        frame = prog["steps"].frame()
    assert list(frame["n"]) == [*range(211)] and set(frame["pid"]) == {traced.pid}
    assert list(frame["total"]) == _totals(211)
    assert "prepared 211" in said
    assert ("prepared 0" in unseen) == (program == "usdt_loop_semaphore")


def test_two_probes_of_two_processes(lab: Lab, folder: str) -> None:
    path = f"{folder}/usdt_loop_semaphore"
    workloads = [lab.start([path, str(steps), "--wait"]) for steps in (101, 103)]
    contexts = [lab.usdt(path, pid=workload.pid) for workload in workloads]
    for usdt in contexts:
        usdt.enable_probe(probe="step", fn_name="on_step")
        usdt.enable_probe(probe="done", fn_name="on_hit")
    with lab.load(STEPS + ONE.split("ptrace.h>")[1], usdt_contexts=contexts) as prog:
        assert len(prog.attached) == 4
        for workload in workloads:
            go(lab, workload.pid)
            workload.wait()
        frame = prog["steps"].frame()
        assert len(prog["hits"].frame()) == 2
    assert list(frame.groupby("pid", sort=False).size()) == [101, 103]


def test_a_program_is_compiled_once_and_attached_anew(lab: Lab, folder: str) -> None:
    source = STEPS + "// compiled once\n"
    path = f"{folder}/usdt_loop_semaphore"
    compiled = []
    for steps in (11, 13):
        workload = lab.start([path, str(steps), "--wait"])
        usdt = lab.usdt(path, pid=workload.pid)
        usdt.enable_probe(probe="step", fn_name="on_step")
        with lab.load(source, usdt_contexts=[usdt]) as prog:
            compiled.append(prog.compiled)
            go(lab, workload.pid)
            workload.wait()
            assert list(prog["steps"].frame()["n"]) == [*range(steps)]
    assert compiled == [True, False]
    # The same text without a probe has nothing to read arguments by: not the same program.
    with pytest.raises(CompileError, match=r"was not enabled for a USDT probe"):
        lab.load(source).attach_uprobe(name=path, sym="main", fn_name="on_step")


def test_detached_and_attached_again(lab: Lab, folder: str) -> None:
    usdt = lab.usdt(f"{folder}/usdt_loop")
    usdt.enable_probe(probe="step", fn_name="on_step")
    with lab.load(STEPS, usdt_contexts=[usdt]) as prog:
        attached = prog.attached
        prog.detach()
        lab.run([f"{folder}/usdt_loop", "5"])
        prog.attach_again()
        assert prog.attached == attached
        lab.run([f"{folder}/usdt_loop", "7"])
        assert len(prog["steps"].frame()) == 7


def test_the_books_program_repaired(lab: Lab, folder: str) -> None:
    usdt = lab.usdt(path=f"{folder}/hello_usdt")
    usdt.enable_probe(probe="probe_main", fn_name="on_hit")
    with lab.load(ONE, usdt_contexts=[usdt]) as prog:
        for _ in range(3):
            lab.run([f"{folder}/hello_usdt"])
        assert len(prog["hits"].frame()) == 3


def test_an_argument_fits_a_variable_of_any_width(lab: Lab, folder: str) -> None:
    usdt = lab.usdt(f"{folder}/two_places")
    usdt.enable_probe(probe="here", fn_name="on_hit")
    with lab.load(WIDER, usdt_contexts=[usdt]) as prog:
        lab.run([f"{folder}/two_places", "5"])
        frame = prog["hits"].frame()
    assert list(frame["wide"]) == list(frame["narrow"]) == [0, 1, 2, 3, 4, -7]


def test_a_global_variable_as_an_argument(lab: Lab, folder: str) -> None:
    path = f"{folder}/global_variable"
    assert "answers(%rip)" in lab.usdt_probes(path)["arguments"][0] or lab.arch != "x86_64"
    usdt = lab.usdt(path)
    usdt.enable_probe(probe="answer", fn_name="on_hit")
    with lab.load(WIDER, usdt_contexts=[usdt]) as prog:
        lab.run([path])
        assert list(prog["hits"].frame()["wide"]) == [42, 43, 44]


def test_the_probes_of_a_file(lab: Lab, folder: str) -> None:
    frame = lab.usdt_probes(f"{folder}/usdt_loop").set_index("probe")
    assert list(frame.index) == ["step", "done"] and set(frame["provider"]) == {"usdt_loop"}
    assert (frame["semaphore"] == 0).all() and (frame["address"] > 0).all()
    sizes = [argument.split("@")[0] for argument in frame.loc["step", "arguments"].split()]
    assert sizes == ["-4", "8", "8"]
    assert (lab.usdt_probes(f"{folder}/usdt_loop_semaphore")["semaphore"] > 0).all()
    assert len(lab.usdt_probes(f"{folder}/two_places")) == 2, "one row for each place"
    quoted = lab.usdt_probes(f"{folder}/book")
    assert list(quoted["provider"] + quoted["probe"]) == ['"hello-usdt""probe-main"']
    none = lab.usdt_probes("/bin/true")
    assert none.empty and list(none) == ["provider", "probe", "arguments", "semaphore", "address"]


# -- refusals --------------------------------------------------------------------------------


def test_a_misspelt_probe_gets_its_closest_matches(lab: Lab, folder: str) -> None:
    usdt = lab.usdt(f"{folder}/usdt_loop")
    expected = (
        r"'stpe'\. Closest matches: step\. Its providers and probes: usdt_loop \(step, done\)"
    )
    with pytest.raises(UnknownEvent, match=expected) as caught:
        usdt.enable_probe(probe="stpe", fn_name="on_step")
    assert caught.value.closest == ("step",)
    with pytest.raises(UnknownEvent, match="Closest matches: usdt_loop:step"):
        usdt.enable_probe(probe="usdt_lop:step", fn_name="on_step")


def test_the_books_quotes_are_explained(lab: Lab, folder: str) -> None:
    with pytest.raises(UnknownEvent, match=r"quotation marks are part of these names.*rebuild"):
        lab.usdt(f"{folder}/book").enable_probe(probe="probe-main", fn_name="on_hit")


def test_a_program_without_probes_is_refused(lab: Lab) -> None:
    with pytest.raises(UnknownEvent, match=r"has no USDT probes.*sys/sdt\.h"):
        lab.usdt("/bin/true")


def test_files_that_are_no_programs(lab: Lab, folder: str) -> None:
    with pytest.raises(UnknownEvent, match="no file '/no/such'"):
        lab.usdt("/no/such")
    with pytest.raises(UnknownEvent, match="no file '/no/such'"):
        lab.usdt_probes("/no/such")
    with pytest.raises(AttachError, match="not an ELF file"):
        lab.usdt(f"{folder}/Makefile")
    lab.run(["sh", "-c", f"head -c 1000 {folder}/usdt_loop > {folder}/cut"])
    with pytest.raises(AttachError, match="cut or damaged"):
        lab.usdt_probes(f"{folder}/cut")
    foreign = "printf '\\050\\0' | dd of={0}/arm bs=1 seek=18 conv=notrunc"
    lab.run(["cp", f"{folder}/usdt_loop", f"{folder}/arm"])
    lab.run(["sh", "-c", foreign.format(folder)])
    with pytest.raises(AttachError, match=r"another processor \(ARM \(32 bits\)\)"):
        lab.usdt(f"{folder}/arm")


def test_a_process_that_is_gone_or_runs_something_else(lab: Lab, folder: str) -> None:
    gone = lab.run(["true"]).pid
    with pytest.raises(AttachError, match=f"no process {gone}"):
        lab.usdt(f"{folder}/usdt_loop", pid=gone)
    sleeper = lab.start(["sleep", "1000"])
    with pytest.raises(AttachError, match=rf"Process {sleeper.pid} does not use .*sleep"):
        lab.usdt(f"{folder}/usdt_loop", pid=sleeper.pid)
    sleeper.stop()


def test_one_name_of_two_providers(lab: Lab, folder: str) -> None:
    usdt = lab.usdt(f"{folder}/two_providers")
    with pytest.raises(AttachError, match="first:same, second:same"):
        usdt.enable_probe(probe="same", fn_name="on_hit")
    usdt.enable_probe(probe="second:same", fn_name="on_hit")
    with lab.load(ONE, usdt_contexts=[usdt]) as prog:
        lab.run([f"{folder}/two_providers"])
        assert len(prog["hits"].frame()) == 1


def test_one_function_for_probes_with_other_arguments(lab: Lab, folder: str) -> None:
    usdt = lab.usdt(f"{folder}/usdt_loop")
    usdt.enable_probe(probe="step", fn_name="on_step")
    usdt.enable_probe(probe="done", fn_name="on_step")
    with pytest.raises(AttachError, match="one C function for each"):
        lab.load(STEPS, usdt_contexts=[usdt])


def test_nothing_enabled_and_no_such_function(lab: Lab, folder: str) -> None:
    usdt = lab.usdt(f"{folder}/usdt_loop")
    with pytest.raises(ProgramError, match="enable_probe"):
        lab.load(STEPS, usdt_contexts=[usdt])
    with pytest.raises(ProgramError, match="Name a file or a process"):
        lab.usdt()
    usdt.enable_probe(probe="done", fn_name="on_hti")
    with pytest.raises(UnknownName, match=r"no function 'on_hti'.*on_hit"):
        lab.load(ONE, usdt_contexts=[usdt])


def test_errors_point_at_the_readers_line(lab: Lab, folder: str) -> None:
    usdt = lab.usdt(f"{folder}/usdt_loop")
    usdt.enable_probe(probe="step", fn_name="on_step")
    ours = ["ls", "-l", f"/proc/{lab.agent_pid}/fd"]
    before = lab.run(ours).stdout.count("perf_event")
    fourth = STEPS.replace("readarg(3,", "readarg(4,")
    with pytest.raises(CompileError, match="finds no such argument") as caught:
        lab.load(fourth, usdt_contexts=[usdt])
    assert caught.value.line == 1 + fourth[: fourth.index("readarg(4,")].count("\n")
    null = "BPF_HASH(total, int, u64);\n" + STEPS.replace(
        "  u64 word = 0;\n",
        "  u64 word = 0;\n  int zero = 0;\n  u64 *value = total.lookup(&zero);\n  (*value)++;\n",
    )
    with pytest.raises(VerifierError, match="may be NULL") as refused:
        lab.load(null, usdt_contexts=[usdt])
    assert "   11 |   (*value)++;" in str(refused.value)
    listing = lab.run(ours).stdout
    assert "ebpflab-include" not in listing and listing.count("perf_event") == before
