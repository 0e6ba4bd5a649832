"""The BTF of a program: clang's table of its C types, as the kernel keeps it.

BCC loads the table together with the maps, and each map that it describes names it by a number.
The table goes to the notebook as it is; ``ebpflab/decode/btf.py`` reads it. The kernel takes a
table whole or not at all, so a program may have none: one that uses ``float`` or ``double``, for
which BCC does not put the table in order.
"""

import ctypes as ct
import os
import struct
from typing import Iterable

from ebpflab.agent.kernel.syscalls import BTF_GET_FD_BY_ID, bpf, object_info

_MAP_INFO_BYTES, _BTF_ID_AT = 88, 64  # struct bpf_map_info, and its btf_id


def of_maps(fds: Iterable[int]) -> bytes:
    """The table that these maps of one program are described by; nothing where there is none."""
    for fd in fds:
        info = ct.create_string_buffer(_MAP_INFO_BYTES)
        object_info(fd, info)
        number = struct.unpack_from("<I", info, _BTF_ID_AT)[0]
        if number:
            table = bpf(BTF_GET_FD_BY_ID, struct.pack("<4I", number, 0, 0, 0))
            try:
                return _read(table)
            finally:
                os.close(table)
    return b""


def program_type(fd: int) -> int:
    """The kind of a loaded program, in numbers of enum bpf_prog_type."""
    info = ct.create_string_buffer(4)  # of struct bpf_prog_info, its first field
    object_info(fd, info)
    return int(struct.unpack("<I", info.raw)[0])


def _read(fd: int) -> bytes:
    """The bytes of a table, whose size the kernel tells when it is first asked."""
    data = ct.create_string_buffer(1)
    while True:
        # struct bpf_btf_info: where to put the table, its size, and what we do not ask for
        info = ct.create_string_buffer(
            struct.pack("<QIIQII", ct.addressof(data), len(data), *[0] * 4)
        )
        object_info(fd, info)
        size = struct.unpack_from("<I", info, 8)[0]
        if size <= len(data):
            return data.raw[:size]
        data = ct.create_string_buffer(size)
