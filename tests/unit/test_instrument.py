"""What is added to the reader's C."""

from __future__ import annotations

import pytest

from ebpflab.agent.programs.instrument import as_written, blames_us, instrument

RING = "BPF_RINGBUF_OUTPUT(out, 8);\n"


def test_no_line_of_the_reader_moves() -> None:
    source = (
        f"// one\n{RING}int f(void *ctx) {{\n"
        "  struct e e = {};\n  out.ringbuf_output(&e, 8, 0);\n}"
    )
    before, after = source.splitlines(), instrument(source).text.splitlines()
    assert after[1] == "EBPFLAB_RINGBUF_OUTPUT(out, 8);"
    assert after[4] == "  out.ringbuf_output(EBPFLAB_TO(out, e) &e, 8, 0);"
    assert [after[0], *after[2:4], after[5]] == [before[0], *before[2:4], before[5]]


@pytest.mark.parametrize(
    ("call", "becomes"),
    [
        ("ringbuf_output(p, 8, 0);", "ringbuf_output(MARK(p) p, 8, 0);"),
        ("ringbuf_submit( p, 0);", "ringbuf_submit(MARK(p)  p, 0);"),
        ("ringbuf_output((void *)&e, 8, 0);", "ringbuf_output(MARK(e) &e, 8, 0);"),
        ("perf_submit(ctx, (u8 *) &e, 8);", "perf_submit(MARK(e) ctx, &e, 8);"),
        ("perf_submit(ctx, (void *)p, 8);", "perf_submit(MARK(p) ctx, (void *)p, 8);"),
        ("perf_submit(ctx, &l[1], 8);", "perf_submit(MARK(data) ctx, &l[1], 8);"),
        ("perf_submit_skb(s, n, &e, 8);", "perf_submit_skb(MARK(data) s, n, &e, 8);"),
    ],
)
@pytest.mark.parametrize("before", ["out.", "if (x == '\"') y = '\"'; out . "])
def test_a_call_tells_its_buffer_and_variable(before: str, call: str, becomes: str) -> None:
    becomes = becomes.replace("MARK(", "EBPFLAB_TO(out, ")
    assert instrument(before + call).text == before + becomes


def test_comments_and_strings_are_not_code() -> None:
    source = (
        "// BPF_PERF_OUTPUT(gone);\n/* gone.perf_submit(ctx, &e, 1); */\n"
        'char s[] = "BPF_PERF_OUTPUT(gone)";\n'
    )
    assert instrument(source).text == source


def test_without_types_the_calls_stay_and_nothing_is_counted() -> None:
    source = RING + "int f(void *c) { out.ringbuf_output(&e, 8, 0); }"
    done = instrument(source, typed=False)
    assert done.text == "EBPFLAB_" + source.removeprefix("BPF_") and not done.typed
    assert not any("_COUNT" in flag for flag in done.cflags)


def test_rings_for_each_cpu_are_declared_and_found() -> None:
    source = (
        "// EBPFLAB_RINGS(gone, 8);\nEBPFLAB_RINGS(out, 1 << 3); BPF_HASH(h, u32);\n"
        "int f(void *ctx) {\n  struct e e = {}; out.ringbuf_output((void *)&e, 8, 0);\n"
        "  struct e *p = out . ringbuf_reserve(sizeof(e)); out.ringbuf_submit(p, 0);\n}"
    )
    done = instrument(source)
    lines = done.text.splitlines()
    assert done.rings == ["out"]
    assert lines[0] == source.splitlines()[0]
    assert lines[1].startswith(
        "BPF_PERCPU_ARRAY(out__lost, u64, 1); BPF_RINGBUF_OUTPUT(out, 1 << 3);"
        ' BPF_ARRAY_OF_MAPS(out__rings, "out", EBPFLAB_CPUS);'
    )
    assert lines[1].endswith(" BPF_HASH(h, u32);")
    assert "EBPFLAB_OUTPUT(out, e, &e, 8, 0)" in lines[3]
    assert "out__reserve(sizeof(e)); out.ringbuf_submit(EBPFLAB_TO(out, p) p, 0)" in lines[4]
    plain = instrument(source, typed=False).text.splitlines()
    assert "out__output((void *)&e, 8, 0)" in plain[3]


@pytest.mark.parametrize("margin", ["", "    9 | "])
def test_what_clang_quotes_is_shown_as_it_was_written(margin: str) -> None:
    before, mark = "  out.ringbuf_output(", "EBPFLAB_TO(out, e) "
    bar = margin.replace("9", " ")
    caret = " " * len(before + "&e, sizeof(e), 0)")

    def quoted(text: str, column: int, under: str) -> str:
        where = f"/virtual/main.c:9:{column}: error: expected ';'"
        return f"{where}\n{margin}{text}\n{bar}{under}^\nBPF_PERF_OUTPUT(out);"

    told = quoted(before + mark + "&e, sizeof(e), 0)", 57, caret + " " * len(mark))
    told = told.replace("BPF_PERF", "EBPFLAB_PERF")
    assert not blames_us(told)
    assert as_written(told) == quoted(before + "&e, sizeof(e), 0)", 38, caret)
    assert as_written(quoted("EBPFLAB_PERF_OUTPUT(x) y", 24, " " * 23)).startswith(
        quoted("BPF_PERF_OUTPUT(x) y", 20, " " * 19).removesuffix("BPF_PERF_OUTPUT(out);")
    )


def test_what_clang_says_of_our_macros_is_ours() -> None:
    assert blames_us("note: expanded from macro 'EBPFLAB_TYPE'")
    assert blames_us("error: use of undeclared identifier 'out__lost'")
    assert not blames_us("error: use of undeclared identifier 'outer'")
