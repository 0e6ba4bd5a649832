"""USDT: which probes of a program go to which C functions.

Only a description. `Lab.load` attaches what it says, since BCC must know the probes before it
compiles: it writes the code that reads their arguments.
"""

from __future__ import annotations

from ebpflab.errors import ProgramError
from ebpflab.protocol import messages
from ebpflab.transport.connection import Connection


class USDT:
    """USDT probes of one file, or of one process that uses it. Made by `Lab.usdt`.

    >>> usdt.enable_probe(probe="usdt_loop:step", fn_name="on_step")
    >>> lab.load(source, usdt_contexts=[usdt]).attached
    ['usdt /opt/ebpflab/labs/usdt-c/usdt_loop:usdt_loop:step -> on_step']
    """

    def __init__(self, connection: Connection, path: str, pid: int | None) -> None:
        if not path and (pid or -1) <= 0:
            raise ProgramError("Name a file or a process: lab.usdt(path), lab.usdt(pid=...).")
        self._connection = connection
        self.pid = pid if pid is not None and pid > 0 else None
        """The process, or None for all."""
        self.path: str = self._check(path, "")["path"]
        self._enabled: list[tuple[str, str]] = []

    def enable_probe(self, probe: str, fn_name: str) -> None:
        """Run the C function ``fn_name`` each time ``probe`` is hit.

        ``probe`` is its name, or ``provider:name``. Comes before `Lab.load`. In C,
        ``bpf_usdt_readarg(1, ctx, &variable)`` reads the first argument; a string is an address,
        whose text ``bpf_probe_read_user_str`` reads. Where the probe has a semaphore, the kernel
        counts it up in each process while we are attached.

        Raises UnknownEvent, with the closest matches; AttachError when several providers have a
        probe of this name, or the kernel cannot count its semaphore up (before Linux 4.20). Source:
        Linux 4.20, commit a6ca88b241d5.

        >>> usdt.enable_probe(probe="usdt_loop:step", fn_name="on_step")
        >>> usdt.enabled
        ['usdt_loop:step -> on_step']
        """
        wanted = (self._check(self.path, probe)["probe"], fn_name)
        if wanted not in self._enabled:  # the cell was run again
            self._enabled.append(wanted)

    @property
    def probes(self) -> list[str]:
        """The probes that can be enabled, as ``provider:name``.

        >>> usdt.probes
        ['usdt_loop:step', 'usdt_loop:done']
        """
        rows = self._connection.request(messages.USDT_PROBES, messages.OfFile(path=self.path)).ok[
            "probes"
        ]
        return list(dict.fromkeys(f"{row['provider']}:{row['probe']}" for row in rows))

    @property
    def enabled(self) -> list[str]:
        """The probes that are enabled, as ``provider:name -> function``.

        >>> usdt.enabled
        []
        """
        return [f"{probe} -> {function}" for probe, function in self._enabled]

    def _check(self, path: str, probe: str) -> messages.UsdtChecked:
        asked = messages.UsdtCheck(path=path, pid=self.pid, probe=probe)
        return self._connection.request(messages.USDT_CHECK, asked).ok

    def _wanted(self) -> messages.UsdtContext:
        """What the agent is to attach. Raises ProgramError when that is nothing."""
        if not self._enabled:
            raise ProgramError(
                f"No USDT probe of {self.path!r} is enabled. Before lab.load:"
                " usdt.enable_probe(probe=..., fn_name=...)."
            )
        return {"path": self.path, "pid": self.pid, "probes": list(self._enabled)}

    def __repr__(self) -> str:
        process = f", process {self.pid}" if self.pid else ""
        return f"<USDT {self.path}{process}: {'; '.join(self.enabled) or 'nothing enabled'}>"
