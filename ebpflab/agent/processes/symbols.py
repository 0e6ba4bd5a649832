"""From the addresses of stacks to the names of functions.

Kernel addresses go to BCC's cache of ``/proc/kallsyms``. For those of a process BCC would have to
be asked while it lives; here its mappings (``mappings.py``) tell which file an address lies in, and
libbcc reads that file's symbols, with those of a debug file where one is installed. Code that was
made while the program ran is looked up in ``/tmp/perf-PID.map``, where Python (``-X perf``), Node
(``--perf-basic-prof``) and others write what they make.
"""

import bisect
import ctypes as ct
import fnmatch
import os
import re
import stat
import struct
from typing import Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

from bcc import BPF, lib

from ebpflab.agent.faults import Fault
from ebpflab.agent.kernel import maps
from ebpflab.agent.processes import elf
from ebpflab.agent.processes.mappings import Mapping, Mappings, living
from ebpflab.protocol import messages

_FUNCTIONS = 1 << 2 | 1 << 10  # STT_FUNC, STT_GNU_IFUNC
_PT_LOAD = 1
_SEGMENT = struct.Struct("<IIQQQQQQ")
_MAX_PERF_MAP_BYTES = 64 << 20
_HEX = r"(?:0x)?([0-9a-fA-F]{1,16})"
_PERF_MAP_LINE = re.compile(rf"^{_HEX} {_HEX} (.+)$", re.MULTILINE)
_Found = ct.CFUNCTYPE(ct.c_int, ct.c_char_p, ct.c_uint64, ct.c_uint64, ct.c_void_p)
lib.bcc_elf_foreach_sym.argtypes = [ct.c_char_p, _Found, ct.c_void_p, ct.c_void_p]

UNKNOWN = "[unknown]"


class Symbol(NamedTuple):
    """A frame's name. ``kind`` is kernel, user, go, python or jit."""

    name: str
    module: str
    kind: str


class _Options(ct.Structure):
    """``struct bcc_symbol_option`` of libbcc."""

    _fields_ = [
        ("use_debug_file", ct.c_int),
        ("check_debug_file_crc", ct.c_int),
        ("lazy_symbolize", ct.c_int),
        ("use_symbol_type", ct.c_uint32),
    ]


class _Functions:
    """Functions by address: start, size and name of each."""

    def __init__(self, found: Iterable[Tuple[int, int, str]]) -> None:
        self._all = sorted(found)
        self._starts = [start for start, _, _ in self._all]

    def at(self, address: int) -> Optional[str]:
        index = bisect.bisect_right(self._starts, address) - 1
        if index < 0:
            return None
        start, size, name = self._all[index]
        return name if address < start + max(size, 1) else None


class _Module(NamedTuple):
    """A file with code in it."""

    functions: _Functions
    segments: List[Tuple[int, int, int]]
    """(place in the file, size, address) of what the file wants to have in memory."""
    kind: str

    def name_at(self, offset: int) -> Optional[str]:
        for place, size, address in self.segments:
            if place <= offset < place + size:
                return self.functions.at(offset - place + address)
        return None


def _read_module(path: str) -> _Module:
    found: List[Tuple[int, int, str]] = []

    def take(name: bytes, address: int, size: int, _: object) -> int:
        found.append((address, size, name.decode(errors="replace")))
        return 0

    options = _Options(1, 1, 0, _FUNCTIONS)
    lib.bcc_elf_foreach_sym(path.encode(), _Found(take), ct.byref(options), None)
    go = any(name == "runtime.goexit.abi0" or name == "runtime.goexit" for _, _, name in found)
    return _Module(_Functions(found), _segments(path), "go" if go else "user")


def _segments(path: str) -> List[Tuple[int, int, int]]:
    with open(path, "rb") as file:
        header = file.read(64)
        if header[:6] != b"\x7fELF\x02\x01":  # 64 bits, little endian: what BPF runs on here
            return []
        place, size, count = (
            struct.unpack_from("<Q", header, 32)[0],
            *struct.unpack_from("<HH", header, 54),
        )
        if size != _SEGMENT.size:
            return []
        file.seek(place)
        table = file.read(size * count)
    rows = [_SEGMENT.unpack_from(table, size * n) for n in range(count)]
    return [(row[2], row[5], row[3]) for row in rows if row[0] == _PT_LOAD]


def _vdso() -> Optional[str]:
    """A file with this process's vdso, which is every process's."""
    vdso = next((each for each in living(os.getpid()) if each.path == "[vdso]"), None)
    if vdso is None:
        return None
    with open("/proc/self/mem", "rb") as memory:
        memory.seek(vdso.start)
        image = memory.read(vdso.end - vdso.start)
    fd = os.memfd_create("vdso")
    os.write(fd, image)
    return f"/proc/self/fd/{fd}"


