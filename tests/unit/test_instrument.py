"""What is added to the reader's C."""

from __future__ import annotations

import pytest

from ebpflab.agent.programs.instrument import instrument

RING = "BPF_RINGBUF_OUTPUT(out, 8);\n"


def test_no_line_of_the_reader_moves() -> None:
    source = (
        f"// one\n{RING}int f(void *ctx) {{\n"
        "  struct e e = {};\n  out.ringbuf_output(&e, 8, 0);\n}"
    )
    done = instrument(source)
    before, after = source.splitlines(), done.text.splitlines()
    assert after[1] == "BPF_PERCPU_ARRAY(out__lost, u64, 1); " + before[1]
    assert [after[0], *after[2 : len(before)]] == [before[0], *before[2:]]


@pytest.mark.parametrize(
    ("call", "member"),
    [
        ("struct e e = {}; out.ringbuf_output(&e, sizeof(e), 0);", "struct e e"),
        ("struct e e; struct e *p = &e; out.ringbuf_output(p, sizeof(*p), 0);", "struct e p"),
        ("char comm[16]; out.perf_submit(ctx, &comm, 16);", "char comm[16]"),
        ("u64 n = 1; out.perf_submit(ctx, &n, sizeof(n));", "u64 n"),
        ("struct e *p = out.ringbuf_reserve(sizeof(struct e));", "struct e record"),
        ("struct e *p = out.ringbuf_reserve(sizeof(*p));", "struct e p"),
        ("e_t *p = out.ringbuf_reserve(sizeof(e_t));", "e_t record"),
        ("struct e e; out.ringbuf_output((void *)&e, 8, 0);", "struct e e"),
        ("struct e e; f(sizeof(struct e)); out.ringbuf_output(&e, 8, 0);", "struct e e"),
    ],
)
def test_the_record_is_found(call: str, member: str) -> None:
    done = instrument(f"{RING}int f(void *ctx) {{ {call} return 0; }}")
    assert done.layouts == {"out": "out__layout"}
    assert f"struct out__record {{ {member}; }};" in done.text


def test_comments_and_strings_are_not_code() -> None:
    source = (
        "// BPF_PERF_OUTPUT(gone);\n/* gone.perf_submit(ctx, &e, 1); */\n"
        'char s[] = "BPF_PERF_OUTPUT(gone)";\n'
    )
    assert instrument(source).buffers == []
    assert instrument(source).text == source


def test_a_buffer_declared_in_another_way_is_not_counted() -> None:
    source = (
        RING
        + 'BPF_TABLE("perf_event_array", int, u32, odd, 4);\n'
        + "int f(void *c) { odd.perf_submit(c, 0, 0); }"
    )
    done = instrument(source)
    assert not done.counted and done.cflags == [] and "__lost" not in done.text


def test_rings_for_each_cpu_are_declared_and_found() -> None:
    source = (
        "// EBPFLAB_RINGS(gone, 8);\nEBPFLAB_RINGS(out, 1 << 3); BPF_HASH(h, u32);\n"
        "int f(void *ctx) {\n  struct e e = {}; out.ringbuf_output(&e, 8, 0);\n"
        "  struct e *p = out . ringbuf_reserve(sizeof(e)); out.ringbuf_submit(p, 0);\n}"
    )
    done = instrument(source)
    lines = done.text.splitlines()
    assert (done.buffers, done.rings, done.counted) == (["out"], ["out"], True)
    assert lines[0] == source.splitlines()[0]
    assert lines[1].startswith(
        "BPF_PERCPU_ARRAY(out__lost, u64, 1); BPF_RINGBUF_OUTPUT(out, 1 << 3);"
        ' BPF_ARRAY_OF_MAPS(out__rings, "out", EBPFLAB_CPUS);'
    )
    assert lines[1].endswith(" BPF_HASH(h, u32);")
    assert "out__output(&e, 8, 0)" in lines[3]
    assert "out__reserve(sizeof(e)); out.ringbuf_submit(p, 0)" in lines[4]
    assert done.layouts == {"out": "out__layout"}
