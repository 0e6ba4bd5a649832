"""Reading, writing and clearing BPF maps through their file descriptors.

Whole maps are read with the kernel's batch calls where the map type has them (hash and array
since Linux 5.6, commit cb4d03ab499d; per-CPU array since 5.13) and key by key otherwise. BCC's
own ``items_lookup_batch`` is not used: it passes one object as both token and count, so that
its second batch starts at a wrong place.
"""

import ctypes as ct
import errno
import os
import re
from typing import Any, List, NamedTuple, Optional, Tuple

from bcc import lib

from ebpflab.agent.faults import Fault
from ebpflab.agent.kernel.own_maps import HIDDEN
from ebpflab.protocol.map_types import (
    ARRAY,
    ARRAY_OF_MAPS,
    CGROUP_ARRAY,
    HASH,
    HASH_OF_MAPS,
    LPM_TRIE,
    LRU_HASH,
    LRU_PERCPU_HASH,
    PER_CPU,
    PERCPU_ARRAY,
    PERCPU_HASH,
    PERF_EVENT_ARRAY,
    PROG_ARRAY,
    QUEUE,
    RINGBUF,
    STACK,
    STACK_TRACE,
)

HASHES = (HASH, PERCPU_HASH, LRU_HASH, LRU_PERCPU_HASH)
ARRAYS = (ARRAY, PERCPU_ARRAY)
QUEUES = (QUEUE, STACK)
REFERENCES = (PROG_ARRAY, ARRAY_OF_MAPS, HASH_OF_MAPS)  # their values are numbers of programs, maps
READABLE = (*HASHES, *ARRAYS, STACK_TRACE, LPM_TRIE, *REFERENCES)
WRITABLE = (*HASHES, *ARRAYS, LPM_TRIE)

_BATCH = 4096
_NOT_MADE = re.compile(r"^could not open bpf map: (\w+), error: (.*)$", re.MULTILINE)  # libbcc's

# Not declared with argument types by every BCC version we support.
lib.bpf_table_name.restype = ct.c_char_p
lib.bpf_table_name.argtypes = [ct.c_void_p, ct.c_ulonglong]
lib.bpf_num_tables.restype = ct.c_ulonglong
lib.bpf_num_tables.argtypes = [ct.c_void_p]
lib.bpf_table_key_size.restype = ct.c_size_t
lib.bpf_table_key_size.argtypes = [ct.c_void_p, ct.c_char_p]
lib.bpf_table_leaf_size.restype = ct.c_size_t
lib.bpf_table_leaf_size.argtypes = [ct.c_void_p, ct.c_char_p]


def possible_cpus() -> int:
    """How many CPUs a per-CPU value has room for (``/sys/devices/system/cpu/possible``)."""
    with open("/sys/devices/system/cpu/possible") as file:
        last = file.read().strip().split(",")[-1]
    return int(last.split("-")[-1]) + 1


class Map(NamedTuple):
    """A map as the kernel sees it; ``value_size`` is one CPU's, ``name`` the C variable."""

    name: str
    fd: int
    type: int
    key_size: int
    value_size: int
    max_entries: int

    @property
    def cpus(self) -> int:
        return possible_cpus() if self.type in PER_CPU else 1

    @property
    def stride(self) -> int:
        """Bytes that a lookup fills. The kernel pads a CPU's value to 8 bytes."""
        if self.type in PER_CPU:
            return (self.value_size + 7) // 8 * 8 * self.cpus
        return self.value_size

    @property
    def size_bytes(self) -> int:
        """What it holds when it is full, which the kernel mostly sets aside at once."""
        entry = 1 if self.type == RINGBUF else self.key_size + self.stride
        return self.max_entries * entry


def explain_not_made(log: str) -> Optional[Fault]:
    """The fault where the kernel has not made a map that clang had nothing against."""
    found = _NOT_MADE.search(log)
    if found is None:
        return None
    name, why = found.groups()
    for suffix in HIDDEN:
        name = name[: -len(suffix)] if name.endswith(suffix) else name
    smaller = "Ask for fewer entries or pages, or for smaller keys and values."
    cures = {
        errno.EINVAL: "The pages of a ring buffer are a power of two, as in BPF_RINGBUF_OUTPUT"
        f"({name}, 8), at most what memory allows. Any other map has at least one entry.",
        errno.E2BIG: f"It is larger than the kernel allows. {smaller}",
        errno.ENOMEM: f"The memory that is free does not suffice. {smaller}",
    }
    cure = next((cure for code, cure in cures.items() if os.strerror(code) == why), smaller)
    return Fault(
        "ProgramError", f"The kernel did not make the map {name!r}: {why}. {cure}", log=log
    )


def read(table: Map) -> Tuple[bytes, bytes]:
    """All keys and all values, each back to back in the same order."""
    if table.type in QUEUES:
        raise Fault(
            "TableError",
            f"The queue or stack {table.name!r} cannot be looked through: the kernel shows only the"
            f" value that is next. prog[{table.name!r}].pop() takes them out, and returns them.",
        )
    if table.type not in READABLE:
        raise Fault(
            "TableError",
            f"The map {table.name!r} (type {table.type} of enum bpf_map_type) has no entries that"
            " can be read from outside: it connects programs with perf events, cgroups or sockets.",
        )
    batched = _read_batched(table) if table.type in (*HASHES, *ARRAYS) else None
    return batched if batched is not None else _read_each(table)


def pop(table: Map, most: int) -> bytes:
    """Values taken out of a queue or stack, back to back, in the order in which they came out."""
    if table.type not in QUEUES:
        raise Fault("TableError", f"{table.name!r} is not a queue or stack: nothing can be popped.")
    value, found = ct.create_string_buffer(table.value_size), bytearray()
    for _ in range(most):
        if lib.bpf_lookup_and_delete(table.fd, None, value) != 0:
            break
        found += value.raw
    return bytes(found)


