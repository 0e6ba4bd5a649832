"""What the drain thread needs of a stream, whatever it reads from."""

import time
from typing import Callable, List

from ebpflab.protocol.framing import Buffer

Send = Callable[[int, int, Buffer], None]
"""``send(stream id, lost so far, bytes)``; blocks while the reader is slow."""

CATCH_UP_SECONDS = 1.0
"""For a producer that was interrupted and has to wait for its CPU, or one that is as fast as we."""


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
