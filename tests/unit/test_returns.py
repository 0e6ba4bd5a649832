"""Return instructions in saved machine code; the truth is what ``go tool objdump`` says."""

from __future__ import annotations

import pytest

from ebpflab.binaries.returns import instruction_at, return_offsets
from ebpflab.errors import AttachError

# The same Go function, with three ways out, built by Go 1.19 for both processors.
AMD64 = """
493b66100f86ad0000004883ec1048896c2408488d6c2408488944241848b9abaaaaaaaaaaaaaa480fafc848baaa
aaaaaaaaaaaa2a4801d148ba54555555555555554839ca735448b9b76ddbb66ddbb66d480fafc848ba4992244992
2449124801d148ba92244992244992244839ca720e488d0480488b6c24084883c410c3b810270000e89777fdff48
8b44241848ffc0488b6c24084883c410c3b8e8030000e87b77fdff488b44241848d1e0488b6c24084883c410c348
894424080f1f4000e87b88fdff488b442408e931ffffff
"""
ARM64 = """
900b40f9ff6330ebe9060054fe0f1ef8fd831ff8fd2300d1e01700f9615595d24155b5f24155d5f24155f5f2217c
009b5b5595d25b55b5f25b55d5f25b55e5f221001b8b9baa8ad2bbaaaaf2bbaacaf2bbaaeaf23f001beb89030054
e1b68dd261dbb6f2a16ddbf2c1b6edf2217c009b3b4992d29b24a9f25b92c4f23b49e2f221001b8b5b9284d23b49
b2f29b24c9f25b92e4f23f001beba80000540008008bfdfb7fa9ff830091c0035fd600e284d2ac61ff97e11740f9
20040091fdfb7fa9ff830091c0035fd6007d80d2a561ff97e11740f920f87fd3fdfb7fa9ff830091c0035fd6e007
00f9e3031eaa5965ff97e00740f9c3ffff170000000000000000
"""


@pytest.mark.parametrize(
    ("code", "machine", "expected"),
    [
        pytest.param(AMD64, "x86_64", [0x7E, 0x9A, 0xB6], id="amd64"),
        pytest.param(ARM64, "aarch64", [0xA8, 0xC4, 0xE0], id="arm64"),
        # add rax, 0xc3; mov rax, rbx whose last byte is C3... and only then a return
        pytest.param("4805c3000000 4889d8 31c3 c3", "x86_64", [11], id="C3 in instructions"),
        pytest.param("f3c3", "x86_64", [0], id="rep ret"),
        pytest.param("c21000 c3", "x86_64", [0, 3], id="ret 16"),
        pytest.param("c5f877 c3", "x86_64", [3], id="after vzeroupper"),
        pytest.param("ebfe", "x86_64", [], id="endless loop"),
        pytest.param("e900000000", "x86_64", [], id="jump into another function"),
        # ldr x0, #8; ret; and a constant that looks like a return
        pytest.param("40000058 c0035fd6 c0035fd6 c0035fd6", "aarch64", [4], id="arm64 constant"),
        pytest.param("c0035fd6 ffffffff c0035fd6", "aarch64", [0, 8], id="arm64 no instruction"),
        pytest.param("60005fd6", "aarch64", [0], id="arm64 ret x3"),
    ],
)
def test_return_instructions(code: str, machine: str, expected: list[int]) -> None:
    assert return_offsets(bytes.fromhex(code), machine) == expected


def test_bytes_that_are_no_instruction_are_refused() -> None:
    with pytest.raises(AttachError, match="Byte 1 of the function's 4 begins no instruction"):
        return_offsets(bytes.fromhex("90 06 c3 c3"), "x86_64")


def test_an_instruction_that_is_cut_off_is_refused() -> None:
    with pytest.raises(AttachError, match="Byte 1 of the function's 3"):
        return_offsets(bytes.fromhex("c3 b8c3"), "x86_64")


def test_another_processor_is_refused() -> None:
    with pytest.raises(AttachError, match="only x86_64 and aarch64"):
        return_offsets(b"\0\0\0\0", "EM_RISCV")


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_every_byte_belongs_to_one_instruction(machine: str) -> None:
    code = bytes.fromhex({"x86_64": AMD64, "aarch64": ARM64}[machine])
    expected, starts = 0, 0
    for offset in range(len(code)):
        start, text, end = instruction_at(code, offset, machine)
        assert start <= offset < end and text
        starts += start == offset
        if offset == expected:
            assert start == offset, "each instruction begins where the one before it ends"
            expected = end
    assert expected == len(code) and starts >= len(return_offsets(code, machine))


def test_what_follows_no_instruction_is_not_guessed_at() -> None:
    with pytest.raises(AttachError, match="Byte 1 of the function begins no instruction"):
        instruction_at(bytes.fromhex("90 06 90"), 2, "x86_64")
