"""Uprobes, uretprobes and the returns of Go functions: a place in the code of a program."""

import ctypes as ct
import itertools
import os
from functools import partial
from typing import Sequence, Tuple

import bcc

from ebpflab.agent.faults import Fault
from ebpflab.agent.probes.kind import Bpf, Kind, by_bcc
from ebpflab.agent.processes import elf, notes
from ebpflab.agent.processes.symbols import of_file
from ebpflab.protocol.closest import closest, offered
from ebpflab.protocol.messages import Where

_numbers = itertools.count(1)


def attach_at(
    bpf: Bpf, function: bytes, path: bytes, pid: int, places: Sequence[Tuple[int, int]]
) -> None:
    """A uprobe at each of these places in the file, with its semaphore's place, or 0.

    Not through BCC's attach_uprobe(addr=), which takes an address or a place in the file,
    depending on how the program was linked, and knows of no semaphore.
    """
    fd = bpf.load_func(function, bcc.BPF.KPROBE).fd
    for offset, semaphore in places:
        event = b"at_%d_%d_%x" % (os.getpid(), next(_numbers), offset)
        probe = bcc.lib.bpf_attach_uprobe(fd, 0, event, path, offset, pid, ct.c_uint32(semaphore))
        if probe < 0:
            error = os.strerror(ct.get_errno())
            raise OSError(f"the kernel refused the probe at {offset:#x} in the file: {error}")
        bpf.uprobe_fds[event] = probe


def _attach_go_return(bpf: Bpf, function: bytes, where: Where) -> None:
    places = [(offset, 0) for offset in where["offsets"]]
    attach_at(bpf, function, where["name"].encode(), where["pid"], places)


def _check(where: Where) -> None:
    """Refuse, as a place for uprobes, what is no program, or one of another processor.

    The kernel puts a probe into any file, where it waits for ever. A process in a container may
    know a file that is not here; that is for BCC to find.
    """
    name, pid = where["name"], where["pid"]
    if pid > 0 and not os.path.isdir(f"/proc/{pid}"):
        raise Fault("AttachError", f"There is no process {pid} on the traced machine.")
    if pid <= 0 or os.path.exists(name):
        notes.check_machine(str(elf.read_elf(name, 0, 0)[0]["path"]))


def _explain_symbol(path: str, sym: str, pid: int) -> Fault:
    """Why a uprobe on ``sym`` in ``path`` was refused."""
    path = str(elf.read_elf(path, 0, 0)[0]["path"])
    symbols = [row["symbol"] for row in of_file(path, "*")]
    if sym in symbols:
        where = f" for process {pid}: does it run this file?" if pid > 0 else "."
        return Fault("AttachError", f"The kernel refused a probe at {sym!r} in {path!r}{where}")
    if not symbols:
        return Fault(
            "UnknownEvent",
            f"{path!r} has no symbol table: it was stripped (strip, or a build with -s). Rebuild"
            " without stripping, or attach to an address with addr=.",
        )
    found = closest(sym, symbols)
    return Fault(
        "UnknownEvent",
        f"There is no function {sym!r} in {path!r}: misspelt, inlined, or not in it."
        f"{offered(found)}",
        name=sym,
        closest=found,
    )


def _explain(kind: str, function: str, where: Where, complaint: str, log: str) -> Fault:
    sym = where.get("sym")
    if sym:
        return _explain_symbol(where["name"], sym, where["pid"])
    return Fault("AttachError", f"Cannot attach a {kind} with {where}: {complaint}")


KINDS = {
    name: Kind(
        program_type=bcc.BPF.KPROBE,
        words="a kprobe or uprobe",
        explain=partial(_explain, name),
        check=_check,
        attach=attach,
    )
    for name, attach in (
        ("uprobe", by_bcc("attach_uprobe")),
        ("uretprobe", by_bcc("attach_uretprobe")),
        ("go_return", _attach_go_return),
    )
}
