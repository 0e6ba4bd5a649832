"""System calls that Python has no function for: bpf(2), perf_event_open(2)."""

import ctypes as ct
import errno
import os
import struct

from ebpflab.agent.kernel.features import SYSCALLS

MAP_CREATE, OBJ_GET_INFO_BY_FD, BTF_GET_FD_BY_ID, ENABLE_STATS = 0, 15, 19, 32
"""enum bpf_cmd (include/uapi/linux/bpf.h)."""

_libc = ct.CDLL(None, use_errno=True)


def syscall(name: str, *arguments: object) -> int:
    """The result of the system call of that name in `SYSCALLS`. Raises OSError."""
    number = SYSCALLS.get(os.uname().machine, {}).get(name)
    if number is None:
        raise OSError(errno.ENOSYS, f"the number of {name}(2) on {os.uname().machine} is not known")
    result: int = _libc.syscall(number, *arguments)
    if result < 0:
        raise OSError(ct.get_errno(), os.strerror(ct.get_errno()))
    return result


def bpf(command: int, attributes: bytes) -> int:
    """bpf(2), with the fields of union bpf_attr that the command has. Raises OSError."""
    buffer = ct.create_string_buffer(attributes, len(attributes))
    return syscall("bpf", command, buffer, len(attributes))


def object_info(fd: int, info: "ct.Array[ct.c_char]") -> int:
    """Have the kernel fill in what it knows of a map, a program or a BTF; how many bytes it knows.

    ``info`` may hold what is asked for. Raises OSError.
    """
    fields = struct.pack("<IIQ", fd, ct.sizeof(info), ct.addressof(info))
    attributes = ct.create_string_buffer(fields, len(fields))
    syscall("bpf", OBJ_GET_INFO_BY_FD, attributes, len(fields))
    return int(struct.unpack_from("<I", attributes, 4)[0])
