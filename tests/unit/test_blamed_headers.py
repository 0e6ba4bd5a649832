"""Which kernel a tree of headers is for, and when clang stumbles over a header of the kernel."""

from __future__ import annotations

from pathlib import Path

import pytest

from ebpflab.agent.kernel import headers


def test_the_release_is_what_uname_says(tmp_path: Path) -> None:
    """Debian 12's tree: its kernel.release names the upstream version alone."""
    assert headers.release_of(tmp_path) is None
    for name, text in (
        ("config/kernel.release", "6.1.192\n"),
        ("generated/utsrelease.h", '#define UTS_RELEASE "6.1.0-56-cloud-amd64"\n'),
    ):
        path = tmp_path / "include" / name
        path.parent.mkdir(parents=True)
        path.write_text(text)
        assert headers.release_of(tmp_path) == text.split()[-1].strip('"')


READERS = "/virtual/main.c:3:1: error: unknown type name 'intt'\n"
MAP = "could not open bpf map: events, error: Invalid argument\n"
KERNELS = "In file included from /virtual/main.c:2:\ninclude/linux/fs.h:9:2: error: no 'x' in 'y'\n"


@pytest.mark.parametrize(
    ("log", "blamed"),
    [
        (KERNELS, True),
        (READERS, False),
        (KERNELS + READERS, False),
        ("LLVM ERROR: no\n", False),
        ("error: <unknown>:0:0: in function f: no\n", False),
        (MAP, False),
    ],
)
def test_a_header_is_blamed_where_the_program_is_not(log: str, blamed: bool) -> None:
    assert headers.are_blamed(log) is blamed
