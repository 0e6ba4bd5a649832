"""The columns of a record are those of what is sent, as clang sees it, and of nothing else."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pandas as pd
import pytest

from ebpflab import Lab
from ebpflab.errors import ProgramError, UnknownName
from ebpflab.program import Program

HEAD = r"""
#include <uapi/linux/ptrace.h>
struct one { u64 number; u32 first; u32 second; };
struct two { char name[8]; u16 port; u16 count; u32 size; };
struct three { u32 third; };
struct outer { u64 before; struct two inner; struct one list[2]; };
typedef struct two two_t;
"""
ONE, TWO, THREE = "{.number = 5, .first = 6}", '{.name = "ab", .port = 80}', "{.third = 9}"
ROWS: dict[str, dict[str, Any]] = {
    "one": {"number": 5, "first": 6, "second": 0},
    "two": {"name": "ab", "port": 80, "count": 0, "size": 0},
    "three": {"third": 9},
    "text": {"text": "abc"},
    "plain": {"plain": 7},
}

# (what it is, the body of the function, which row comes); SEND is the call up to the data
WAYS = {
    "a variable": (f"struct one e = {ONE}; SEND &e, sizeof(e) END", "one"),
    "a pointer": (f"struct two e = {TWO}; struct two *p = &e; SEND p, sizeof(*p) END", "two"),
    "of a typedef": (f"two_t e = {TWO}; SEND &e, sizeof(e) END", "two"),
    "through void": (f"struct one e = {ONE}; SEND (void *)&e, sizeof(e) END", "one"),
    "cast to its type": (f"struct one e = {ONE}; SEND (struct one *)&e, sizeof(e) END", "one"),
    "a member": (f"struct outer o = {{.inner = {TWO}}}; SEND &o.inner, sizeof(o.inner) END", "two"),
    "an element": (f"struct one l[2] = {{{ONE}, {ONE}}}; SEND &l[1], sizeof(l[1]) END", "one"),
    "by typeof": (f"struct two e = {TWO}; typeof(e) f = e; SEND &f, sizeof(f) END", "two"),
    "an array": ('char text[8] = "abc"; SEND text, sizeof(text) END', "text"),
    "the address of an array": ('char text[8] = "abc"; SEND &text, sizeof(text) END', "text"),
    "a number": ("u64 plain = 7; SEND &plain, sizeof(plain) END", "plain"),
    "with a namesake inside": (
        f"struct one e = {ONE}; if (e.first) {{ struct two e = {TWO}; e.count = 1; }}"
        " SEND &e, sizeof(e) END",
        "one",
    ),
    "with a namesake outside": (
        f"struct two e = {TWO}; {{ struct one e = {ONE}; SEND &e, sizeof(e) END }} e.count = 1;",
        "one",
    ),
    "one of two in a line": (f"struct one a = {{}}, e = {ONE}; SEND &e, sizeof(e) END", "one"),
    "beside characters": (
        f"struct one e = {ONE}; char a = '\"'; SEND &e, sizeof(e) END e.first = a + '\"';",
        "one",
    ),
    "by a macro's name": (f"struct RECORD e = {TWO}; SEND &e, sizeof(e) END", "two"),
}
DECLARED = {
    "BPF_PERF_OUTPUT(NAME);": "perf",
    "BPF_RINGBUF_OUTPUT(NAME, 8);": "ring",
    "#if 0\nBPF_PERF_OUTPUT(NAME);\n#else\nBPF_RINGBUF_OUTPUT(NAME, 8);\n#endif": "ring",
    "#ifdef GONE\nBPF_RINGBUF_OUTPUT(NAME, 8);\n#else\nBPF_PERF_OUTPUT(NAME);\n#endif": "perf",
    "MY_BUFFER(NAME);": "perf",
    "BPF_RINGBUF_OUTPUT(NAME, 8); BPF_PERF_OUTPUT(NAME_beside);": "ring",
    "EBPFLAB_RINGS(NAME, 8);": "ring",
}
SENDS = {
    "perf": ("NAME.perf_submit(ctx, ", ");"),
    "ring": ("NAME.ringbuf_output(", ", 0);"),
}


def written(choices: list[tuple[str, str]]) -> str:
    """A program in which each choice has a buffer and a function of its own."""
    text = HEAD + "#define MY_BUFFER(name) BPF_PERF_OUTPUT(name)\n#define RECORD two\n"
    for number, (way, declared) in enumerate(choices):
        begin, end = SENDS[DECLARED[declared]]
        body = WAYS[way][0].replace("SEND ", begin).replace(" END", end)
        text += (
            f"{declared}\nint on_{number}(struct pt_regs *ctx) {{ {body} return 0; }}\n".replace(
                "NAME", f"b{number}"
            )
        )
    return text


@contextmanager
def called(lab: Lab, program: str, source: str, calls: int) -> Iterator[Program]:
    """A program whose ``on_work``, and ``after`` where it has one, have been run so many times."""
    with lab.load(source) as prog:
        prog.attach_uprobe(name=program, sym="work", fn_name="on_work")
        if "after" in prog.functions:
            prog.attach_uretprobe(name=program, sym="work", fn_name="after")
        lab.run([program, str(calls)])
        yield prog


def rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return frame.drop(columns="cpu", errors="ignore").to_dict("records")


@pytest.mark.parametrize("seed", range(3))
def test_every_way_to_send_and_to_declare(lab: Lab, program: str, seed: int) -> None:
    draw = random.Random(seed)
    ways = list(WAYS)
    draw.shuffle(ways)
    choices = [(way, draw.choice(list(DECLARED))) for way in ways]
    with lab.load(written(choices)) as prog:
        for number in range(len(choices)):
            prog.attach_uprobe(name=program, sym="work", fn_name=f"on_{number}")
        lab.run([program, "2"])
        for number, (way, declared) in enumerate(choices):
            expected = [ROWS[WAYS[way][1]]] * 2
            assert rows(prog[f"b{number}"].frame()) == expected, (way, declared)


TWO_TYPES = (
    HEAD
    + rf"""
