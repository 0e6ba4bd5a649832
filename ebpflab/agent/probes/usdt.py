"""USDT: attaching to probes that a program offers by itself.

The notes in the file (``notes.py``) tell where a probe is, where its arguments are when it is
reached, and where its semaphore is, the counter of those who listen. The kernel counts that up by
itself, in every process that has the probe, if it is told its place in the file along with the
uprobe (``ref_ctr_offset``), and down again when the uprobe goes, however it goes. So nothing here
writes to a process.

BCC's C library reads the descriptions of arguments. What ``bpf_usdt_readarg`` calls to get at
them is written here: BCC's own silently reads nothing where the variable is not exactly as wide
as the argument, and its Python puts it in front of the reader's text, which moves the line
numbers of every error. Ours converts, and is an included file, in memory.
"""

import ctypes as ct
import os
import re
import time
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from bcc.libbcc import BCC_USDT_ARGUMENT_FLAGS as HAS
from bcc.libbcc import bcc_usdt_argument, bcc_usdt_location, lib

from ebpflab.agent.faults import Fault
from ebpflab.agent.processes import notes
from ebpflab.agent.processes.mappings import living
from ebpflab.protocol import messages
from ebpflab.protocol.closest import closest, offered

_MAPPED_SECONDS = 0.5
# Linux 4.20, commit a6ca88b241d5.
_KERNEL_COUNTS = "/sys/bus/event_source/devices/uprobe/format/ref_ctr_offset"
_READS = re.compile(r"\bbpf_usdt_readarg(?:_p)?\s*\(\s*(\d+)\s*,")
_READER = r"""
static __always_inline int _bpf_readarg_{function}_{number}(
    struct pt_regs *ctx, void *dest, size_t len) {{
  s64 argument = 0;
  {read}
  if (len == 8) *(u64 *)dest = argument;
  else if (len == 4) *(u32 *)dest = argument;
  else if (len == 2) *(u16 *)dest = argument;
  else if (len == 1) *(u8 *)dest = argument;
  else return -1;
  return 0;
}}
"""
# Where a library is loaded is not known beforehand, but pages are loaded whole.
_PAGE_BYTES = 4096
# Without the barrier LLVM merges the cases into one read of ctx at a computed place, which the
# verifier refuses.
_BARRIER = '__asm__ __volatile__("" ::: "memory");'


class Enabled(NamedTuple):
    """A probe that is asked for: of which file, for which process, and for which function."""

    path: str
    pid: Optional[int]
    probe: str
    function: str

    @property
    def place(self) -> str:
        return f"{self.path}:{self.probe}" + (f" in process {self.pid}" if self.pid else "")

    def explain(self, complaint: str, log: str) -> Fault:
        return Fault("AttachError", f"Cannot attach to {self.place}: {complaint}", log=log)

    def offsets(self) -> List[Tuple[int, int]]:
        """The places in the file to put a uprobe, each with its semaphore's, or 0."""
        found = [note for note in notes.read(self.path)[1] if note.name == self.probe]
        places = notes.Places(self.path)
        return [
            (places.offset(note.address), places.offset(note.semaphore) if note.semaphore else 0)
            for note in found
        ]

    def readers(self) -> Dict[str, str]:
        """The C functions that read the arguments of this probe, by name."""
        found = list(_arguments(self.path, self.probe))
        by_number: Dict[int, Dict[int, str]] = {}
        for address, texts in found:
            for number, text in enumerate(texts, 1):
                here = by_number.setdefault(number, {})
                if here.setdefault(address % _PAGE_BYTES, text) != text:
                    raise Fault(
                        "AttachError",
                        f"{self.place} is at two places whose addresses end alike,"
                        f" {address % _PAGE_BYTES:#x}, and has its arguments at different ones:"
                        " a program cannot tell at which of them it is.",
                    )
        return {
            f"_bpf_readarg_{self.function}_{number}": _READER.format(
                function=self.function, number=number, read=_switch(texts)
            )
            for number, texts in by_number.items()
        }


