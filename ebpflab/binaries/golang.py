"""Go programs: which Go built them, their functions, and how to find the goroutine that runs.

*Returns.* A uretprobe replaces the return address on the stack by the kernel's own. Go copies a
goroutine's stack when it has to grow, and walks it in the garbage collector; meeting an address
that is not the program's, it ends the program ("unexpected return pc"). A uprobe on each return
instruction sees the same moments and leaves the stack alone.

*Goroutines.* A goroutine moves between threads, even within one call, so the thread's number does
not pair an entry with its return. The goroutine's number does: field ``goid`` of the runtime's
``struct g``, whose offset differs between versions and is read from the debugging information.
From Go 1.17 on amd64 and always on arm64 a register points at that struct
(https://go.dev/s/regabi, cmd/compile/abi-internal.md).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase

import pandas as pd

from ebpflab.binaries.elf import Binary, TracedFile, text_of
from ebpflab.binaries.returns import return_offsets
from ebpflab.errors import AttachError, UnknownEvent
from ebpflab.protocol.closest import closest, offered
from ebpflab.transport.connection import Connection

_BUILD_INFO = b"\xff Go buildinf:"
_G_REGISTERS = {"x86_64": "r14", "aarch64": "regs[28]"}
_REGISTER_CALLS_SINCE = {"x86_64": (1, 17), "aarch64": (1, 18)}
_MOST_SUGGESTED = 3


@dataclass(frozen=True)
class GoRuntime:
    """The Go runtime inside of a program, as far as C that probes it must know.

    The C idiom, for a program that is loaded with ``cflags=runtime.cflags``::

        static u64 goroutine_id(struct pt_regs *ctx) {
          u64 id = 0;
          bpf_probe_read_user(&id, sizeof(id), (void *)(ctx->GO_G + GOID_OFFSET));
          return id;
        }

    >>> runtime = GoRuntime("go1.24.4", "x86_64", 160)
    >>> runtime.register_calls, runtime.cflags
    (True, ['-DGOID_OFFSET=160', '-DGO_G=r14'])
    """

    version: str
    """As ``go version FILE`` prints it: "go1.24.4"; "unknown" when the program does not say."""
    machine: str
    """The processor it is built for, as ``uname -m`` names it."""
    goid_offset: int | None
    """Bytes from the start of ``struct g`` to the goroutine's number; None without DWARF."""

    @property
    def release(self) -> tuple[int, int] | None:
        """(1, 24) of "go1.24.4"; None for a development version, which is newer than that."""
        found = re.match(r"go(\d+)\.(\d+)", self.version)
        return (int(found[1]), int(found[2])) if found else None

    @property
    def register_calls(self) -> bool:
        """Whether arguments are in registers (AX, BX, CX, DI, SI, R8 to R11 on amd64)."""
        since = _REGISTER_CALLS_SINCE.get(self.machine)
        return since is not None and (self.release is None or self.release >= since)

    @property
    def g_register(self) -> str | None:
        """The field of ``struct pt_regs`` that points at the goroutine; None when none does."""
        if self.machine == "x86_64" and not self.register_calls:
            return None
        return _G_REGISTERS.get(self.machine)

    @property
    def cflags(self) -> list[str]:
        """For `Lab.load`: the macros GOID_OFFSET and GO_G, the field of pt_regs with the pointer.

        Raises AttachError when the program does not tell the offset, or has no such register.
        """
        if self.g_register is None:
            raise AttachError(
                f"{self.version} for {self.machine} keeps the goroutine in no register that a"
                " probe can read. Build the program with Go 1.17 or newer, for amd64 or arm64."
            )
        if self.goid_offset is None:
            raise AttachError(
                "The program does not tell where the goroutine's number is: it has no debugging"
                " information. Build it without -ldflags=-w (or -s, which implies it)."
            )
        return [f"-DGOID_OFFSET={self.goid_offset}", f"-DGO_G={self.g_register}"]


