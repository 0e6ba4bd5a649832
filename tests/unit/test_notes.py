"""USDT notes, read from ELF files that are built byte by byte: both widths, both byte orders."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ebpflab.agent.faults import Fault
from ebpflab.agent.processes import notes


def note(order: str, word: str, texts: bytes, *addresses: int) -> bytes:
    described = struct.pack(order + word * 3, *addresses) + texts
    padding = b"\0" * (-len(described) % 4)
    return struct.pack(order + "III", 8, len(described), 3) + b"stapsdt\0" + described + padding


def elf(order: str, wide: bool, machine: int = 62, base: int = 0x2000) -> bytes:
    """A file with two probes and another owner's note, whose base has moved by 0x10."""
    word = "Q" if wide else "I"
    header_bytes, section_bytes = (64, 64) if wide else (52, 40)
    content = (
        note(order, word, b"two\0late\0-4@%edi 8@%rax\0", 0x1200, base - 0x10, 0x3000)
        + struct.pack(order + "III", 4, 5, 1) + b"GNU\0abcde\0\0\0"
        + note(order, word, b"one\0early\0\0", 0x1100, base - 0x10, 0)
    )  # fmt: skip
    names = b"\0.note.stapsdt\0.stapsdt.base\0.shstrtab\0"
    sections = [(0, 0, 0, 0, 0), (1, 7, 0, 0, len(content)), (15, 1, base, 0, 1), (29, 3, 0, 0, 0)]
    at = header_bytes
    sections[1] = (1, 7, 0, at, len(content))
    sections[3] = (29, 3, 0, at + len(content), len(names))
    table_at = at + len(content) + len(names)
    ident = b"\x7fELF" + bytes([2 if wide else 1, 1 if order == "<" else 2, 1]) + b"\0" * 9
    header = ident + struct.pack(order + "HHI", 3, machine, 1)
    header += struct.pack(order + word * 3, 0, 0, table_at)
    header += struct.pack(order + "I6H", 0, header_bytes, 0, 0, section_bytes, 4, 3)
    table = b""
    for name, kind, address, offset, size in sections:
        entry = struct.pack(order + "II" + word * 4, name, kind, 0, address, offset, size)
        table += entry.ljust(section_bytes, b"\0")
    return header + content + names + table


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("wide", [True, False])
def test_the_probes_of_a_file(tmp_path: Path, order: str, wide: bool) -> None:
    path = tmp_path / "program"
    path.write_bytes(elf(order, wide))
    assert notes.read(str(path)) == (
        str(path),
        [
            ("one", "early", "", 0, 0x1110),
            ("two", "late", "-4@%edi 8@%rax", 0x3010, 0x1210),
        ],
    )


@settings(max_examples=300)
@given(data=st.data())
def test_a_damaged_file_is_a_fault_or_other_notes(data, tmp_path_factory) -> None:
    good = bytearray(elf("<", True))
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(4, len(good) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "program"
    path.write_bytes(good[: data.draw(st.integers(4, len(good)))])
    try:
        notes.read(str(path))
    except Fault as fault:
        assert fault.type == "AttachError" and "damaged" in str(fault)


def test_another_processors_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "program"
    path.write_bytes(elf(">", True, machine=22))
    with pytest.raises(Fault, match="another processor"):
        notes.check_machine(str(path))
