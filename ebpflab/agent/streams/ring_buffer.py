"""BPF ring buffers, read in bulk.

The map is mapped into memory: the consumer page read-write at offset 0, then the producer page and
twice the data, read-only, so that a record that wraps is contiguous. A record is a u32 length (bit
31 BUSY: still being written; bit 30 DISCARD), a u32, and the data, padded to 8 bytes
(kernel/bpf/ringbuf.c). A *sweep* takes the whole span between the consumer and the producer
position: where every header in it is equal, one strided slice proves that; otherwise the headers
are walked one by one, up to the first BUSY one. The span goes to the wire straight from the
mapping, and only then is the consumer position moved, once. So a reader that is slow fills the
ring, where losses are counted, and never this process.
"""

import ctypes as ct
import mmap
import platform
from array import array
from functools import partial
from typing import Callable, List, Sequence

from ebpflab.agent.streams.stream import Send, Stream
from ebpflab.protocol.framing import BUSY, CHUNK_BYTES, DISCARD, Buffer, stride

_PAGE_BYTES = mmap.PAGESIZE
_CROWDED = 8  # no pause after more than an eighth of a ring: what it has free is needed for stalls


def whole_records(words: "memoryview[int]", available: int) -> int:
    """How many bytes of ``words`` (u32, from a header on) are complete records.

    The quick way: if the headers found by stepping with the first record's stride are all
    equal to the first, then each is a header, because the one before it says so.
    """
    length = words[0]
    if length & BUSY == 0:
        step = stride(length & ~DISCARD)
        count = available // step
        headers = words[: count * step // 4 : step // 4]
        if count and headers == array("I", [length]) * count:  # 20 times as quick as min and max
            return count * step
    offset = 0
    while offset < available:
        length = words[offset // 4]
        if length & BUSY:
            break
        offset += stride(length & ~DISCARD)
    return offset


def _load_barrier() -> Callable[[], object]:
    """What orders our loads of positions, headers and data on this machine.

    x86 never reorders loads. Elsewhere membarrier(2) stands for the load-acquire that Python
    cannot express; one call a sweep, after the headers were read and before the data is.
    """
    if platform.machine() in ("x86_64", "i686"):
        return lambda: None
    libc = ct.CDLL(None, use_errno=True)
    number, register, expedited = 283, 16, 8  # __NR_membarrier of the generic table
    if libc.syscall(number, register, 0, 0) != 0:
        raise OSError(ct.get_errno(), "membarrier(2) is needed to read ring buffers in bulk")
    return lambda: libc.syscall(number, expedited, 0, 0)


class Ring:
    """A BPF ring buffer, mapped."""

    def __init__(self, fd: int, size_bytes: int) -> None:
        self.fd, self.size_bytes, self._mask = fd, size_bytes, size_bytes - 1
        self._consumer_page = mmap.mmap(fd, _PAGE_BYTES, mmap.MAP_SHARED)
        self._data_pages = mmap.mmap(
            fd, _PAGE_BYTES + 2 * size_bytes, mmap.MAP_SHARED, mmap.PROT_READ, offset=_PAGE_BYTES
        )
        self._consumer = memoryview(self._consumer_page)[:8].cast("Q")
        self._producer = memoryview(self._data_pages)[:8].cast("Q")
        self._data = memoryview(self._data_pages)[_PAGE_BYTES:]
        self._words = self._data.cast("I")
        self._fence = _load_barrier()

    @property
    def produced(self) -> int:
        """Where the producer is: a number of bytes, since ever."""
        return self._producer[0]

    @property
    def consumed(self) -> int:
        """Where we are."""
        return self._consumer[0]

    def sweep(self, send: Callable[[Buffer], None]) -> int:
        """Send a span of complete records, and only then let it be overwritten. Its size."""
        start = self._consumer[0]
        available = min(self._producer[0] - start, CHUNK_BYTES)
        self._fence()
        offset = start & self._mask
        words = self._words[offset // 4 : (offset + available) // 4]
        # A record that does not fit in the chunk is sent whole: records are far below a frame.
        size = whole_records(words, available)
        self._fence()
        if size:
            send(self._data[offset : offset + size])
            self._fence()
            self._consumer[0] = start + size
        return size

    def forget(self) -> None:
        """Let go of everything."""
        self._consumer[0] = self._producer[0]

    def close(self) -> None:
        for view in (self._words, self._data, self._producer, self._consumer):
            view.release()
        self._data_pages.close()
        self._consumer_page.close()


class RingStream(Stream):
    """A BPF ring buffer, or several as one."""

    def __init__(self, ident: int, lost: Callable[[], int], rings: Sequence[Ring]) -> None:
        super().__init__(ident, lost)
        self._rings, self.size_bytes = rings, rings[0].size_bytes
        self.fds = [ring.fd for ring in rings]

    def drain(self, send: Send) -> None:
        ends = self.mark()  # a fast producer must not keep us here for ever
        most = max(end - ring.consumed for ring, end in zip(self._rings, ends))
        self.crowded = most > self.size_bytes // _CROWDED
        for ring, end in zip(self._rings, ends):
            while ring.consumed < end and ring.sweep(partial(self._send, send)):
                pass

    def mark(self) -> List[int]:
        return [ring.produced for ring in self._rings]

    def behind(self, mark: List[int]) -> bool:
        return any(ring.consumed < end for ring, end in zip(self._rings, mark))

    def reset(self) -> None:
        for ring in self._rings:
            ring.forget()
        self.sent_lost = self.drain_ns = 0

    def close(self) -> None:
        for ring in self._rings:
            ring.close()
