"""What a Go program says of itself, read from made-up programs."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pytest

from ebpflab.binaries.elf import Binary, Function, TracedFile
from ebpflab.binaries.golang import GoBinary, GoRuntime
from ebpflab.errors import AttachError, UnknownEvent
from ebpflab.protocol import messages
from ebpflab.transport.connection import Answer

INLINE = b"\xff Go buildinf:\x08\x02" + bytes(16) + b"\x06go1.24" + b"\0"
POINTERS = b"\xff Go buildinf:\x08\x00" + (0x1000).to_bytes(8, "little") + bytes(8)
MEMORY = {
    0x1000: (0x2000).to_bytes(8, "little") + (8).to_bytes(8, "little"),
    0x2000: b"go1.17.5",
    0x3000: bytes.fromhex("90c390c3"),
}


class FakeBinary(Binary):
    """A program of a few facts."""

    def __init__(
        self, build_info: bytes = INLINE, names: tuple[str, ...] = ("main.work",), **facts: Any
    ) -> None:
        self.path, self.machine = "/target", facts.get("machine", "x86_64")
        self._sections = {".go.buildinfo": build_info, ".symtab": b""}
        self.symbols = {name: Function(name, 0x3000, 4) for name in names}

    def section(self, name: str) -> bytes:
        return self._sections.get(name, b"")

    def offset(self, address: int) -> int:
        return address - 0x1000

    def read(self, address: int, size_bytes: int) -> bytes:
        return MEMORY[address][:size_bytes]

    def dies(self, unit: str) -> Iterator[Any]:
        return iter(())


@pytest.mark.parametrize(
    ("build_info", "version"),
    [(INLINE, "go1.24"), (POINTERS, "go1.17.5"), (b"", "unknown"), (b"nonsense" * 9, "unknown")],
    ids=["since 1.18", "before", "empty", "damaged"],
)
def test_the_version_in_both_layouts(build_info: bytes, version: str) -> None:
    assert GoBinary(FakeBinary(build_info)).runtime().version == version


@pytest.mark.parametrize(
    ("version", "machine", "by_registers", "flags"),
    [
        ("go1.24.4", "x86_64", True, ["-DGOID_OFFSET=160", "-DGO_G=r14"]),
        ("go1.17", "x86_64", True, ["-DGOID_OFFSET=160", "-DGO_G=r14"]),
        ("go1.17", "aarch64", False, ["-DGOID_OFFSET=160", "-DGO_G=regs[28]"]),
        ("go1.18", "aarch64", True, ["-DGOID_OFFSET=160", "-DGO_G=regs[28]"]),
        ("devel go1.28-abcdef", "x86_64", True, ["-DGOID_OFFSET=160", "-DGO_G=r14"]),
    ],
)
def test_what_c_is_told(version: str, machine: str, by_registers: bool, flags: list[str]) -> None:
    runtime = GoRuntime(version, machine, 160)
    assert (runtime.register_calls, runtime.cflags) == (by_registers, flags)


def test_no_macros_where_there_is_no_register_or_no_offset() -> None:
    with pytest.raises(AttachError, match=r"go1\.16 for x86_64 keeps the goroutine in no register"):
        _ = GoRuntime("go1.16", "x86_64", 152).cflags
    with pytest.raises(AttachError, match="no debugging information"):
        _ = GoRuntime("go1.24", "x86_64", None).cflags


def test_returns_are_places_in_the_file() -> None:
    assert GoBinary(FakeBinary()).returns("main.work", "x86_64") == [0x2001, 0x2003]


def test_a_program_for_another_processor_is_refused() -> None:
    binary = GoBinary(FakeBinary(machine="aarch64"))
    with pytest.raises(AttachError, match=r"built for aarch64 and the traced machine is x86_64"):
        binary.returns("main.work", "x86_64")


def test_closest_matches_prefer_the_same_last_part_and_the_readers_own() -> None:
    names = ("main.work", "main.other", "sync.work", "main.(*Server).serve")
    binary = GoBinary(FakeBinary(names=names))
    for sym, expected in [
        ("work", ("main.work",)),
        ("mian.work", ("main.work",)),
        ("main.serve", ("main.(*Server).serve",)),
        ("main.othre", ("main.other",)),
        ("zzz.qqqqqqqq", ()),
    ]:
        with pytest.raises(UnknownEvent) as caught:
            binary.returns(sym, "x86_64")
        assert caught.value.closest[:1] == expected, sym


def test_c_functions_of_a_go_program_are_left_out() -> None:
    binary = FakeBinary(names=("main.work", "malloc"))
    binary.symbols["malloc"] = Function("malloc", 0x9000, 4)
    binary.symbols["runtime.text"] = Function("runtime.text", 0x3000, 0)
    binary.symbols["runtime.etext"] = Function("runtime.etext", 0x4000, 0)
    assert list(GoBinary(binary).functions) == ["main.work"]
    with pytest.raises(AttachError, match=r"'malloc' in '/target' is not Go.*force=True"):
        GoBinary(binary).returns("malloc", "x86_64")


class FakeConnection:
    """Hands out a file in small pieces, and replaces it after some of them."""

    def __init__(self, data: bytes, replaced_after: int = 1000) -> None:
        self.data, self.left = data, replaced_after

    def request(self, operation: object, asked: messages.ReadElf) -> Answer[messages.ElfRead]:
        self.left -= 1
        told = messages.ElfRead(path="/x", size_bytes=len(self.data), version=str(self.left < 0))
        start = asked["offset"]
        return Answer(told, self.data[start : start + min(asked["size_bytes"], 7)])


def test_a_traced_file_is_a_file() -> None:
    file = TracedFile(FakeConnection(bytes(range(100))), "/x")  # type: ignore[arg-type]
    assert io.BufferedReader(file, 16).read() == bytes(range(100))
    assert file.seek(-3, io.SEEK_END) == 97 and file.read(9) == bytes([97, 98, 99])
    assert file.read(9) == b""


def test_a_file_that_is_replaced_meanwhile_is_refused() -> None:
    file = TracedFile(FakeConnection(bytes(100), replaced_after=3), "/x")  # type: ignore[arg-type]
    with pytest.raises(AttachError, match="changed while it was read"):
        io.BufferedReader(file, 16).read()
