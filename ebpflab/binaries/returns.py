"""Where instructions begin: a function's returns, and what a byte of it belongs to.

Both are found by disassembling the function from its start. Never by looking for the
byte 0xC3: that byte is also part of longer instructions, and a probe is a breakpoint that
overwrites what stands there. One inside of an instruction changes what the program does
(CVE-2025-38466 is about who may do that). A disassembler that begins at the function's first byte
knows where each instruction begins.
"""

from __future__ import annotations

import re
from typing import Any

from ebpflab.errors import AttachError

_INSTRUCTION_BYTES = 4  # of arm64, each; on x86-64 they are 1 to 15 bytes long
_LITERAL = re.compile(r"#(0x[0-9a-f]+|\d+)$")


def return_offsets(code: bytes, machine: str) -> list[int]:
    """The offset of each return instruction from the start of ``code``, one whole function.

    ``machine`` is as ``uname -m`` gives it. Raises AttachError when there are bytes that are no
    instruction, because what follows them could be misread.

    >>> return_offsets(bytes.fromhex("b8c3c3c3c3 c3"), "x86_64")  # mov eax, 0xc3c3c3c3; ret
    [5]
    """
    import capstone

    reader = _reader(machine)
    found: list[int] = []
    constants: set[int] = set()
    end = 0
    for instruction in reader.disasm(code, 0):
        end = instruction.address + instruction.size
        if instruction.id == 0:
            continue  # a constant, passed over
        if instruction.group(capstone.CS_GRP_RET):
            found.append(instruction.address)
        elif machine == "aarch64" and instruction.mnemonic.startswith("ldr"):
            literal = _LITERAL.search(instruction.op_str)  # "ldr x0, #0x40": what is loaded
            if literal and "[" not in instruction.op_str:
                start = int(literal.group(1), 0)
                constants.update((start, start + _INSTRUCTION_BYTES))
    if end != len(code):
        raise AttachError(
            f"Byte {end} of the function's {len(code)} begins no instruction that the disassembler"
            " (capstone) knows. What follows could be misread, so nothing is attached."
        )
    return [offset for offset in found if offset not in constants]


def instruction_at(code: bytes, offset: int, machine: str) -> tuple[int, str, int]:
    """The instruction that byte ``offset`` of ``code``, a function, belongs to.

    Its first byte, its text, and the first byte after it. Raises AttachError where it cannot be
    told, because there are bytes before it that are no instruction.

    >>> instruction_at(bytes.fromhex("b8c3c3c3c3 c3"), 2, "x86_64")
    (0, 'mov eax, 0xc3c3c3c3', 5)
    """
    end = 0
    for instruction in _reader(machine).disasm(code, 0):
        end = instruction.address + instruction.size
        if end > offset:
            return instruction.address, f"{instruction.mnemonic} {instruction.op_str}".strip(), end
    raise AttachError(
        f"Byte {end} of the function begins no instruction that the disassembler (capstone) knows,"
        f" so nobody can tell what byte {offset} belongs to, and nothing is attached there."
    )


def _reader(machine: str) -> Any:
    """A disassembler for ``machine``. Raises AttachError for one that is not read."""
    import capstone  # costs 0.1 s that few notebooks need to pay

    if machine == "x86_64":
        reader = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    elif machine == "aarch64":
        reader = capstone.Cs(capstone.CS_ARCH_ARM64, capstone.CS_MODE_ARM)
        reader.skipdata = True  # constants stand between functions' instructions
    else:
        raise AttachError(
            f"Cannot tell where instructions begin in code for {machine}: only x86_64 and aarch64"
            " are read."
        )
    reader.detail = True  # for the groups of instructions
    return reader