class Symbols:
    """Names for addresses. Files are read once, and again when they have changed."""

    def __init__(self, mappings: Mappings) -> None:
        self._mappings = mappings
        self._modules: Dict[Tuple[str, int, int], _Module] = {}
        self._vdso: Optional[str] = None

    def kernel(self, addresses: Iterable[int]) -> Dict[int, Symbol]:
        cache, found = BPF._sym_cache(-1), {}
        for address in addresses:
            name, _, module = cache.resolve(address, False)
            where = (module or b"kernel").decode(errors="replace")
            found[address] = Symbol(name.decode() if name else UNKNOWN, where, "kernel")
        return found

    def process(self, pid: int, addresses: Iterable[int]) -> Dict[int, Symbol]:
        mapped = self._mappings.of(pid)
        made: Optional[_Functions] = None
        found = {}
        for address in addresses:
            mapping = next((m for m in reversed(mapped) if m.start <= address < m.end), None)
            name, module, kind = None, "", "user"
            if mapping is not None and mapping.path.startswith(("/", "[vdso]")):
                name, kind = self._in_file(pid, mapping, address)
                module = os.path.basename(mapping.path)
            if name is None:
                made = made or _Functions(_perf_map(pid))
                name = made.at(address)
                if name is not None:
                    kind = "python" if name.startswith("py::") else "jit"
            found[address] = Symbol(name or UNKNOWN, module, kind)
        return found

    def _in_file(self, pid: int, mapping: Mapping, address: int) -> Tuple[Optional[str], str]:
        path = mapping.path
        if path == "[vdso]":
            path = self._vdso = self._vdso or _vdso() or ""
        elif os.path.exists(f"/proc/{pid}/root{path}"):  # it may live in a container
            path = f"/proc/{pid}/root{path}"
        try:
            told = os.stat(path)
            key = (mapping.path, told.st_ino, told.st_mtime_ns)
            if key not in self._modules:
                self._modules[key] = _read_module(path)
        except (OSError, struct.error):
            return None, "user"
        module = self._modules[key]
        return module.name_at(address - mapping.start + mapping.offset), module.kind


def _perf_map(pid: int) -> List[Tuple[int, int, str]]:
    """What a program says of the code that it made: ``address size name`` in each line."""
    for place in (f"/proc/{pid}/root/tmp/perf-{pid}.map", f"/tmp/perf-{pid}.map"):
        try:
            text = _read_of_owner(place, os.stat(f"/proc/{pid}").st_uid)
        except FileNotFoundError:
            text = _read_of_owner(place, None)  # it has ended, and whose it was is not known
        if text is not None:
            found = _PERF_MAP_LINE.findall(text)
            return [(int(at, 16), int(size, 16), name) for at, size, name in found]
    return []


def _read_of_owner(path: str, owner: Optional[int]) -> Optional[str]:
    """A file that anybody may have put there: not a link, not a FIFO, not somebody else's."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:
        return None
    with open(fd, errors="replace") as file:
        told = os.fstat(fd)
        theirs = owner is None or told.st_uid in (0, owner)
        return file.read(_MAX_PERF_MAP_BYTES) if stat.S_ISREG(told.st_mode) and theirs else None


def _addresses(table: maps.Map, ident: int) -> Optional[List[int]]:
    """The addresses of a stack, where it was first; None when the table has lost it."""
    value = ct.create_string_buffer(table.stride)
    if lib.bpf_lookup_elem(table.fd, ct.byref(ct.c_int32(ident)), value) != 0:
        return None
    found = struct.unpack(f"<{table.stride // 8}Q", value)
    return list(found[: found.index(0)] if 0 in found else found)


def name_stacks(
    symbols: Symbols, table: maps.Map, kernel: Sequence[int], user: Sequence[Tuple[int, int]]
) -> messages.NamedStacks:
    """The stacks of these numbers, as places in a list of symbols; the root comes first.

    ``kernel`` are numbers in the table, ``user`` pairs of a process and a number. Return addresses
    point behind the call, which may be another function already, so one is taken off them.
    """
    wanted = [(-1, ident) for ident in kernel] + [(pid, ident) for pid, ident in user]
    stacks: List[Optional[List[Tuple[int, int]]]] = []
    of_pid: Dict[int, Dict[int, Symbol]] = {}
    asked: Dict[int, Dict[int, None]] = {}
    for pid, ident in wanted:
        found = _addresses(table, ident)
        if found is None:
            stacks.append(None)
            continue
        places = [address - (depth > 0) for depth, address in enumerate(found)]
        stacks.append([(pid, address) for address in reversed(places)])
        asked.setdefault(pid, {}).update(dict.fromkeys(places))
    for pid, addresses in asked.items():
        of_pid[pid] = symbols.kernel(addresses) if pid < 0 else symbols.process(pid, addresses)
    numbers: Dict[Symbol, int] = {}
    named: List[Optional[List[int]]] = []
    for stack in stacks:
        names = [of_pid[who][address] for who, address in stack or []]
        known = [numbers.setdefault(name, len(numbers)) for name in names]
        named.append(None if stack is None else known)
    return {"symbols": list(numbers), "kernel": named[: len(kernel)], "user": named[len(kernel) :]}


def of_file(name: str, pattern: str) -> List[messages.SymbolRow]:
    """The function symbols of a program or library, named as a probe's is: name and address."""
    path = elf.locate(name)
    if not os.path.isfile(path):
        raise Fault("UnknownEvent", f"There is no file {path!r} on the traced machine.")
    pairs = BPF.get_user_functions_and_addresses(path, ".*")
    found = {symbol.decode(): address for symbol, address in pairs}
    matching = sorted(fnmatch.filter(found, pattern))
    return [{"symbol": symbol, "address": found[symbol]} for symbol in matching]
