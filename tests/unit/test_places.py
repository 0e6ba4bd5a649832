"""Where a probe may stand, in libraries that a compiler makes here. Nothing is attached."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any, cast

import pytest

from ebpflab.binaries import places
from ebpflab.binaries.elf import Binary
from ebpflab.binaries.returns import instruction_at
from ebpflab.errors import AttachError
from ebpflab.protocol.messages import SYMBOLS, Operation
from ebpflab.transport.connection import Answer, Connection

LIBRARY = r"""
static __attribute__((noinline)) long hidden(long n) { return n * 3 + 1; }
long work(long n) { return hidden(n) + 5; }
static long (*pick(void))(long) { return work; }
long picked(long n) __attribute__((ifunc("pick")));
__asm__(".globl sizeless\n.type sizeless, %function\nsizeless: .long 0, 0, 0, 0\n");
extern int other(int);
int (*uses)(int) = other;
"""


class Here:
    """A connection to an agent that reads the files of this machine."""

    def __init__(self, in_debug_file: dict[str, int]) -> None:
        self.in_debug_file = in_debug_file

    def request(self, operation: Operation[Any, Any], asked: dict[str, Any]) -> Answer[Any]:
        if operation is SYMBOLS:
            found = self.in_debug_file.get(asked["pattern"])
            rows = [] if found is None else [{"symbol": asked["pattern"], "address": found}]
            return Answer({"symbols": rows}, b"")
        data = Path(asked["name"]).read_bytes()
        told = {"path": asked["name"], "size_bytes": len(data), "version": "1"}
        return Answer(told, data[asked["offset"] :][: asked["size_bytes"]])


@pytest.fixture
def library(tmp_path: Path) -> Path:
    path = tmp_path / "liblab.so"
    command = ["gcc", "-O1", "-fPIC", "-shared", "-x", "c", "-o", path, "-"]
    subprocess.run(command, input=LIBRARY, text=True, check=True)
    return path


def strip(library: Path) -> None:
    subprocess.run(["strip", "--strip-all", library], check=True)


def check(path: Path, sym: str, sym_off: int, **in_debug_file: int) -> None:
    connection = cast(Connection, Here(in_debug_file))
    places.check(connection, str(path), sym, None, sym_off)


@pytest.mark.parametrize("stripped", [False, True])
def test_an_offset_inside_of_an_instruction_of_a_library(library: Path, stripped: bool) -> None:
    with library.open("rb", buffering=0) as file:
        binary = Binary(file, str(library))
        work = binary.symbols["work"]
        code = binary.read(work.address, work.size_bytes)
        _, _, second = instruction_at(code, 0, binary.machine)
    if stripped:
        strip(library)
    for sym in ("work", "picked", "sizeless"):
        with pytest.raises(AttachError, match=rf"{sym}\+1 .* is inside of an instruction"):
            check(library, sym, 1)
    check(library, "work", second)
    with pytest.raises(AttachError, match=f"outside of the function, which has {work.size_bytes}"):
        check(library, "work", work.size_bytes)


def test_a_function_that_only_the_debug_file_names(library: Path) -> None:
    with library.open("rb", buffering=0) as file:
        hidden = Binary(file, str(library)).symbols["hidden"].address
    strip(library)
    with pytest.raises(AttachError, match=r"hidden\+1 .* is inside of an instruction"):
        check(library, "hidden", 1, hidden=hidden)
    with pytest.raises(AttachError, match="outside of the function"):
        check(library, "hidden", -1, hidden=hidden)


@pytest.mark.parametrize("sym", ["no_such_function", "other"])
def test_a_function_that_is_not_in_the_file_is_for_bcc_to_explain(library: Path, sym: str) -> None:
    check(library, sym, 1)
