"""From the kernel's buffers to the wire: ring buffers in bulk, perf buffers, trace_pipe.

*Ring buffer.* The map is mapped into memory: the consumer page read-write at offset 0, then the
producer page and twice the data, read-only, so that a record that wraps is contiguous. A record
is a u32 length (bit 31 BUSY: still being written; bit 30 DISCARD), a u32, and the data, padded
to 8 bytes (kernel/bpf/ringbuf.c). A *sweep* takes the whole span between the consumer and the
producer position: where every header in it is equal, one strided slice proves that; otherwise
the headers are walked one by one, up to the first BUSY one. The span goes to the wire straight
from the mapping, and only then is the consumer position moved, once. So a reader that is slow
fills the ring, where losses are counted, and never this process.

*Perf buffer.* BCC hands each record to a callback; the callback lays it out as a ring record,
with the CPU in the second word, so that both kinds look alike on the wire.

One thread drains everything. ``sync`` makes it drain what is there now, so that a reader who
asks for "everything until this moment" gets exactly that.
"""

import ctypes as ct
import mmap
import os
import platform
import queue
import select
import struct
import threading
import time
from array import array
from concurrent.futures import Future
from functools import partial
from typing import Any, Callable, Dict, List, Sequence, TypeVar

from ebpflab.protocol.framing import BUSY, CHUNK_BYTES, DISCARD, Buffer, stride

_T = TypeVar("_T")

PAGE = mmap.PAGESIZE
_HEADER = struct.Struct("<II")
_POLL_SECONDS = 0.1  # a discard with NO_WAKEUP can swallow the next adaptive wake-up
# For a producer that was interrupted and has to wait for its CPU, or one that is as fast as we.
_CATCH_UP_SECONDS = 1.0
# The longest pause, and the rate that it has to stand: at a quarter of this a pause fills a quarter
# of the buffer. A short pause stands what probes send, a long one the most that a ring can take.
_PAUSES = ((0.001, 256 << 20), (0.01, 2 << 30))
_CROWDED = 8  # no pause after more than an eighth of a ring: what it has free is needed for stalls

Send = Callable[[int, int, Buffer], None]
"""``send(stream id, lost so far, bytes)``; blocks while the reader is slow."""


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


class Stream:
    """A source of records: ``fds`` to wait for, ``drain`` to empty it."""

    fds: List[int] = []
    size_bytes = 1 << 20  # as trace_pipe
    """How much fits in; of a perf buffer, for one CPU."""

    def __init__(self, ident: int, lost: Callable[[], int]) -> None:
        self.ident, self.lost = ident, lost
        self.sent_lost = 0
        self.drain_ns = 0
        """What emptying it has cost: time of a CPU, without waiting for a slow reader."""
        self.crowded = False
        """Whether the last drain found so much that the next one should not wait."""

    def timed_drain(self, send: Send) -> None:
        """The same, adding to ``drain_ns``."""
        began = time.thread_time_ns()
        self.drain(send)
        self.drain_ns += time.thread_time_ns() - began

    def drain(self, send: Send) -> None:
        """Send what is there."""
        raise NotImplementedError

    def report_losses(self, send: Send) -> None:
        """Tell of losses that no later record has told of."""
        lost = self.lost()
        if lost != self.sent_lost:
            self.sent_lost = lost
            send(self.ident, lost, b"")

    def _send(self, send: Send, data: Buffer) -> None:
        self.sent_lost = self.lost()
        send(self.ident, self.sent_lost, data)

    def mark(self) -> List[int]:
        """Where the producer of each part is now."""
        return []

    def behind(self, mark: List[int]) -> bool:
        """Whether something before ``mark`` may not be sent: it was still being written, say."""
        return False

    def reset(self) -> None:
        """Forget what has not been sent, and what was counted."""
        self.drain(lambda *_: None)
        self.sent_lost = self.drain_ns = 0

    def close(self) -> None:
        """Give back what was opened."""


class Ring:
    """A BPF ring buffer, mapped."""

    def __init__(self, fd: int, size_bytes: int) -> None:
        self.fd, self.size_bytes, self._mask = fd, size_bytes, size_bytes - 1
        self._consumer_page = mmap.mmap(fd, PAGE, mmap.MAP_SHARED)
        self._data_pages = mmap.mmap(
            fd, PAGE + 2 * size_bytes, mmap.MAP_SHARED, mmap.PROT_READ, offset=PAGE
        )
        self._consumer = memoryview(self._consumer_page)[:8].cast("Q")
        self._producer = memoryview(self._data_pages)[:8].cast("Q")
        self._data = memoryview(self._data_pages)[PAGE:]
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
        self.size_bytes = self.PAGES * PAGE

    def _record(self, cpu: int, data: int, size: int) -> None:
        self._pending += _HEADER.pack(size, cpu) + ct.string_at(data, size)
        self._pending += bytes(-len(self._pending) % 8)

    def drain(self, send: Send) -> None:
        consume = getattr(self._bpf, "perf_buffer_consume", None)  # BCC >= 0.20
        consume() if consume else self._bpf.perf_buffer_poll(timeout=0)
        pending, self._pending = self._pending, bytearray()
        if pending:
            self._send(send, pending)


