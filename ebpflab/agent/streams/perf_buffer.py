"""BPF perf buffers, read by BCC.

BCC hands each record to a callback; the callback lays it out as a ring record, with the CPU in the
second word, so that both kinds look alike on the wire.
"""

import ctypes as ct
import mmap
import struct
from typing import Any, Callable

from ebpflab.agent.streams.stream import Send, Stream

_HEADER = struct.Struct("<II")


class PerfStream(Stream):
    """A BPF perf buffer, read through BCC."""

    PAGES = 64  # per CPU, as BCC's tools use

    def __init__(self, ident: int, lost: Callable[[], int], bpf: Any, name: str) -> None:
        super().__init__(ident, lost)
        from bcc import lib

        self._bpf, self._pending = bpf, bytearray()
        table = bpf[name.encode()]
        before = set(bpf.perf_buffers)
        table.open_perf_buffer(self._record, page_cnt=self.PAGES, lost_cb=lambda _: None)
        opened = [bpf.perf_buffers[key] for key in bpf.perf_buffers if key not in before]
        self.fds = [lib.perf_reader_fd(reader) for reader in opened]
        self.size_bytes = self.PAGES * mmap.PAGESIZE

    def _record(self, cpu: int, data: int, size: int) -> None:
        self._pending += _HEADER.pack(size, cpu) + ct.string_at(data, size)
        self._pending += bytes(-len(self._pending) % 8)

    def drain(self, send: Send) -> None:
        consume = getattr(self._bpf, "perf_buffer_consume", None)  # BCC >= 0.20
        consume() if consume else self._bpf.perf_buffer_poll(timeout=0)
        pending, self._pending = self._pending, bytearray()
        if pending:
            self._send(send, pending)
