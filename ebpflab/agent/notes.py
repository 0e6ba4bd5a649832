"""ELF notes: where a program says which USDT probes it has.

The macros of ``sys/sdt.h`` leave a nop in the code, and a note in the section ``.note.stapsdt``
that says where the nop is, what it is called, and where its arguments are when it is reached
("-4@%edi 8@-16(%rbp)": a size, negative when signed, and a register or a place in memory).
Source: systemtap's wiki, "UserSpaceProbeImplementation".
"""

import os
import struct
from typing import Any, BinaryIO, Dict, Iterator, List, NamedTuple, Tuple

import binaries
from faults import Fault

_SHT_NOTE = 7
_STAPSDT = 3
_HEADER_BYTES = 64
# What comes of offsets and sizes that mean nothing.
_DAMAGED = (struct.error, IndexError, ValueError, OverflowError, MemoryError, OSError)
_MACHINES = {3: "x86 (32 bits)", 40: "ARM (32 bits)", 62: "x86-64", 183: "ARM (64 bits)"}


class Note(NamedTuple):
    """One place in the code where a USDT probe can be hit."""

    provider: str
    probe: str
    arguments: str
    semaphore: int
    """Address of the counter of its listeners, or 0 where it has none."""
    address: int

    @property
    def name(self) -> str:
        return f"{self.provider}:{self.probe}"


class _Section(NamedTuple):
    name: int
    type: int
    address: int
    offset: int
    size: int


class _Elf:
    """As much of an ELF file as it takes to find its notes: 32 or 64 bits, either byte order."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        start = file.read(_HEADER_BYTES)
        self.wide = start[4] == 2
        self.order = "<" if start[5] == 1 else ">"
        header = struct.unpack_from(self.order + "HHI" + "QQQ" * self.wide, start, 16)
        if not self.wide:
            header += struct.unpack_from(self.order + "III", start, 24)
        self.machine: int = header[1]
        sizes = struct.unpack_from(self.order + "6H", start, 52 if self.wide else 40)
        self.sections = list(self._read_sections(header[5], *sizes[3:5]))
        self._names = self.bytes_of(self.sections[sizes[5]]) if self.sections else b""

    def _read_sections(self, offset: int, size: int, count: int) -> Iterator[_Section]:
        layout = self.order + ("IIQQQQ" if self.wide else "IIIIII")
        self._file.seek(offset)
        table = self._file.read(size * count)
        for index in range(count if offset else 0):
            name, type_, _, address, at, length = struct.unpack_from(layout, table, index * size)
            yield _Section(name, type_, address, at, length)

    def bytes_of(self, section: _Section) -> bytes:
        self._file.seek(section.offset)
        return self._file.read(section.size)

    def name_of(self, section: _Section) -> bytes:
        return self._names[section.name : self._names.index(b"\0", section.name)]

    def notes(self, section: _Section) -> Iterator[Tuple[bytes, int, bytes]]:
        """Owner, type and description of each note of a section."""
        data, at = self.bytes_of(section), 0
        while at + 12 <= len(data):
            name_size, size, type_ = struct.unpack_from(self.order + "III", data, at)
            owner = data[at + 12 : at + 12 + name_size].rstrip(b"\0")
            at += 12 + (name_size + 3 & ~3)
            yield owner, type_, data[at : at + size]
            at += size + 3 & ~3


def read(path: str) -> Tuple[str, List[Note]]:
    """The path that ``path`` stands for, and the USDT probes of that file, by address.

    Raises UnknownEvent when there is no such file, AttachError when it is not a program.
    """
    located = str(binaries.read_elf(path, 0, 0)[0]["path"])
    try:
        with open(located, "rb") as file:
            return located, sorted(_usdt(_Elf(file)), key=lambda note: note.address)
    except _DAMAGED:
        raise Fault("AttachError", f"{located!r} is an ELF file that is cut or damaged.") from None


def _usdt(elf: _Elf) -> Iterator[Note]:
    bases = [each.address for each in elf.sections if elf.name_of(each) == b".stapsdt.base"]
    layout = elf.order + ("QQQ" if elf.wide else "III")
    for section in elf.sections:
        if section.type != _SHT_NOTE:
            continue
        for owner, type_, described in elf.notes(section):
            if owner != b"stapsdt" or type_ != _STAPSDT:
                continue
            address, base, semaphore = struct.unpack_from(layout, described)
            texts = described[struct.calcsize(layout) :].split(b"\0")
            provider, probe, arguments = (text.decode(errors="replace") for text in texts[:3])
            # Whoever moved the file's sections after it was linked (prelink) left the notes.
            moved = bases[0] - base if bases else 0
            yield Note(
                provider, probe, arguments, semaphore + moved if semaphore else 0, address + moved
            )


def check_machine(path: str) -> None:
    """Refuse a program for another processor, which never runs here."""
    try:
        with open(path, "rb") as file, open(os.readlink("/proc/self/exe"), "rb") as own:
            theirs, ours = _Elf(file).machine, _Elf(own).machine
    except _DAMAGED:
        raise Fault("AttachError", f"{path!r} is an ELF file that is cut or damaged.") from None
    if theirs != ours:
        raise Fault(
            "AttachError",
            f"{path!r} was built for another processor ({_MACHINES.get(theirs, theirs)}); this"
            f" machine's is {_MACHINES.get(ours, ours)}. Give the file that runs here.",
        )


def describe(path: str) -> List[Dict[str, Any]]:
    """The USDT probes of a file, one row for each place where one can be hit."""
    return [note._asdict() for note in read(path)[1]]