class LinesStream(Stream):
    """Lines of a file that never ends: tracefs ``trace_pipe``."""

    def __init__(self, ident: int, path: str) -> None:
        super().__init__(ident, lost=lambda: 0)
        self.fds = [os.open(path, os.O_RDONLY | os.O_NONBLOCK)]

    def drain(self, send: Send) -> None:
        left = self.size_bytes  # others may print as fast as we read: they must not keep us here
        try:
            while left > 0 and (data := os.read(self.fds[0], min(64 << 10, left))):
                send(self.ident, 0, data)
                left -= len(data)
        except BlockingIOError:
            pass  # that was all
        self.crowded = left <= 0

    def behind(self, mark: List[int]) -> bool:
        """Whether more may be there. Nothing tells how much trace_pipe holds."""
        return self.crowded

    def reset(self) -> None:
        deadline = time.monotonic() + _CATCH_UP_SECONDS
        super().reset()
        while self.crowded and time.monotonic() < deadline:
            super().reset()

    def close(self) -> None:
        os.close(self.fds[0])


class Drain(threading.Thread):
    """The one thread that owns every stream of a session and empties them.

    Other threads hand it work through ``call``, so no stream needs a lock, and a stream that
    is removed is not in the middle of being read.
    """

    def __init__(self, send: Send, failed: Callable[[BaseException], None]) -> None:
        super().__init__(name="drain", daemon=True)
        self._send, self._failed = send, failed
        self._streams: Dict[int, Stream] = {}
        self._calls: "queue.SimpleQueue[Callable[[], None]]" = queue.SimpleQueue()
        self._wake_reader, self._wake_writer = os.pipe()
        self._epoll = select.epoll()
        self._epoll.register(self._wake_reader, select.EPOLLIN)

    def call(self, function: Callable[[], _T]) -> _T:
        """Run ``function`` in the drain thread between two sweeps; return what it returns."""
        done: "Future[_T]" = Future()

        def work() -> None:
            try:
                done.set_result(function())
            except Exception as error:
                done.set_exception(error)

        self._calls.put(work)
        os.write(self._wake_writer, b"!")
        return done.result()

    def add(self, stream: Stream) -> None:
        def register() -> None:
            self._streams[stream.ident] = stream
            for fd in stream.fds:
                self._epoll.register(fd, select.EPOLLIN)

        self.call(register)

    def remove(self, ident: int) -> None:
        """Stop reading a stream; what it still holds is not sent."""

        def unregister() -> None:
            stream = self._streams.pop(ident, None)
            for fd in stream.fds if stream else []:
                self._epoll.unregister(fd)

        self.call(unregister)

    def sync(self, idents: List[int]) -> None:
        """Send everything that was produced until now, losses included."""

        def drain_now() -> None:
            deadline = time.monotonic() + _CATCH_UP_SECONDS
            for stream in [self._streams[ident] for ident in idents if ident in self._streams]:
                mark = stream.mark()
                stream.timed_drain(self._send)
                while stream.behind(mark) and time.monotonic() < deadline:
                    time.sleep(0.001)
                    stream.timed_drain(self._send)
                stream.report_losses(self._send)

        self.call(drain_now)

    def _pause(self) -> None:
        """Let some records come together, unless somebody calls; or a BUSY one be finished.

        Without this a program that sends a record every 10 us wakes us, and the notebook, for
        each of them. The smaller the smallest buffer, the shorter.
        """
        smallest = min((stream.size_bytes for stream in self._streams.values()), default=0)
        pause = max(min(longest, smallest / rate) for longest, rate in _PAUSES)
        select.select([self._wake_reader], [], [], pause)

    def run(self) -> None:
        try:
            while True:
                ready = [fd for fd, _ in self._epoll.poll(_POLL_SECONDS)]
                # All of them: reading one perf buffer of a program reads its others as well.
                for stream in self._streams.values():
                    stream.timed_drain(self._send)
                if self._wake_reader in ready:
                    for _ in os.read(self._wake_reader, 4096):
                        self._calls.get()()
                elif not ready:
                    for stream in self._streams.values():
                        stream.report_losses(self._send)
                elif not any(stream.crowded for stream in self._streams.values()):
                    self._pause()
        except BaseException as error:
            self._failed(error)
