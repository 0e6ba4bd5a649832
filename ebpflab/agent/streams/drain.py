"""The one thread that empties all buffers of a session.

``sync`` makes it drain what is there now, so that a reader who asks for "everything until this
moment" gets exactly that.
"""

import os
import queue
import select
import threading
import time
from concurrent.futures import Future
from typing import Callable, Dict, List, TypeVar

from ebpflab.agent.streams.stream import CATCH_UP_SECONDS, Send, Stream

_T = TypeVar("_T")

_POLL_SECONDS = 0.1  # a discard with NO_WAKEUP can swallow the next adaptive wake-up
# The longest pause, and the rate that it has to stand: at a quarter of this a pause fills a quarter
# of the buffer. A short pause stands what probes send, a long one the most that a ring can take.
_PAUSES = ((0.001, 256 << 20), (0.01, 2 << 30))


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
            deadline = time.monotonic() + CATCH_UP_SECONDS
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