class GoBinary:
    """A Go program on the traced machine.

    Raises UnknownEvent when there is no such file, AttachError when it is no Go program.
    """

    def __init__(self, binary: Binary) -> None:
        if not is_go(binary):
            raise AttachError(
                f"{binary.path!r} is not a Go program: it has neither .go.buildinfo nor"
                " .gopclntab. For what other compilers made, use attach_uretprobe, which is safe"
                " there."
            )
        self._binary, self.path = binary, binary.path
        names = binary.symbols
        start, end = names.get("runtime.text"), names.get("runtime.etext")
        self.functions = {
            name: each
            for name, each in names.items()
            if each.size_bytes
            # A program with C in it (cgo) has C functions outside of these bounds.
            and (start is None or end is None or start.address <= each.address < end.address)
        }

    def frame(self, pattern: str) -> pd.DataFrame:
        """The functions whose name matches a shell pattern, by address."""
        self._refuse_stripped("list its functions")
        found = [f for name, f in self.functions.items() if fnmatchcase(name, pattern)]
        found.sort(key=lambda each: each.address)
        columns = ["symbol", "address", "size_bytes"]
        return pd.DataFrame([[getattr(f, c) for c in columns] for f in found], columns=columns)

    def runtime(self) -> GoRuntime:
        return GoRuntime(self._version(), self._binary.machine, self._goid_offset())

    def returns(self, sym: str, arch: str) -> list[int]:
        """The place in the file of each return instruction of a function.

        ``arch`` is the traced machine's. Raises UnknownEvent when there is no such function,
        AttachError when it never returns or cannot run there.
        """
        if self._binary.machine != arch:
            raise AttachError(
                f"{self.path!r} is built for {self._binary.machine} and the traced machine is"
                f" {arch}: it cannot run there, so a probe would never fire. Build it with the"
                " right GOARCH."
            )
        self._refuse_stripped(f"find the function {sym!r}")
        function = self.functions.get(sym)
        if function is None and sym in self._binary.symbols:
            raise AttachError(
                f"{sym!r} in {self.path!r} is not Go: it is C that was linked in (cgo), or no code"
                " at all. C runs on a stack that Go does not move: use attach_uretprobe(...,"
                " force=True)."
            )
        if function is None:
            raise self.unknown(sym)
        code = self._binary.read(function.address, function.size_bytes)
        offsets = return_offsets(code, self._binary.machine)
        if not offsets:
            raise AttachError(
                f"{sym!r} in {self.path!r} has no return instruction, so there is no place to"
                " attach to. It never returns (an endless loop, os.Exit, panic), or it ends by a"
                " jump into another function. Probe its entry with attach_uprobe, or the return"
                " of a function that it calls."
            )
        start = self._binary.offset(function.address)
        return [start + offset for offset in offsets]

    def _refuse_stripped(self, attempt: str) -> None:
        if ".symtab" not in self._binary:
            raise AttachError(
                f"Cannot {attempt} in {self.path!r}: it was stripped (strip, or"
                ' -ldflags="-s -w"). The names that are left are those in .gopclntab, which Go'
                " keeps for its own stack traces and ebpflab does not read. Build it without -s,"
                " or attach to an address with attach_uprobe(addr=)."
            )

    def unknown(self, sym: str) -> UnknownEvent:
        """The error for a function that is not there, and why that may be."""
        found = self._similar(sym)
        hint = offered(found)
        text = f"There is no function {sym!r} in {self.path!r}"
        if self._inlined(sym):
            text += (
                ", though its source has one: the compiler inlined it, which is to copy its body"
                " into each caller. Write //go:noinline above the function, or build with"
                f" -gcflags=-l.{hint}"
            )
        elif "." not in sym:
            text += f". A Go function's name begins with its package, as in 'main.{sym}'.{hint}"
        else:
            text += f": misspelt, inlined into its callers, or never called.{hint}"
        error = UnknownEvent(text, name=sym, closest=found)
        error.closest = found
        return error

    def _inlined(self, sym: str) -> bool:
        """Whether the debugging information knows a function whose body went to its callers."""
        folders, slash, name = sym.rpartition("/")
        package = folders + slash + name.split(".")[0]
        return any(
            die.tag == "DW_TAG_subprogram" and text_of(die, "DW_AT_name") == sym
            for die in self._binary.dies(package)
        )

    def _similar(self, sym: str) -> tuple[str, ...]:
        """Function names that may be meant: of the same last part first, then similar ones."""
        tail = [name for name in self.functions if name.rsplit(".", 1)[-1] == sym.split(".")[-1]]
        own = [name for name in tail if name.startswith("main.")]
        if own:
            return tuple(own[:_MOST_SUGGESTED])
        # What the reader wrote is a small part of the program, and what the reader means.
        here = [name for name in self.functions if name.startswith("main.")]
        return tuple(closest(sym, here) or closest(sym, self.functions))

    # -- what Go has written into the program -----------------------------------------------

    def _version(self) -> str:
        """The version in ``.go.buildinfo``, in both of its layouts (debug/buildinfo/buildinfo.go).

        Since Go 1.18 the text follows at byte 32, after its length; before, byte 16 holds the
        address of a string, which is an address and a length.
        """
        data = self._binary.section(".go.buildinfo")
        if not data.startswith(_BUILD_INFO) or len(data) < 32:
            return "unknown"
        size = data[14]
        try:
            if data[15] & 2:
                return data[33 : 33 + data[32]].decode()  # shorter than 128: a length of one byte
            where = int.from_bytes(data[16 : 16 + size], "little")
            header = self._binary.read(where, 2 * size)
            at, count = (int.from_bytes(header[i : i + size], "little") for i in (0, size))
            return self._binary.read(at, count).decode()
        except (AttachError, UnicodeDecodeError):
            return "unknown"

    def _goid_offset(self) -> int | None:
        for die in self._binary.dies("runtime"):
            if die.tag == "DW_TAG_structure_type" and text_of(die, "DW_AT_name") == "runtime.g":
                for member in die.iter_children():
                    if text_of(member, "DW_AT_name") == "goid":
                        return int(member.attributes["DW_AT_data_member_location"].value)
        return None


def is_go(binary: Binary) -> bool:
    return ".go.buildinfo" in binary or binary.find_section(".gopclntab") is not None


def open_binary(connection: Connection, name: str) -> Binary:
    """An ELF file of the traced machine. Raises UnknownEvent, AttachError."""
    file = TracedFile(connection, name)
    return Binary(file, file.path)


def retold(connection: Connection, name: str, sym: str, error: UnknownEvent) -> UnknownEvent:
    """The error of a symbol that was not found, as a Go program tells it; else the same one."""
    try:
        binary = GoBinary(open_binary(connection, name))
    except AttachError:
        return error
    return error if sym in binary.functions or not binary.functions else binary.unknown(sym)


def refuse_uretprobe(connection: Connection, name: str, sym: str) -> None:
    """Raise AttachError when a uretprobe in that file would crash it: when it is a Go program.

    Where this cannot be told, the attempt itself will tell what is wrong.
    """
    try:
        go = is_go(open_binary(connection, name))
    except AttachError:
        return
    if go:
        raise AttachError(
            f"Will not attach a uretprobe to {name!r}: it is a Go program, and a uretprobe"
            " replaces the return address on the stack. When a goroutine's stack has to grow, Go"
            ' finds an address that is not its own and the program dies ("unexpected return pc").'
            f" Use attach_go_return(name=..., sym={sym!r}, fn_name=...), which stops at each"
            " return instruction instead; or give force=True, and expect the program to crash."
        )
