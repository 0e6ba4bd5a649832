"""The bytes of programs on this machine, for the notebook to read.

A notebook cannot see the files of a guest or another host, and what reads machine code and
debugging information is not in the standard library. So the agent hands out parts of a file, and
the notebook's side (``ebpflab/binaries/elf.py``) does the reading. ELF files only: this process is
root, and nobody's letters are to be had through it.
"""

import os
import re
import stat
from typing import Tuple

from ebpflab.agent.faults import Fault
from ebpflab.protocol import messages

MAX_READ_BYTES = 4 << 20
_MAGIC = b"\x7fELF"


def locate(name: str) -> str:
    """The path that a probe's ``name`` stands for: a path, or a library's short name ("c")."""
    if "/" in name:
        return name
    from bcc import BPF

    found = BPF.find_library(name.encode())
    if found is None:
        short = re.sub(r"^lib|[-.]so\b.*$", "", name)
        meant = short if short != name and BPF.find_library(short.encode()) else ""
        raise Fault(
            "UnknownEvent",
            f"There is no library {name!r} on the traced machine. "
            + (f"Write {meant!r}." if meant else "For a program, give its whole path."),
            name=name,
        )
    return str(found.decode())


def read_elf(name: str, offset: int, size_bytes: int) -> Tuple[messages.ElfRead, bytes]:
    """What the file is (path, size, version), and ``size_bytes`` of it from ``offset``.

    Fewer bytes come back at the end of the file, and never more than MAX_READ_BYTES.
    ``version`` differs when the file has been replaced or written to. Raises UnknownEvent when
    there is no such file, AttachError when it is not a program.
    """
    path = locate(name)
    try:
        # Not blocking: a FIFO would otherwise wait for its writer.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise Fault(
            "UnknownEvent", f"There is no file {path!r} on the traced machine.", name=path
        ) from None
    except OSError as error:
        raise Fault("AttachError", f"Cannot read {path!r}: {error.strerror}.") from None
    try:
        told = os.fstat(fd)
        if not stat.S_ISREG(told.st_mode):
            raise Fault("AttachError", f"{path!r} is not a file with a program in it.")
        if os.pread(fd, len(_MAGIC), 0) != _MAGIC:
            raise Fault("AttachError", _not_elf(path, os.pread(fd, 128, 0)))
        data = os.pread(fd, max(0, min(size_bytes, MAX_READ_BYTES)), offset)
    finally:
        os.close(fd)
    version = f"{told.st_dev}:{told.st_ino}:{told.st_size}:{told.st_mtime_ns}"
    return {"path": path, "size_bytes": told.st_size, "version": version}, data


def _not_elf(path: str, start: bytes) -> str:
    text = f"{path!r} is not an ELF file, so it holds no machine code to probe."
    if start.startswith(b"#!"):
        interpreter = start[2:].split(b"\n")[0].decode(errors="replace").strip()
        text += f" It is a script: what runs is its interpreter, {interpreter!r}."
    elif start[:2] == b"MZ" or start[:4] in (b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe"):
        text += " It was built for another operating system: build it with GOOS=linux."
    else:
        text += " Give the path of the program that the compiler or `go build` has made."
    return text
