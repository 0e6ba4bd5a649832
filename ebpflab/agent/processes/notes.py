"""ELF notes: where a program says which USDT probes it has.

The macros of ``sys/sdt.h`` leave a nop in the code, and a note in the section ``.note.stapsdt``
that says where the nop is, what it is called, and where its arguments are when it is reached
("-4@%edi 8@-16(%rbp)": a size, negative when signed, and a register or a place in memory).
Source: systemtap's wiki, "UserSpaceProbeImplementation".
"""

import os
import struct
from typing import Any, BinaryIO, Iterator, List, NamedTuple, Tuple

from ebpflab.agent.faults import Fault
from ebpflab.agent.processes import elf
from ebpflab.protocol import messages

_SHT_NOTE, _SHT_TABLES_OF_SYMBOLS, _PT_LOAD = 7, (2, 11), 1
_PAGE_BYTES = 4096
_STAPSDT = 3
_HEADER_BYTES = 64
_MAX_ROW_BYTES = 64  # of a segment, section or symbol, of which 64 is the longest
# A sparse file of no blocks may say that it has sections of any size, and this process is root.
_MAX_SECTION_BYTES = 256 << 20
_MAX_NOTES_BYTES = 16 << 20
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
    link: int


class _Segment(NamedTuple):
    offset: int
    address: int
    file_bytes: int


class _Elf:
    """As much of an ELF file as it takes to find its notes, and what they point at.

    Of 32 or 64 bits, in either byte order.
    """

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
        self.segments = list(self._read_segments(header[4], *sizes[1:3]))
        self.sections = list(self._read_sections(header[5], *sizes[3:5]))
        self._names = self.bytes_of(self.sections[sizes[5]]) if self.sections else b""

    def _read_table(self, offset: int, size: int, count: int, layout: str) -> Iterator[Any]:
        if size > _MAX_ROW_BYTES:
            raise ValueError(f"a table with rows of {size} bytes")
        table = self._bytes_at(offset, size * count)
        for index in range(count if offset else 0):
            yield struct.unpack_from(self.order + layout, table, index * size)

    def _read_segments(self, offset: int, size: int, count: int) -> Iterator[_Segment]:
        """What of the file is mapped into a process, and at which address."""
        for row in self._read_table(offset, size, count, "IIQQQQ" if self.wide else "IIIII"):
            at, address = row[2:4] if self.wide else row[1:3]
            if row[0] == _PT_LOAD:
                yield _Segment(at, address, row[-1])

    def _read_sections(self, offset: int, size: int, count: int) -> Iterator[_Section]:
        layout = "IIQQQQI" if self.wide else "IIIIIII"
        for name, type_, _, *rest in self._read_table(offset, size, count, layout):
            yield _Section(name, type_, *rest)

    def bytes_of(self, section: _Section) -> bytes:
        return self._bytes_at(section.offset, section.size)

    def _bytes_at(self, offset: int, size: int) -> bytes:
        if size > _MAX_SECTION_BYTES:
            raise ValueError(f"a part of {size:,} bytes")
        self._file.seek(offset)
        return self._file.read(size)

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

    def symbols(self) -> Iterator[Tuple[bytes, int]]:
        """Name and address of each symbol."""
        layout, value, size = ("IBBHQQ", 4, 24) if self.wide else ("IIIBBH", 1, 16)
        for section in self.sections:
            if section.type not in _SHT_TABLES_OF_SYMBOLS:
                continue
            names = self.bytes_of(self.sections[section.link])
            for row in self._read_table(section.offset, size, section.size // size, layout):
                yield names[row[0] : names.index(b"\0", row[0])], row[value]


class Places:
    """Where in a file lies what its notes give addresses of.

    Raises AttachError when that is nowhere in the file.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        with open(path, "rb") as file:
            self._segments = _Elf(file).segments

    def offset(self, address: int) -> int:
        """The place in the file of what a process finds at this address."""
        for segment in self._segments:
            end = segment.address + segment.file_bytes
            if segment.address <= address < end + -end % _PAGE_BYTES:  # whole pages are mapped
                return segment.offset + address - segment.address
        raise Fault(
            "AttachError",
            f"A USDT note of {self._path!r} points at {address:#x}, which is in no page of the"
            ' file. Is it a semaphore without __attribute__((section(".probes")))?',
        )

    def symbol(self, name: str) -> int:
        """The address of a symbol."""
        with open(self._path, "rb") as file:
            for known, address in _Elf(file).symbols():
                if known == name.encode() and address:
                    return address
        raise Fault(
            "AttachError",
            f"An argument of a USDT probe is the global variable {name!r}, and {self._path!r}"
            " has no symbol of that name: it was stripped. Give the file as it was built.",
        )


def read(path: str) -> Tuple[str, List[Note]]:
    """The path that ``path`` stands for, and the USDT probes of that file, by address.

    Raises UnknownEvent when there is no such file, AttachError when it is not a program.
    """
    located = str(elf.read_elf(path, 0, 0)[0]["path"])
    try:
        with open(located, "rb") as file:
            return located, sorted(_usdt(_Elf(file)), key=lambda note: note.address)
    except _DAMAGED:
        raise Fault("AttachError", f"{located!r} is an ELF file that is cut or damaged.") from None


def _usdt(elf: _Elf) -> Iterator[Note]:
    bases = [each.address for each in elf.sections if elf.name_of(each) == b".stapsdt.base"]
    layout = elf.order + ("QQQ" if elf.wide else "III")
    sections = [section for section in elf.sections if section.type == _SHT_NOTE]
    if sum(section.size for section in sections) > _MAX_NOTES_BYTES:  # each may be the same bytes
        raise ValueError("too many notes")
    for section in sections:
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


def describe(path: str) -> List[messages.UsdtProbe]:
    """The USDT probes of a file, one row for each place where one can be hit."""
    return [
        messages.UsdtProbe(
            provider=note.provider,
            probe=note.probe,
            arguments=note.arguments,
            semaphore=note.semaphore,
            address=note.address,
        )
        for note in read(path)[1]
    ]
