"""Programs on the traced machine, read from here: sections, symbols, bytes, debugging information.

The agent hands out parts of an ELF file (`agent/processes/elf.py`), `TracedFile` makes a file
object of them, and pyelftools reads that as it would read a file of this machine. Nothing but
what is asked for crosses the wire.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ebpflab.errors import AttachError
from ebpflab.protocol import messages
from ebpflab.transport.connection import Connection

if TYPE_CHECKING:
    from typing_extensions import Buffer  # typing's own only from Python 3.12 on

_BUFFER_BYTES = 256 << 10
_TABLES = (".symtab", ".dynsym")
_CODE = ("STT_FUNC", "STT_LOOS")  # the second is STT_GNU_IFUNC: picks a function when it is loaded
_MACHINES = {"EM_X86_64": "x86_64", "EM_AARCH64": "aarch64"}


@dataclass(frozen=True)
class Function:
    """A function symbol: where its code is in memory as linked, and how long it is."""

    symbol: str
    address: int
    size_bytes: int


class TracedFile(io.RawIOBase):
    """An ELF file of the traced machine, read-only.

    Raises UnknownEvent when there is no such file, AttachError when it is not an ELF file or is
    replaced while it is read.
    """

    def __init__(self, connection: Connection, name: str) -> None:
        self._connection, self._position = connection, 0
        asked = messages.ReadElf(name=name, offset=0, size_bytes=0)
        told = connection.request(messages.READ_ELF, asked).ok
        self.path: str = told["path"]
        self.size_bytes: int = told["size_bytes"]
        self.version: str = told["version"]

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size_bytes}
        self._position = max(0, start[whence] + offset)
        return self._position

    def readinto(self, buffer: Buffer) -> int:
        view = memoryview(buffer).cast("B")
        answer = self._connection.request(
            messages.READ_ELF,
            messages.ReadElf(name=self.path, offset=self._position, size_bytes=len(view)),
        )
        if answer.ok["version"] != self.version:
            raise AttachError(
                f"{self.path!r} changed while it was read: it is being built anew. Do this again"
                " when the build has ended."
            )
        view[: len(answer.blob)] = answer.blob
        self._position += len(answer.blob)
        return len(answer.blob)


class Binary:
    """An ELF file, as far as probes are concerned.

    Raises AttachError when the file is damaged: cut short, or not what its header says.
    """

    def __init__(self, file: io.RawIOBase, path: str) -> None:
        # Here, not at the top: it costs 0.1 s that a notebook without Go need not pay.
        from elftools.common.exceptions import ELFError
        from elftools.elf.elffile import ELFFile

        self.path = path
        try:
            self._elf = ELFFile(io.BufferedReader(file, _BUFFER_BYTES))
            self._sections = {section.name: section for section in self._elf.iter_sections()}
        except (ELFError, ValueError, UnicodeDecodeError) as error:
            raise AttachError(
                f"{path!r} begins like an ELF file and cannot be read as one ({error}). It is"
                " damaged or was cut short: build or copy it again."
            ) from None
        self.machine: str = _MACHINES.get(self._elf["e_machine"], str(self._elf["e_machine"]))
        """As ``uname -m`` names it where we know it: x86_64, aarch64."""
        self.address_bytes: int = self._elf.elfclass // 8

    def __contains__(self, section: str) -> bool:
        return section in self._sections

    def section(self, name: str) -> bytes:
        """A section's bytes, decompressed; empty when there is none."""
        found = self._sections.get(name)
        return bytes(found.data()) if found is not None else b""

    def find_section(self, ending: str) -> str | None:
        """The section whose name ends so: ``.gopclntab`` is ``.data.rel.ro.gopclntab`` in a PIE."""
        return next((name for name in self._sections if name.endswith(ending)), None)

    @cached_property
    def symbols(self) -> dict[str, Function]:
        """The symbols of ``.symtab``, by name; none in a stripped file."""
        table: Any = self._sections.get(".symtab")
        if table is None:
            return {}
        return {
            each.name: Function(each.name, each["st_value"], each["st_size"])
            for each in table.iter_symbols()
            if each["st_info"]["type"] == "STT_FUNC"
        }

    def function_named(self, symbol: str) -> Function | None:
        """The function of that name, a library's as well; of several, the one that BCC takes."""
        return next((each for each in self._functions() if each.symbol == symbol), None)

    def function_at(self, address: int) -> Function | None:
        """The function whose code is at ``address``, where a symbol tells; a library's as well."""
        found = (f for f in self._functions() if f.address <= address < f.address + f.size_bytes)
        return next(found, None)

    def _functions(self) -> Iterator[Function]:
        """Those of every table, in the file's order; of a stripped library, what it exports."""
        tables: list[Any] = [each for each in self._sections.values() if each.name in _TABLES]
        for table in tables:
            for each in table.iter_symbols():
                # Without an address it is another file's, and only used here.
                if each["st_info"]["type"] in _CODE and each["st_value"]:
                    yield Function(each.name, each["st_value"], each["st_size"])

    def offset(self, address: int) -> int:
        """Where in the file the byte is that is loaded at ``address``.

        Raises AttachError when nothing of the file is loaded there.
        """
        for segment in self._elf.iter_segments("PT_LOAD"):
            skipped = address - segment["p_vaddr"]
            if 0 <= skipped < segment["p_filesz"]:
                return int(segment["p_offset"] + skipped)
        raise AttachError(
            f"Nothing of {self.path!r} is loaded at address {address:#x}. Addresses are those of"
            " the file, as lab.symbols(path) lists them, not those of a running process."
        )

    def read(self, address: int, size_bytes: int) -> bytes:
        """The bytes that are loaded at ``address``."""
        self._elf.stream.seek(self.offset(address))
        return bytes(self._elf.stream.read(size_bytes))

    def dies(self, unit: str) -> Iterator[Any]:
        """Every entry of debugging information (DIE) of the compilation units of that name."""
        if not self._elf.has_dwarf_info(strict=True):
            return
        for found in self._elf.get_dwarf_info().iter_CUs():
            if text_of(found.get_top_DIE(), "DW_AT_name") == unit:
                yield from found.iter_DIEs()


def text_of(die: Any, attribute: str) -> str:
    """The text of a DIE's attribute; empty when it has none."""
    found = die.attributes.get(attribute)
    return found.value.decode(errors="replace") if found is not None else ""