def _switch(texts: Dict[int, str]) -> str:
    """C that sets ``argument``, by the place where the program is."""
    if len(set(texts.values())) == 1:
        return next(iter(texts.values()))
    cases = "".join(f"  case {at:#x}: {text} break;\n" for at, text in texts.items())
    return f"switch (PT_REGS_IP(ctx) % {_PAGE_BYTES}) {{\n{cases}  default: return -1;\n  }}"


def _arguments(path: str, probe: str) -> Iterator[Tuple[int, List[str]]]:
    """For each place of a probe, its address, and C that sets ``argument`` to each argument."""
    context = lib.bcc_usdt_new_frompath(os.fsencode(path))
    if not context:
        raise Fault("AttachError", f"BCC cannot read the USDT probes of {path!r}.")
    names = [part.encode() for part in probe.split(":", 1)]
    location, argument, places = bcc_usdt_location(), bcc_usdt_argument(), notes.Places(path)
    place = 0
    try:
        while lib.bcc_usdt_get_location(context, *names, place, ct.byref(location)) == 0:
            texts: List[str] = []
            while not lib.bcc_usdt_get_argument(
                context, *names, place, len(texts), ct.byref(argument)
            ):
                texts.append(_read(argument, location.address, places))
            yield location.address, texts
            place += 1
    finally:
        lib.bcc_usdt_close(context)


def _read(argument: Any, address: int, places: notes.Places) -> str:
    """C that sets ``argument`` to what BCC has read in a note."""
    bits = abs(argument.size) * 8
    kind = f"{'s' if argument.size < 0 else 'u'}{bits}"
    if argument.valid & HAS.CONSTANT:
        return f"argument = ({kind}){argument.constant}LL;"
    base = argument.base_register_name.decode()
    if not argument.valid & HAS.DEREF_OFFSET:
        return f"argument = ({kind})ctx->{base}; {_BARRIER}"
    where = f"ctx->{base} + ({argument.deref_offset})"
    if argument.valid & HAS.DEREF_IDENT:
        # A global variable: as far from the probe in a process as in the file.
        distance = places.symbol(argument.deref_ident.decode()) - address
        where = f"PT_REGS_IP(ctx) + ({distance + argument.deref_offset}LL)"
    if argument.valid & HAS.INDEX_REGISTER_NAME:
        scale = argument.scale if argument.valid & HAS.SCALE else 1
        where += f" + ctx->{argument.index_register_name.decode()} * {scale}"
    return (
        f"{{ {kind} value = 0; u64 at = {where}; {_BARRIER}"
        " bpf_probe_read_user(&value, sizeof(value), (void *)at); argument = value; }"
    )


def enable(contexts: Sequence[messages.UsdtContext]) -> List[Enabled]:
    """All probes of the contexts that a notebook sends along with a program, or a Fault."""
    return [
        Enabled(*_checked(context, probe), function)
        for context in contexts
        for probe, function in context["probes"]
    ]


def _checked(context: messages.UsdtContext, probe: str) -> Tuple[str, Optional[int], str]:
    path, name = check(context["path"], context["pid"], probe)
    return path, context["pid"], name


def readers(enabled: Sequence[Enabled]) -> str:
    """The C text to include: what ``bpf_usdt_readarg`` calls."""
    functions: Dict[str, str] = {}
    for each in enabled:
        for name, text in each.readers().items():
            if functions.setdefault(name, text) != text:
                raise Fault(
                    "AttachError",
                    f"The C function {each.function!r} is enabled for {each.probe}, and for"
                    " another probe whose arguments are in other places. Write one C function"
                    " for each.",
                )
    return "#include <uapi/linux/ptrace.h>\n" + "".join(functions.values()) if functions else ""


def complained_of(log: str) -> List[str]:
    """The functions for which clang's log misses a reader of an argument."""
    return re.findall(r"'_bpf_readarg_(\w+)_\d+'", log)


