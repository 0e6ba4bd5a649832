"""Which headers are precompiled for a program, and when they are not used."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ebpflab.agent.programs import choices, precompiled
from ebpflab.replay import tape

ROOT = Path(__file__).parents[2]
TAPES = sorted((ROOT / "ebpflab" / "replay" / "chapters").glob("*.tape.xz"))
FS, MM = "#include <linux/fs.h>", "#include <linux/mm.h>"


@pytest.mark.parametrize(
    ("text", "prefix"),
    [
        ("", ()),
        ("int x;", ()),
        (f"{FS}\n{MM}\nint x;\n#include <linux/in.h>\n", (FS, MM)),
        (f"\n// one\n/* two\n * three */ \n  {FS} // why\n", (FS,)),
        (f"{FS}\n#define N 3\n{MM}\n#define M 4\n", (FS, "#define N 3", MM)),
        (f"#define F(x) x\n{FS}\n", ()),
        (f"#define N \\\n 3\n{FS}\n", ()),
        (f"/* one */ int x; /* two */\n{FS}\n", ()),
        (f"// goes on \\\n{FS}\n", ()),
        (f"{FS}\n#ifdef N\n{MM}\n#endif\n", (FS,)),
        (f'{FS}\n#include "own.h"\n{MM}\n', (FS,)),
        (f"{FS} \\\n\n{MM}", ()),
        (f"#undef N\n{FS}\n", ()),
    ],
)
def test_prefix_ends_before_all_that_may_change_what_follows(
    text: str, prefix: tuple[str, ...]
) -> None:
    assert precompiled.prefix_of(text) == prefix


def test_image_brings_the_prefix_of_every_chapters_program() -> None:
    brought = set((ROOT / "provision" / "prefixes.txt").read_text().strip().split("\n\n")) | {""}
    met = {
        "\n".join(precompiled.prefix_of(item.asked["source"]))
        for path in TAPES
        for item in tape.load(path).items
        if isinstance(item, tape.Exchange) and item.asked["op"] == "load"
    }
    assert met <= brought


def test_own_headers_are_cut_out_of_libbcc_whole() -> None:
    proto = b"\n// Copyright\n#ifndef __BCC_PROTO_H\n#define __BCC_PROTO_H\n#endif\n"
    twice = b"\n#ifndef __BPF_HELPERS_H\n"
    library = b"\x7fELF\0\x01A" + proto + b"\0" + twice + b"\0" + twice + b"\0"
    assert precompiled.own_headers(library) == {"include/bcc/proto.h": proto}


def test_flags_are_those_that_bcc_prints_without_its_output() -> None:
    printed = (
        "Running from kernel directory at: /t\n"
        "clang -cc1 -triple x -emit-llvm-bc -disable-llvm-verifier -main-file-name main.c"
        " -fdebug-compilation-dir=/t -isystem /virtual/lib/clang/include"
        " -include ./include/linux/kconfig.h -include /virtual/include/bcc/helpers.h"
        " -I /own -I include -D __KERNEL__ -o main.bc -x c /virtual/main.c\nint unused;\n"
    )
    tree, flags = precompiled._read_flags(printed, "/own")
    assert tree == "/t"
    assert flags == [
        *("-cc1", "-triple", "x", "-fdebug-compilation-dir=/t"),
        *("-isystem", "/own/lib/clang/include", "-include", "./include/linux/kconfig.h"),
        *("-include", "/own/include/bcc/helpers.h", "-I", "include", "-D", "__KERNEL__"),
    ]


def test_folder_that_others_can_write_holds_nothing(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    compiler = precompiled.Compiler(__file__, __file__)
    store = precompiled.Store(compiler, precompiled.Kernel("6.1.0"), str(tmp_path))
    assert "can be written by others" in store.make(())
    assert list(tmp_path.iterdir()) == []


def test_oldest_files_go_when_there_are_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precompiled, "_MOST_FILES", 2)
    compiler = precompiled.Compiler(__file__, __file__)
    store = precompiled.Store(compiler, precompiled.Kernel("6.1.0"), str(tmp_path))
    prefixes = [(), (FS,), (MM,)]
    for prefix in prefixes:
        for kind in ("pch", "names", "h"):
            Path(store.path(prefix, kind)).write_bytes(b"")
    for second, prefix in enumerate([prefixes[0], prefixes[1], prefixes[2]]):
        os.utime(store.path(prefix), (second, second))
    assert store.use(()) == store.path(())  # and so is the last again
    store._forget_oldest()
    left = [prefix for prefix in prefixes if Path(store.path(prefix)).exists()]
    assert left == [(), (MM,)]
    assert len(list(tmp_path.iterdir())) == 6


MAIN = "/virtual/main.c:3:9: "


@pytest.mark.parametrize(
    ("log", "alone"),
    [
        (MAIN + "error: expected ';' after expression\n  x\n", True),
        (MAIN + "error: expected ')'\n" + MAIN + "note: to match this '('\n", True),
        (MAIN + "fatal error: expected x\n", True),
        (MAIN + "error: use of undeclared identifier 'pdi'\n", False),
        (MAIN + "error: no member named 'pdi' in 'struct task_struct'\n", False),
        (MAIN + "error: expected ';'\n" + MAIN + "error: unknown type name 'u3'\n", False),
        ("include/linux/sched.h:3:1: error: expected ';'\n", False),
        (MAIN + "error: expected ';'\ninclude/linux/fs.h:1:1: note: declared here\n", False),
        ("could not open bpf map: seen\n", False),
    ],
)
def test_error_stands_alone_if_no_header_has_a_part_in_it(log: str, alone: bool) -> None:
    assert choices.is_syntax_alone(log) is alone
