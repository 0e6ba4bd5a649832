"""Saved logs of clang and the verifier become errors that point at the reader's line."""

from __future__ import annotations

import pytest

from ebpflab import diagnostics
from ebpflab.errors import CompileError

VERIFIER = r"""bpf: Failed to load program: Permission denied
0: R1=ctx() R10=fp0
; int on_work(struct pt_regs *ctx) { @ main.c:2
0: (b7) r1 = 1                        ; R1=1
; u64 *value = bpf_map_lookup_elem((void *)bpf_pseudo_fd(1, -1), &key); @ main.c:4
6: (85) call bpf_map_lookup_elem#1    ; R0=map_value_or_null(id=1,map=seen,ks=4,vs=8)
{last}7: (79) r1 = *(u64 *)(r0 +0)
R0 invalid mem access 'map_value_or_null'
processed 7 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0

HINT: The 'map_value_or_null' error can happen if you dereference a pointer value from a map lookup
"""
SOURCE = """BPF_HASH(seen, u32, u64);
int on_work(struct pt_regs *ctx) {
  u32 key = 1;
  u64 *value = seen.lookup(&key);
  (*value)++;
  return 0;
}
"""


def test_the_verifier_names_line_and_cure() -> None:
    log = VERIFIER.replace("{last}", "; (*value)++; @ main.c:5\n")
    error = diagnostics.verifier_error("The verifier refused on_work", {"log": log}, SOURCE)
    assert str(error).splitlines() == [
        "The verifier refused on_work: R0 invalid mem access 'map_value_or_null'",
        "    5 |   (*value)++;",
        "This pointer may be NULL: a lookup or reserve can fail. Test it first:"
        " `if (!pointer) return 0;`",
        f"({len(log.splitlines())} lines of the verifier's log are in the error's .log)",
    ]
    assert error.log == log and error.detail["line"] == 5


def test_the_page_that_newer_kernels_explain_with_is_not_the_objection() -> None:
    """Linux 7.3 adds it before the statistics."""
    page = "Verification failed: Register Type Safety\n\nSuggestion:\n  Add a NULL check.\n\n"
    log = VERIFIER.replace("{last}", "; (*value)++; @ main.c:5\n").replace(
        "processed ", f"\n{page}processed "
    )
    said = str(diagnostics.verifier_error("m", {"log": log}, SOURCE))
    assert said.startswith("m: R0 invalid mem access 'map_value_or_null'\n    5 |")


def test_a_line_that_bcc_has_rewritten_is_found() -> None:
    log = VERIFIER.replace("{last}", "")
    error = diagnostics.verifier_error("m", {"log": log}, SOURCE)
    assert "    4 |   u64 *value = seen.lookup(&key);" in str(error)


def test_a_log_without_a_word_is_not_hidden() -> None:
    error = diagnostics.verifier_error("m", {"log": "", "complaint": "Permission denied"}, SOURCE)
    assert str(error).startswith("m: Permission denied")


CLANG = """/virtual/main.c:3:11: error: use of undeclared identifier 'sizee'
  u32 a = sizee;
          ^
/virtual/main.c:4:3: error: expected expression
2 errors generated.
"""


def test_clang_points_at_the_column_and_counts_the_rest() -> None:
    error = diagnostics.compile_error("m", {"log": CLANG}, "//\n//\n  u32 a = sizee;\n  }\n")
    assert isinstance(error, CompileError) and (error.line, error.column) == (3, 11)
    lines = str(error).splitlines()
    assert lines[1:3] == ["    3 |   u32 a = sizee;", "      |           ^"]
    assert lines[-1] == "(1 more error; the whole text is in the error's .log)"


@pytest.mark.parametrize("gutter", ["", "   14 | "], ids=["LLVM 14", "LLVM 19"])
def test_lines_that_bcc_puts_before_the_program_are_not_counted(gutter: str) -> None:
    log = f"/virtual/main.c:14:11: error: use of undeclared identifier 'x'\n{gutter}  u32 a = x;\n"
    error = diagnostics.compile_error("m", {"log": log}, "//\n//\n  u32 a = x;\n")
    assert (error.line, error.column) == (3, 11)


