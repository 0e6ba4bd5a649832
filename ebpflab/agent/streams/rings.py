"""A ring buffer for each CPU, read as one: what ``EBPFLAB_RINGS`` declares (`instrument.py`).

BCC makes one ring, and an array of maps that takes rings like it. The others are made here and put
into the array; from then on the program finds the ring of the CPU that it runs on. BCC has no
macro for this: its arrays of maps are filled from outside, by whoever has made the maps.
Source: Linux 5.8, tools/testing/selftests/bpf/progs/test_ringbuf_multi.c.
"""

import ctypes as ct
import os
import struct
from typing import List

from bcc import lib

from ebpflab.agent.faults import Fault
from ebpflab.agent.kernel import maps, syscalls
from ebpflab.protocol.map_types import RINGBUF


def make(first: maps.Map, array: maps.Map) -> List[int]:
    """Put a ring for each CPU into ``array``: ``first``, and new ones, whose fds are returned."""
    made: List[int] = []
    try:
        for cpu in range(array.max_entries):
            if cpu:
                made.append(_create(first.max_entries))
            fd = ct.c_uint32(made[-1] if cpu else first.fd)
            key = ct.c_uint32(cpu)
            if lib.bpf_update_elem(array.fd, ct.byref(key), ct.byref(fd), 0) != 0:
                raise OSError(ct.get_errno(), os.strerror(ct.get_errno()))
    except OSError as error:
        for fd_made in made:
            os.close(fd_made)
        raise Fault(
            "ProgramError",
            f"Cannot make a ring of {first.max_entries:,} bytes for each CPU of {first.name!r}"
            f" (EBPFLAB_RINGS): {error.strerror}. Use fewer pages, or one ring for all CPUs"
            " (BPF_RINGBUF_OUTPUT).",
        ) from None
    return made


def _create(size_bytes: int) -> int:
    # union bpf_attr: map_type, key_size, value_size, max_entries, map_flags
    return syscalls.bpf(syscalls.MAP_CREATE, struct.pack("<5I", RINGBUF, 0, 0, size_bytes, 0))