def update(table: Map, key: bytes, value: bytes) -> None:
    """Write one entry; of a per-CPU map, the same value for every CPU."""
    _check_writable(table)
    padded = value.ljust(table.stride // table.cpus, b"\0") * table.cpus
    if lib.bpf_update_elem(table.fd, key, padded, 0) != 0:
        raise _refused(f"Cannot write an entry of {table.name!r}", table)


def delete(table: Map, key: bytes) -> None:
    """Delete one entry."""
    _check_writable(table)
    if lib.bpf_delete_elem(table.fd, key) != 0:
        raise _refused(f"Cannot delete an entry of {table.name!r}", table)


def put_program(table: Map, key: bytes, program: int) -> None:
    """Let a place of a jump table lead to a program, given by its file descriptor."""
    if lib.bpf_update_elem(table.fd, key, ct.byref(ct.c_uint32(program)), 0) != 0:
        raise _refused(f"Cannot write an entry of {table.name!r}", table)


def _check_writable(table: Map) -> None:
    if table.type not in WRITABLE:
        raise Fault(
            "TableError",
            f"Entries of {table.name!r} (type {table.type} of enum bpf_map_type) cannot be written"
            " from outside: only those of a hash, an array, an LPM trie, and functions in a jump"
            " table (BPF_PROG_ARRAY).",
        )


def _refused(what: str, table: Map) -> Fault:
    code = ct.get_errno()
    why = {
        errno.E2BIG: f"it has room for {table.max_entries} entries",
        errno.ENOENT: "there is no such entry",
        errno.EINVAL: "an entry of an array cannot be deleted, nor this key be held",
    }
    return Fault("TableError", f"{what}: {why.get(code, os.strerror(code))}.")


def _read_batched(table: Map) -> Any:
    """The map by BPF_MAP_LOOKUP_BATCH, or None where this kernel has no such call for it."""
    all_keys, all_values = bytearray(), bytearray()
    size = min(max(table.max_entries, 1), _BATCH)
    while True:
        keys = ct.create_string_buffer(table.key_size * size)
        values = ct.create_string_buffer(table.stride * size)
        # The token between batches is a bucket number for a hash and a key for an array.
        token_in, token_out = (ct.create_string_buffer(max(table.key_size, 8)) for _ in "io")
        del all_keys[:], all_values[:]
        started, full = False, False
        while True:
            count = ct.c_uint32(size)
            ct.set_errno(0)
            status = lib.bpf_lookup_batch(
                table.fd,
                ct.cast(token_in, ct.POINTER(ct.c_uint32)) if started else None,
                ct.cast(token_out, ct.POINTER(ct.c_uint32)),
                keys,
                values,
                ct.byref(count),
            )
            code = ct.get_errno()
            if status != 0 and code == errno.ENOSPC:  # one hash bucket holds more than a batch
                size, full = size * 4, True
                break
            if status != 0 and code != errno.ENOENT:
                return None
            all_keys += keys.raw[: count.value * table.key_size]
            all_values += values.raw[: count.value * table.stride]
            if status != 0:
                break
            token_in, token_out, started = token_out, token_in, True
        if not full:
            return bytes(all_keys), bytes(all_values)


def _keys(table: Map) -> List[bytes]:
    key, following = (ct.create_string_buffer(table.key_size) for _ in "kn")
    found: List[bytes] = []
    status = lib.bpf_get_first_key(table.fd, ct.byref(following), table.key_size)
    # A hash that is written meanwhile can send the walk in circles; max_entries bounds it.
    while status == 0 and len(found) < table.max_entries:
        found.append(following.raw)
        key.raw = following.raw
        status = lib.bpf_get_next_key(table.fd, ct.byref(key), ct.byref(following))
    return found


def _read_each(table: Map) -> Tuple[bytes, bytes]:
    keys, values = bytearray(), bytearray()
    value = ct.create_string_buffer(table.stride)
    for raw in _keys(table):
        if lib.bpf_lookup_elem(table.fd, ct.create_string_buffer(raw, len(raw)), value) == 0:
            keys += raw
            values += value.raw
    return bytes(keys), bytes(values)


def can_clear(table: Map) -> bool:
    """Whether a map is of a kind, and of a size, that is emptied sooner than made anew."""
    kinds = (*READABLE, *QUEUES, PERF_EVENT_ARRAY, CGROUP_ARRAY, RINGBUF)
    return table.type in kinds and (table.type == RINGBUF or table.max_entries <= 1 << 17)


def clear(table: Map) -> None:
    """Empty a map, or zero an array. Ring and perf buffers are emptied by their readers."""
    if table.type in ARRAYS:
        zero = ct.create_string_buffer(table.stride)
        for index in range(table.max_entries):
            lib.bpf_update_elem(table.fd, ct.byref(ct.c_uint32(index)), zero, 0)
    elif table.type in QUEUES:
        pop(table, table.max_entries)
    elif table.type in READABLE:
        for key in _keys(table):
            lib.bpf_delete_elem(table.fd, ct.create_string_buffer(key, len(key)))


def total(table: Map) -> int:
    """The sum over all CPUs of a per-CPU array of one u64."""
    value = ct.create_string_buffer(table.stride)
    if lib.bpf_lookup_elem(table.fd, ct.byref(ct.c_uint32(0)), value) != 0:
        raise Fault("AgentFault", f"cannot read the counter {table.name}")
    return sum((ct.c_uint64 * table.cpus).from_buffer(value))