BPF_RINGBUF_OUTPUT(both, 8); BPF_PERF_OUTPUT(perf);
int on_work(struct pt_regs *ctx) {{
  struct one one = {ONE};
  both.ringbuf_output(&one, sizeof(one), 0);
  perf.perf_submit(ctx, &one, sizeof(one));
  return 0;
}}
int after(struct pt_regs *ctx) {{
  struct three *e = both.ringbuf_reserve(sizeof(struct three));
  if (!e) return 0;
  e->third = 9;
  both.ringbuf_submit(e, 0);
  struct three three = {THREE};
  perf.perf_submit(ctx, &three, sizeof(three));
  return 0;
}}
"""
)


@pytest.mark.parametrize("buffer", ["both", "perf"])
def test_two_types_are_told_apart_by_their_lengths(lab: Lab, program: str, buffer: str) -> None:
    with called(lab, program, TWO_TYPES, 2) as prog:
        frame = prog[buffer].frame()
    assert list(frame["struct"]) == ["struct one", "struct three"] * 2
    assert list(frame["number"].dropna()) == [5, 5] and list(frame["third"].dropna()) == [9, 9]
    assert str(frame["third"].dtype) == "UInt32"
    assert frame["third"].isna().tolist() == [True, False] * 2


ONE_LENGTH = r"""
#include <uapi/linux/ptrace.h>
struct start { u32 kind; u32 cpu_number; };
struct end { u32 kind; s32 result; };
BPF_RINGBUF_OUTPUT(both, 8);
int on_work(struct pt_regs *ctx) {
  struct start e = {.kind = 0, .cpu_number = 7};
  both.ringbuf_output(&e, sizeof(e), 0);
  return 0;
}
int after(struct pt_regs *ctx) {
  struct end e = {.kind = 1, .result = -1};
  both.ringbuf_output(&e, sizeof(e), 0);
  return 0;
}
"""


def test_types_of_one_length_are_bytes_until_a_tag_tells_them(
    lab: Lab, program: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with called(lab, program, ONE_LENGTH, 1) as prog:
        assert "(struct start, struct end)" in capsys.readouterr().out
        assert prog["both"].frame()["data"][0] == bytes([0, 0, 0, 0, 7, 0, 0, 0])
        both = prog["both"].typed({0: "struct start", 1: "struct end"}, tag="kind")
        frame = both.frame()
        assert list(frame["struct"]) == ["struct start", "struct end"]
        assert frame["cpu_number"][0] == 7 and frame["result"][1] == -1
        ends = both.typed({1: "struct end"}, tag="kind").frame()  # the others are of no type
        assert ends["result"].dropna().to_list() == [-1]
        assert ends["data"].dropna().to_list() == [bytes([0, 0, 0, 0, 7, 0, 0, 0])]
        with pytest.raises(UnknownName, match=r"'struct ends'.*struct end"):
            both.typed("struct ends")
        with pytest.raises(ProgramError, match="struct end has no field 'cpu_number'"):
            both.typed({0: "struct start", 1: "struct end"}, tag="cpu_number")
        with pytest.raises(ProgramError, match="takes one type"):
            both.typed("struct end", tag="kind")


UNTOLD = (
    HEAD
    + r"""
