"""Bad input gets a message that names it, and nothing else is disturbed."""

from __future__ import annotations

import pytest

from ebpflab import Lab
from ebpflab.errors import (
    AttachError,
    CompileError,
    ProgramError,
    UnknownEvent,
    VerifierError,
)

GOOD = "#include <uapi/linux/ptrace.h>\nint on_work(struct pt_regs *ctx) { return 0; }\n"


def test_c_that_does_not_compile_points_at_the_line(lab: Lab) -> None:
    source = (
        "// one\n// two\nBPF_RINGBUF_OUTPUT(out, 8);\n"
        "int f(void *ctx) {\n  u32 a = sizee;\n  return 0;\n}\n"
    )
    with pytest.raises(CompileError) as caught:
        lab.load(source)
    error = caught.value
    assert (error.line, error.column) == (5, 11)
    assert "    5 |   u32 a = sizee;\n      |           ^" in str(error)
    assert "sizee" in error.log


def test_an_unknown_function_is_a_compile_error(lab: Lab) -> None:
    with pytest.raises(CompileError, match="no function or BPF helper") as caught:
        lab.load("int f(void *ctx) {\n  return strlen_of(ctx);\n}\n")
    assert caught.value.line == 2


@pytest.mark.parametrize(
    ("declared", "why"),
    [
        ("BPF_RINGBUF_OUTPUT(events, 3)", "'events': Invalid argument.* a power of two"),
        ("BPF_HASH(events, u32, u64, 4000000000)", "'events': Argument list too long.* fewer"),
    ],
    ids=["ring", "hash"],
)
def test_a_map_that_the_kernel_does_not_make_is_named(lab: Lab, declared: str, why: str) -> None:
    with pytest.raises(ProgramError, match=f"did not make the map {why}") as caught:
        lab.load(f"{declared};\n{GOOD}")
    assert type(caught.value) is ProgramError  # neither clang nor the headers are to blame


DIVISION = "  s64 n = PT_REGS_PARM1(ctx);\n  return n % 3;\n"
STACK = (
    "  char big[800] = {};\n  bpf_probe_read_user(&big, sizeof(big), (void *)PT_REGS_PARM1(ctx));\n"
    "  return big[bpf_get_prandom_u32() % 700];\n"
)


@pytest.mark.parametrize(
    ("body", "cure"), [(DIVISION, "unsigned"), (STACK, "512 bytes")], ids=["division", "stack"]
)
def test_what_llvm_cannot_translate_does_not_end_the_agent(lab: Lab, body: str, cure: str) -> None:
    for _ in range(2):
        with pytest.raises(CompileError, match=cure):
            lab.load(f"#include <uapi/linux/ptrace.h>\nint f(struct pt_regs *ctx) {{\n{body}}}\n")
    with lab.load(GOOD) as prog:
        assert prog.functions == ["on_work"]


@pytest.mark.local
def test_llvm_gives_up_on_so_many_programs_and_then_no_more_are_tried() -> None:
    """What each held stays until the agent ends, and the agent may not grow."""
    division = f"#include <uapi/linux/ptrace.h>\nint f(struct pt_regs *ctx) {{\n{DIVISION}}}\n"
    with Lab("local") as lab:
        for divisor in range(3, 19, 2):
            with pytest.raises(CompileError, match="unsigned"):
                lab.load(division.replace("% 3", f"% {divisor}"))
        with pytest.raises(ProgramError, match=r"given up on 8 .*lab\.close\(\)"):
            lab.load(division.replace("% 3", "% 19"))
        with pytest.raises(CompileError, match="unsigned"):  # what is known is told again
            lab.load(division)
    with Lab("local") as lab, lab.load(GOOD) as prog:
        assert prog.functions == ["on_work"]


def test_the_verifier_points_at_the_line(lab: Lab, program: str) -> None:
    source = (
        "BPF_HASH(seen, u32, u64);\n"
        "int on_work(struct pt_regs *ctx) {\n"
        "  u32 key = 1;\n"
        "  u64 *value = seen.lookup(&key);\n"
        "  (*value)++;\n"
        "  return 0;\n"
        "}\n"
    )
    with lab.load(source) as prog:
        with pytest.raises(VerifierError, match="may be NULL") as caught:
            prog.attach_uprobe(name=program, sym="work", fn_name="on_work")
        assert "    5 |   (*value)++;" in str(caught.value)
        assert "processed" in caught.value.log
        assert prog.attached == []


def test_a_misspelt_symbol_gets_its_closest_match(lab: Lab, program: str) -> None:
    with lab.load(GOOD) as prog:
        with pytest.raises(UnknownEvent, match="Closest matches: work") as caught:
            prog.attach_uprobe(name=program, sym="wrok", fn_name="on_work")
        assert caught.value.closest == ("work",)


def test_symbols_take_the_short_name_that_a_probe_takes(lab: Lab) -> None:
    used = lab.run(["sh", "-c", r"ldd /bin/sh | grep -o '/.*/libc\.so\.6'"]).stdout.strip()
    malloc = lab.symbols("c", "malloc")
    assert list(malloc["symbol"]) == ["malloc"]
    assert malloc.equals(lab.symbols(used, "malloc"))
    with pytest.raises(UnknownEvent, match="no library 'nosuchlibrary'"):
        lab.symbols("nosuchlibrary")


def test_a_process_that_is_gone_is_named(lab: Lab, program: str) -> None:
    gone = lab.run([program, "1"]).pid
    with lab.load(GOOD) as prog, pytest.raises(AttachError, match=f"no process {gone}"):
        prog.attach_uprobe(name=program, sym="work", fn_name="on_work", pid=gone)


def test_commands_give_what_they_print_and_how_they_end(lab: Lab) -> None:
    done = lab.run(["sh", "-c", "cat; echo err >&2; exit 3"], input="in\n")
    assert (done.stdout, done.stderr, done.returncode) == ("in\n", "err\n", 3)
    running = lab.start(["sleep", "1000"])
    assert running.stop().returncode == -15


def test_long_output_is_cut_and_says_so(lab: Lab) -> None:
    done = lab.run(["head", "-c", "9000000", "/dev/zero"])
    assert done.truncated and len(done.stdout) == 4 << 20


def test_nothing_stays_attached_when_a_program_closes(lab: Lab, program: str) -> None:
    before = _probes(lab)
    with lab.load(GOOD) as prog:
        prog.attach_uprobe(name=program, sym="work", fn_name="on_work")
        assert _probes(lab) == before + 1
    assert _probes(lab) == before


def _probes(lab: Lab) -> int:
    """Perf events that the agent holds open: one for each probe, and each perf buffer."""
    listing = lab.run(["ls", "-l", f"/proc/{lab.agent_pid}/fd"]).stdout
    return listing.count("perf_event")
