"""Where in a program a probe may stand: on the first byte of an instruction, nowhere else.

A uprobe is a breakpoint that overwrites what is there. Inside of an instruction it changes what
the program does (CVE-2025-38466), and the kernel does not look. So an address, or an offset into
a function, is looked up here, by disassembling the function from its start.
"""

from __future__ import annotations

import glob

from ebpflab.binaries.elf import Binary, Function, TracedFile
from ebpflab.binaries.returns import instruction_at
from ebpflab.errors import AttachError
from ebpflab.protocol import messages
from ebpflab.transport.connection import Connection

_LONGEST_INSTRUCTION_BYTES = 16  # 15 on x86-64


def check(connection: Connection, name: str, sym: str, addr: int | None, sym_off: int) -> None:
    """Refuse a place inside of an instruction of the file ``name``, or outside of all code.

    Addresses are as linked, as `Lab.symbols` lists them. Where no symbol covers an address,
    nobody can tell, and it is let through. Raises AttachError, UnknownEvent.
    """
    if not sym and addr is None:
        raise AttachError(
            f"Where in {name!r}? Give a function with sym=, or an address with addr="
            " (lab.symbols(path) lists both)."
        )
    if addr is not None and (sym or sym_off):
        raise AttachError("addr= is a place of its own: give sym= (and sym_off=), or addr=.")
    if addr is None and not sym_off:
        return  # a function's first byte
    file = TracedFile(connection, name)
    binary = Binary(file, file.path)
    if addr is not None:
        binary.offset(addr)  # raises where nothing is
        function = binary.function_at(addr)
    else:
        function = binary.function_named(sym) or _in_debug_file(connection, binary.path, sym)
    if function is not None:
        _check(binary, function, sym_off if addr is None else addr - function.address)


def _in_debug_file(connection: Connection, path: str, sym: str) -> Function | None:
    """A function that only the file of debugging information names, which BCC looks into, too."""
    asked = messages.SymbolsOf(path=path, pattern=glob.escape(sym))
    rows = connection.request(messages.SYMBOLS, asked).ok["symbols"]
    return next((Function(sym, row["address"], 0) for row in rows), None)


def _check(binary: Binary, function: Function, offset: int) -> None:
    where, size_bytes = f"{function.symbol}+{offset}", function.size_bytes
    if offset < 0 or 0 < size_bytes <= offset:
        raise AttachError(
            f"{where} in {binary.path!r} is outside of the function, which has"
            f" {size_bytes or 'an unknown number of'} bytes."
        )
    # Where its size is not known, as far as it takes.
    code = binary.read(function.address, size_bytes or offset + _LONGEST_INSTRUCTION_BYTES)
    start, text, end = instruction_at(code, offset, binary.machine)
    if start != offset:
        raise AttachError(
            f"{where} in {binary.path!r} is inside of an instruction: `{text}` is the bytes"
            f" {start} to {end - 1} of the function. A probe overwrites a byte, and there it would"
            f" corrupt the program. Instructions begin at {function.symbol}+{start} and"
            f" {function.symbol}+{end}."
        )
