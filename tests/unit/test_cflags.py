"""Flags of clang that a reader may give, and those that could read or write files as root."""

from __future__ import annotations

import pytest

from ebpflab.agent.faults import Fault
from ebpflab.agent.programs.cflags import check


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["-DPID=12", "-DGO_WORD(ctx)=(ctx)->ax + 1", "-UNAME", "-D", "NAME=a\nb"],
        ["-I/usr/include/mine", "-I", "headers"],
        ["-w", "-Wno-unused-value", "-Werror=return-type", "-std=gnu11", "-O2", "-g"],
        ["-fno-unroll-loops", "-fms-extensions"],
    ],
)
def test_macros_folders_and_warnings_are_taken(flags: list[str]) -> None:
    check(flags)


@pytest.mark.parametrize(
    "flag",
    [
        "-include",
        "-include/etc/shadow",
        "-imacros",
        "-include-pch",
        "-MD",
        "-MF",
        "-MF/etc/passwd",
        "-o",
        "-o/etc/passwd",
        "-Wp,-MD,/etc/passwd",
        "-Wl,x",
        "-Wa,x",
        "-Xclang",
        "-Xpreprocessor",
        "-mllvm",
        "-fplugin=/tmp/x.so",
        "-fmodules-cache-path=/etc",
        "-save-temps",
        "-serialize-diagnostics",
        "-dD",
        "-x",
        "-isystem",
        "-I",
        "-D",
        "@/etc/shadow",
        "/etc/shadow",
        "-",
        "",
    ],
)
def test_whatever_else_is_refused_by_its_name(flag: str) -> None:
    with pytest.raises(Fault, match="is not taken: clang runs as root") as caught:
        check(["-DA", flag])
    assert caught.value.detail["flag"] == flag