def explain(source: str, function: str, known: str) -> None:
    """Raise a CompileError where a function reads an argument that it has no reader for.

    BCC's second pass, which numbers lines otherwise, says so with an error from LLVM 16 on.
    Before, it is an ignored warning, and the verifier refuses the result in obscure words.
    """
    start = re.search(rf"^\w[\w \t*]*\b{function}\s*\(", source, re.MULTILINE)
    for call in _READS.finditer(source, start.end() if start else len(source)):
        if "\n}" in source[start.end() if start else 0 : call.start()]:
            return  # another function's
        name = f"_bpf_readarg_{function}_{call.group(1)}"
        if f" {name}(" not in known:
            line = source.count("\n", 0, call.start()) + 1
            column = call.start() - source.rfind("\n", 0, call.start())
            complaint = f"call to undeclared function '{name}'"
            raise Fault(
                "CompileError",
                complaint,
                log=f"/virtual/main.c:{line}:{column}: error: {complaint}\n",
            )


def check(path: str, pid: Optional[int], probe: str) -> Tuple[str, str]:
    """The file and the full name of a probe that can be attached to; else a Fault says why not.

    ``probe`` is its name, or ``provider:name``; without a probe the file alone is looked at.
    """
    if pid and not os.path.isdir(f"/proc/{pid}"):
        raise Fault("AttachError", f"There is no process {pid} on the traced machine.")
    path, all_notes = notes.read(path or os.path.realpath(f"/proc/{pid}/exe"))
    notes.check_machine(path)
    if not all_notes:
        raise Fault(
            "UnknownEvent",
            f"{path!r} has no USDT probes: there is no .note.stapsdt in it. Its source must use"
            " the macros of sys/sdt.h, and many programs do only when configured for it"
            " (--enable-dtrace, --with-dtrace). Its functions can be probed with attach_uprobe.",
            name=probe,
            closest=[],
        )
    if pid:
        _check_mapped(path, pid)
    if not probe:
        return path, ""
    found = [note for note in all_notes if probe in (note.probe, note.name)]
    if not found:
        raise _unknown(path, probe, all_notes)
    names = sorted({note.name for note in found})
    if len(names) > 1:
        raise Fault(
            "AttachError",
            f"Several providers in {path!r} have a probe {probe!r}: {', '.join(names)}. Give one"
            " of these full names.",
        )
    if found[0].semaphore and not os.path.exists(_KERNEL_COUNTS):
        raise Fault(
            "AttachError",
            f"{names[0]} of {path!r} has a semaphore: a counter, in the memory of each process, of"
            " those who listen, and while it is 0 the program skips the probe. This kernel"
            f" ({os.uname().release}) cannot count it up: there is no {_KERNEL_COUNTS} (Linux 4.20"
            " and later). Use Lab('vm').",
        )
    return path, names[0]


def _unknown(path: str, probe: str, all_notes: List[notes.Note]) -> Fault:
    providers: Dict[str, List[str]] = {}
    for note in all_notes:
        known = providers.setdefault(note.provider, [])
        if note.probe not in known:
            known.append(note.probe)
    names = [n for note in all_notes for n in ((note.name,) if ":" in probe else (note.probe,))]
    found = closest(probe, names)
    has = "; ".join(
        f"{provider} ({', '.join(known[:8])}{', ...' if len(known) > 8 else ''})"
        for provider, known in list(providers.items())[:8]
    )
    quoted = any('"' in note.name for note in all_notes) and '"' not in probe
    why = (
        " The quotation marks are part of these names, because the program's source gives them"
        " as strings: write DTRACE_PROBE(provider, name) without quotes, and rebuild it."
        if quoted
        else ""
    )
    return Fault(
        "UnknownEvent",
        f"{path!r} has no USDT probe {probe!r}.{offered(found)}"
        f" Its providers and probes: {has}.{why}",
        name=probe,
        closest=found,
    )


def _check_mapped(path: str, pid: int) -> None:
    """Refuse a process that does not run the file: its probes would never be hit."""
    deadline = time.monotonic() + _MAPPED_SECONDS  # the loader may still be at work
    while True:
        mapped = {mapping.path for mapping in living(pid, errors="surrogateescape")}
        if any(_same_file(path, f"/proc/{pid}/root{name}") for name in mapped if name):
            return
        if time.monotonic() > deadline:
            break
        time.sleep(0.02)
    runs = os.path.realpath(f"/proc/{pid}/exe")
    raise Fault(
        "AttachError",
        f"Process {pid} does not use {path!r}; it runs {runs!r}. If the file was rebuilt, start"
        " the process again.",
    )


def _same_file(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False