BPF_ARRAY(store, struct two, 1);
BPF_RINGBUF_OUTPUT(out, 8);
BPF_RINGBUF_OUTPUT(cut, 8); BPF_RINGBUF_OUTPUT(names, 8); BPF_RINGBUF_OUTPUT(raws, 8);
BPF_RINGBUF_OUTPUT(longer, 8); BPF_PERF_OUTPUT(perf);
struct text { u64 number; char name[4]; u8 raw[4]; };
int on_work(struct pt_regs *ctx) {
  u32 zero = 0;
  void *found = store.lookup(&zero);
  if (found) out.ringbuf_output(found, sizeof(struct two), 0);
  struct one e[2] = {{.number = 5, .first = 6, .second = 7}};
  cut.ringbuf_output(&e[0], 12, 0);
  perf.perf_submit(ctx, &e[0], 12);
  longer.ringbuf_output(&e[0], 32, 0);
  struct text text = {.number = 5, .name = "abc", .raw = {1, 2, 3}};
  names.ringbuf_output(&text, 8 + 2, 0);
  raws.ringbuf_output(&text, 8 + 4 + 2, 0);
  return 0;
}
"""
)


def test_what_clang_cannot_tell_is_bytes_until_the_reader_does(
    lab: Lab, program: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with called(lab, program, UNTOLD, 1) as prog:
        assert "'out' are shown as bytes" in capsys.readouterr().out
        assert list(prog["out"].frame()["data"]) == [bytes(16)]
        assert rows(prog["out"].typed("struct two").frame()) == [
            {"name": "", "port": 0, "count": 0, "size": 0}
        ]
        frame = prog["longer"].frame()
        assert frame["data"][0] == bytes([5, *[0] * 7, 6, 0, 0, 0, 7, *[0] * 19])
        assert frame["number"].isna().all()
        assert "longer: records of 32 bytes are not a struct one (16)" in capsys.readouterr().out
        assert rows(prog["longer"].typed("struct one").frame()) == [
            {"number": 5, "first": 6, "second": 7}
        ]


def test_what_a_shorter_record_has_not_is_na(lab: Lab, program: str) -> None:
    with called(lab, program, UNTOLD, 1) as prog:
        cut = prog["cut"].frame()
        assert rows(cut.fillna(99)) == [{"number": 5, "first": 6, "second": 99}]
        assert list(map(str, cut.dtypes)) == ["UInt64", "UInt32", "UInt32"]
        # The kernel fills a perf buffer's records up, by 7 bytes at most, and does not say how far.
        assert prog["perf"].frame().drop(columns="cpu").isna().all(axis=None)
        typed = prog["perf"].typed("struct one").frame().fillna(99)
        assert rows(typed) == [{"number": 5, "first": 6, "second": 99}]
        assert rows(prog["names"].frame().fillna("?")) == [{"number": 5, "name": "ab", "raw": "?"}]
        assert rows(prog["raws"].frame()) == [{"number": 5, "name": "abc", "raw": b"\x01\x02"}]
