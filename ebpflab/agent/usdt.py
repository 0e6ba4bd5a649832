"""USDT: attaching to probes that a program offers by itself.

BCC's C library does the work: it counts us as a listener where a probe has a semaphore, and
writes a C function for each argument, by which ``bpf_usdt_readarg`` reads it. BCC's Python puts
those in front of the reader's text, which moves the line numbers of every error; here they are
an included file, in memory.
"""

import ctypes as ct
import difflib
import os
import re
import time
from typing import Any, Dict, List, Optional, Sequence, Tuple

import notes
from bcc.libbcc import _USDT_PROBE_CB, lib
from faults import Fault

_MAPPED_SECONDS = 0.5
_READER = re.compile(
    r"^static __always_inline int (_bpf_readarg_\w+)"
    r"\(struct pt_regs \*ctx, void \*dest, size_t len\) \{\n"
    r"  if \(len != sizeof\((\w+)\)\) return -1;\n(.*?)^\}\n",
    re.MULTILINE | re.DOTALL,
)
_READS = re.compile(r"\bbpf_usdt_readarg(?:_p)?\s*\(\s*(\d+)\s*,")
# BCC's own reader does nothing, in silence, where the variable is not exactly as wide as the
# argument, whose width the compiler of the traced program has chosen. Ours converts.
_CONVERTING = r"""
static __always_inline int ebpflab{name}(struct pt_regs *ctx, void *dest) {{
{body}}}
static __always_inline int {name}(struct pt_regs *ctx, void *dest, size_t len) {{
  {type} argument = 0;
  int failed = ebpflab{name}(ctx, &argument);
  if (len == 8) *(u64 *)dest = argument;
  else if (len == 4) *(u32 *)dest = argument;
  else if (len == 2) *(u16 *)dest = argument;
  else if (len == 1) *(u8 *)dest = argument;
  else return -1;
  return failed;
}}
"""


class Enabled:
    """A probe that is asked for: of which file, for which process, and for which function.

    While it is open, a process that it was opened for is told, by its semaphore, that somebody
    listens.
    """

    def __init__(self, path: str, pid: Optional[int], probe: str, function: str) -> None:
        self.path, self.probe = check(path, pid, probe)
        self.pid, self.function = pid, function
        name = os.fsencode(self.path)
        self._context = lib.bcc_usdt_new_frompid(pid, name) if pid else None
        if not pid:
            self._context = lib.bcc_usdt_new_frompath(name)
        if not self._context:
            raise Fault("AttachError", f"BCC cannot read the USDT probes of {self.path!r}.")
        provider, _, short = self.probe.partition(":")
        if lib.bcc_usdt_enable_fully_specified_probe(
            self._context, provider.encode(), short.encode(), function.encode()
        ):
            self.close()
            why = (
                f": could not count up its semaphore in process {pid}. Is that process ending, or"
                " debugged by somebody else?"
                if pid
                else "."
            )
            raise Fault("AttachError", f"Cannot enable {self.probe} of {self.path!r}{why}")

    @property
    def place(self) -> str:
        return f"{self.path}:{self.probe}" + (f" in process {self.pid}" if self.pid else "")

    def readers(self) -> Dict[str, str]:
        """The C functions that read the arguments of this probe, by name."""
        text = lib.bcc_usdt_genargs((ct.c_void_p * 1)(self._context), 1)
        if text is None:
            raise Fault(
                "AttachError",
                f"BCC cannot tell where the arguments of {self.place} are. Where it has several"
                " places, or a global variable for an argument, it needs to know the process:"
                " lab.usdt(path, pid=...).",
            )
        found = _READER.findall(text.decode())
        if len(found) != text.count(b"static __always_inline"):  # a BCC that writes them otherwise
            return {self.function: text.decode()}
        return {
            name: _CONVERTING.format(name=name, type=type_, body=body)
            for name, type_, body in found
        }

    def addresses(self) -> List[Tuple[bytes, int]]:
        """The places to put a uprobe: file and address."""
        found: List[Tuple[bytes, int]] = []

        def add(path: bytes, _function: bytes, address: int, _pid: int) -> None:
            found.append((path, address))

        lib.bcc_usdt_foreach_uprobe(self._context, _USDT_PROBE_CB(add))
        return found

    def close(self) -> None:
        """Listen no longer. May be called twice."""
        if self._context:
            lib.bcc_usdt_close(self._context)
            self._context = None


def enable(contexts: Sequence[Dict[str, Any]]) -> List[Enabled]:
    """All probes of the contexts that a notebook sends along with a program, or a Fault."""
    done: List[Enabled] = []
    try:
        for context in contexts:
            for probe, function in context["probes"]:
                done.append(Enabled(context["path"], context["pid"], probe, function))
        return done
    except BaseException:
        close(done)
        raise


def close(enabled: Sequence[Enabled]) -> None:
    for each in enabled:
        each.close()


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
    if found[0].semaphore and not pid:
        raise Fault(
            "AttachError",
            f"{names[0]} of {path!r} has a semaphore: a counter, in the memory of each process,"
            " of those who listen, and while it is 0 the program skips the probe. To count it up,"
            " the process must be known: start the program first, then lab.usdt(path, pid=...).",
        )
    return path, names[0]


def _unknown(path: str, probe: str, all_notes: List[notes.Note]) -> Fault:
    providers: Dict[str, List[str]] = {}
    for note in all_notes:
        known = providers.setdefault(note.provider, [])
        if note.probe not in known:
            known.append(note.probe)
    names = [n for note in all_notes for n in ((note.name,) if ":" in probe else (note.probe,))]
    closest = difflib.get_close_matches(probe, list(dict.fromkeys(names)), n=3, cutoff=0.6)
    hint = f" Closest matches: {', '.join(closest)}." if closest else ""
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
        f"{path!r} has no USDT probe {probe!r}.{hint} Its providers and probes: {has}.{why}",
        name=probe,
        closest=closest,
    )


def _check_mapped(path: str, pid: int) -> None:
    """Refuse a process that does not run the file: its probes would never be hit."""
    deadline = time.monotonic() + _MAPPED_SECONDS  # the loader may still be at work
    while True:
        mapped = _mapped_files(pid)
        if any(_same_file(path, f"/proc/{pid}/root{name}") for name in mapped):
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


def _mapped_files(pid: int) -> List[str]:
    try:
        with open(f"/proc/{pid}/maps", errors="surrogateescape") as maps:
            lines = [line.split(None, 5) for line in maps]
    except OSError:
        return []
    return list(dict.fromkeys(line[5].rstrip("\n") for line in lines if len(line) == 6))


def _same_file(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False