def test_what_we_put_into_a_line_is_not_counted() -> None:
    quoted = "BPF_PERCPU_ARRAY(out__lost, u64, 1); BPF_RINGBUF_OUTPUT(out, eight);"
    log = f"/virtual/main.c:1:62: error: use of undeclared identifier 'eight'\n{quoted}\n"
    error = diagnostics.compile_error("m", {"log": log}, "BPF_RINGBUF_OUTPUT(out, eight);\n")
    assert (error.line, error.column) == (1, 25)


def test_a_line_that_is_not_the_readers_is_quoted_without_a_number() -> None:
    log = "/virtual/main.c:3:1: error: redefinition of 'x'\nstruct x { int y; };\n"
    error = diagnostics.compile_error("m", {"log": log}, "int f;")
    assert error.line is None and "struct x { int y; };" in str(error)


@pytest.mark.parametrize(
    ("what", "cure"),
    [
        ("argument may not have 'void' type", "void *ctx"),
        ("'void' must be the first and only parameter if specified", "void *ctx"),
        ("call to undeclared function 'strlen'", "no function or BPF helper"),
        ("incomplete definition of type 'struct task_struct'", "#include <linux/sched.h>"),
        ("variable has incomplete type 'struct pt_regs'", "#include <uapi/linux/ptrace.h>"),
        ("incomplete definition of type 'struct own'", "include the kernel header that defines"),
        ("'stdio.h' file not found", "of the C library"),
        ("redefinition of 'key'", "This name is taken"),
        (
            "no member named 'pidd' in 'struct tracepoint__sched__sched_switch'",
            "lab.tracepoint_format('sched:sched_switch')",
        ),
        ("'linux/nothing.h' file not found", "not among the traced kernel's headers"),
    ],
)
def test_common_mistakes_get_their_cure(what: str, cure: str) -> None:
    log = f"/virtual/main.c:1:1: error: {what}\n"
    assert cure in str(diagnostics.compile_error("m", {"log": log}, "int f;"))


def test_an_error_in_a_header_keeps_its_place() -> None:
    log = "include/linux/bpf.h:12:3: error: unknown type name 'wq'\n"
    error = diagnostics.compile_error("m", {"log": log}, "int f;")
    assert error.line is None and "include/linux/bpf.h:12:3" in str(error)


def test_a_misspelt_header_gets_its_closest_matches() -> None:
    log = "/virtual/main.c:1:10: fatal error: 'linux/shed.h' file not found\n"
    detail = {"log": log, "closest": ["linux/sched.h"]}
    assert "Closest matches: linux/sched.h." in str(diagnostics.compile_error("m", detail, "x"))


def test_advice_for_other_languages_is_left_out() -> None:
    flags = "; ISO C99 and later do not support it [-Wimplicit-function-declaration]"
    log = f"/virtual/main.c:1:1: error: call to undeclared function 'strlen'{flags}\n"
    text = str(diagnostics.compile_error("m", {"log": log}, "int f;"))
    assert "undeclared function 'strlen'\n" in text


@pytest.mark.parametrize(
    ("last", "cure"),
    [
        ("Failed to load BPF program b'f': Argument list too long", "Is there a loop?"),
        ("infinite loop detected at insn 2\ncur state: R10=fp0\nold state: R10=fp0", "bound"),
        ("R6 unbounded memory access, make sure to bounds check", "index is in bounds"),
        ("R0 !read_ok", "return 0;"),
        ("invalid bpf_context access off=1000 size=8", "bpf_perf_event_data"),
    ],
)
def test_what_the_verifier_means(last: str, cure: str) -> None:
    log = f"0: (b7) r1 = 1\n{last}\nprocessed 7 insns\n"
    assert cure in str(diagnostics.verifier_error("m", {"log": log}, SOURCE))
