"""QEMU's command lines: what is asked of QEMU, with nothing started yet.

One machine in three uses: `cold` boots an image and lets the guest be saved, `resumed` carries
on from what was saved, `trial` only sees whether an accelerator works. Guests that are saved
and resumed must be the same machine, so everything of the hardware is in `_hardware`.

Nothing listens anywhere: every stream is a descriptor that QEMU inherits.
"""

from __future__ import annotations

import functools
import hashlib
import subprocess
from dataclasses import dataclass
from pathlib import Path

from ebpflab.vm import process

MEMORY_MIB = 1024
CPUS = 2
PORT = "ebpflab"
"""The virtio-serial port that ebpflab-agent.service waits for."""

_PURPOSE = "Running the guest"
# No new privileges, no new processes, no odd system calls.
_SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


@dataclass(frozen=True)
class Machine:
    """A processor architecture and what executes it."""

    arch: str
    accel: str

    @property
    def program(self) -> str:
        return "qemu-system-x86_64" if self.arch == "amd64" else "qemu-system-aarch64"

    @property
    def board(self) -> str:
        # microvm would boot faster, and hangs under TCG (QEMU 7.2).
        return "q35,vmport=off" if self.arch == "amd64" else "virt,gic-version=max"

    @property
    def cpu(self) -> str:
        return "host" if self.accel == "kvm" else "max"

    @property
    def accelerator(self) -> str:
        # With a thread for each of the guest's processors, TCG at times executes torn
        # instructions where the kernel writes code while another processor runs some of the same
        # page, as it does for every hit of a uprobe. Measured (QEMU 7.2, two uprobes in a Go
        # program with threads): 19 of 365 runs died, against none of 181 with one thread.
        return "tcg,thread=single" if self.accel == "tcg" else self.accel

    @property
    def console(self) -> str:
        return "ttyS0" if self.arch == "amd64" else "ttyAMA0"


@dataclass(frozen=True)
class Streams:
    """The numbers of the descriptors that QEMU inherits."""

    wire: int
    qmp: int
    console: int
    console_is_socket: bool = False
    """Else a file, which gets what the console prints."""


def program(arch: str) -> str:
    """The path of the QEMU for ``arch``. Raises MissingTool."""
    (path,) = process.need(_PURPOSE, Machine(arch, "tcg").program)
    process.need(_PURPOSE, "qemu-img")
    return path


@functools.cache
def identity(arch: str) -> str:
    """A name for this very QEMU: what one version saved, another might not resume.

    The file's date and size, because asking for the version takes longer than a resume.
    """
    path = Path(program(arch)).resolve()
    stat = path.stat()
    text = f"{path} {stat.st_size} {stat.st_mtime_ns}"
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def cold(machine: Machine, image: Path, disk: Path, memory: Path, streams: Streams) -> list[str]:
    """Boot ``image``, with its memory in the file ``memory`` and what it writes in ``disk``."""
    return [
        *_hardware(machine, image, memory, streams, share=True),
        "-drive",
        f"file={_quoted(disk)},if=none,id=disk,cache=unsafe",
    ]


@functools.cache
def maps_what_it_may_only_read(machine: Machine) -> bool:
    """Whether this QEMU can map a file privately that it may not open for writing (8.2, with the
    option ``rom``); older ones open it for writing even so."""
    command = [program(machine.arch), "-object", "memory-backend-file,help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "rom=" in done.stdout


def resumed(
    machine: Machine,
    image: Path,
    disk: Path,
    memory: Path,
    streams: Streams,
    *,
    read_only: bool = False,
) -> list[str]:
    """Carry on from what was saved, changing neither ``disk`` nor ``memory``.

    The memory is mapped privately: pages that the guest does not write are the page cache's,
    shared by all guests. The disk's changes go to a file that QEMU unlinks at once.
    """
    return [
        *_hardware(machine, image, memory, streams, share=False, read_only=read_only),
        "-drive",
        f"file={_quoted(disk)},if=none,id=disk,cache=unsafe,snapshot=on",
        "-incoming",
        "defer",
    ]


def trial(machine: Machine, image: Path, console: int) -> list[str]:
    """Just enough of a machine for a kernel's first line on the console."""
    return [
        *_processor(machine, image, "earlyprintk=serial,ttyS0 panic=-1"),
        *("-m", "256"),
        *_console(console, is_socket=False),
    ]


def _processor(machine: Machine, image: Path, arguments: str) -> list[str]:
    return [
        program(machine.arch),
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
        *("-nic", "none", "-sandbox", _SANDBOX),
        *("-machine", machine.board, "-accel", machine.accelerator, "-cpu", machine.cpu),
        *("-kernel", str(image / "vmlinuz"), "-initrd", str(image / "initrd")),
        *("-append", f"console={machine.console} {arguments}"),
    ]


def _hardware(
    machine: Machine,
    image: Path,
    memory: Path,
    streams: Streams,
    *,
    share: bool,
    read_only: bool = False,
) -> list[str]:
    # A panic reboots, and -no-reboot turns that into the end of QEMU.
    arguments = "root=/dev/vda rw quiet panic=-1 systemd.show_status=false"
    backend = f"memory-backend-file,id=ram,size={MEMORY_MIB}M,mem-path={_quoted(memory)}"
    return [
        *_processor(machine, image, arguments),
        *("-smp", str(CPUS), "-m", str(MEMORY_MIB), "-machine", "memory-backend=ram"),
        *(
            "-object",
            f"{backend},share={'on' if share else 'off'}{',readonly=on,rom=off' * read_only}",
        ),
        # A full disk is the guest's I/O error; QEMU's default would stop the guest in silence.
        *("-device", "virtio-blk-pci,drive=disk,werror=report,rerror=report"),
        *("-device", "virtio-rng-pci", "-device", "virtio-serial-pci"),
        *("-chardev", f"socket,id=wire,fd={streams.wire}"),
        *("-device", f"virtserialport,chardev=wire,name={PORT}"),
        *("-chardev", f"socket,id=qmp,fd={streams.qmp}", "-mon", "chardev=qmp,mode=control"),
        *_console(streams.console, streams.console_is_socket),
    ]


def _console(descriptor: int, is_socket: bool) -> list[str]:
    kind = f"socket,id=console,fd={descriptor}"
    if not is_socket:
        kind = f"file,id=console,path=/dev/fd/{descriptor},append=on"
    return ["-chardev", kind, "-serial", "chardev:console"]


def _quoted(path: Path) -> str:
    """A path as a value among QEMU's options, where a comma ends a value."""
    return str(path).replace(",", ",,")
