"""What arrives from the traced machine: kept as it came, counted, and handed out.

Records arrive in a background thread and are kept as the bytes they came in; they become columns
only when somebody looks. `EventSource.collect` hands out each row once, `EventSource.frame` shows
all that is kept. A sync request makes the agent send what the kernel holds at that moment, so what
a workload did before the call is in the result, without sleeping and hoping.
"""

from __future__ import annotations

import math
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from ebpflab import arguments
from ebpflab.decode.frames import now
from ebpflab.display.progress import notice
from ebpflab.protocol import messages
from ebpflab.transport.connection import Connection

if TYPE_CHECKING:
    from ebpflab.recordings import Recorder

_WAIT_STEP_SECONDS = 0.25
_KEEP_BYTES = 256 << 20


def limits(seconds: float | None, rows: int | None) -> tuple[float | None, int | None]:
    """How long, and for how many rows, to wait. Raises ValueError for what is no such number."""
    return (
        None if seconds is None else arguments.seconds("seconds", seconds),
        None if rows is None else arguments.whole("rows", rows, 0),
    )


class EventSource(ABC):
    """What arrives from one place of the traced machine, in order.

    The newest 256 MiB of records are kept, unless `keep` says otherwise.
    """

    def __init__(
        self, name: str, connection: Connection, ident: int, attrs: dict[str, object]
    ) -> None:
        self.name = name
        self._connection, self._ident = connection, ident
        self._arrived = threading.Condition()
        self._batches: deque[tuple[int, bytes]] = deque()  # (rows, bytes)
        self._bytes = self._rows = self._taken = 0
        self._attrs, self._started = attrs, now()
        self._recorders: tuple[Recorder, ...] = ()
        self._most_rows, self._most_bytes = sys.maxsize, _KEEP_BYTES
        self._spill: Recorder | None = None
        self._told_lost = 0
        self.lost = 0
        """Records that the kernel could not hand over because the buffer was full. Exact."""
        self.dropped = 0
        """Rows that arrived, and were let go because no more are kept."""
        self.spilled = 0
        """Rows that arrived, and were moved into the file of ``keep(spill=...)``."""
        connection.listen(ident, self._receive)

    def frame(self) -> pd.DataFrame:
        """Return everything that has arrived and is kept, up to this moment.

        The columns are those of the class. ``attrs`` has what `Lab.attrs` has, and lost, dropped
        and spilled (numbers of rows), start and end (times, UTC, as text). Prints a line when
        records were lost since the last such line.

        >>> lab.run(["/bin/ls", "-l", "/"]).returncode
        0
        >>> prog["starts"].frame()[["comm", "filename", "arg1"]]
              comm filename arg1
        0  python3  /bin/ls   -l
        """
        self._sync()
        with self._arrived:
            batches = list(self._batches)
        self._tell_losses()
        return self._with_attrs(self._decode([data for _, data in batches], 0))

    def collect(self, seconds: float | None = None, rows: int | None = None) -> pd.DataFrame:
        """Return the rows that no earlier ``collect`` has returned.

        Waits until ``seconds`` have passed or ``rows`` rows are there, whichever comes first; with
        neither it returns at once. At most ``rows`` rows are returned, and columns and ``attrs``
        are those of `frame`. Rows that `keep` has dropped or spilled meanwhile count towards
        ``rows``, and are not returned. Interrupting the kernel (Ctrl-C) ends the wait and returns
        the rows so far, with ``attrs["interrupted"]`` set. A recording never waits.

        Raises ValueError when ``seconds`` or ``rows`` is negative or no number; TargetError when
        the agent ends during the wait.

        >>> lab.run(["/bin/ls", "-l", "/"]).returncode
        0
        >>> len(prog["starts"].collect(seconds=5, rows=1))
        1
        """
        seconds, rows = limits(seconds, rows)
        interrupted = False
        began = time.monotonic()
        try:
            self._wait(seconds, rows, began)
            self._sync()
        except KeyboardInterrupt:
            interrupted = True
        frame = self._take(rows)
        if interrupted:
            frame.attrs["interrupted"] = True
            notice(f"Interrupted after {time.monotonic() - began:.1f} s: {len(frame)} rows so far.")
        self._tell_losses()
        return frame

    def keep(
        self,
        rows: int | None = None,
        size_bytes: int | None = None,
        spill: str | Path | None = None,
    ) -> None:
        """From now on, keep at most ``rows`` rows, and records of at most ``size_bytes`` bytes.

        Bytes are those of the kernel's buffer: a row of a ring buffer takes 8 more than the C
        struct, rounded up to a multiple of 8. ``rows`` alone lifts the limit of bytes; ``keep()``
        returns to 256 MiB. The oldest rows go first, and are counted in ``dropped``, apart from
        rows ``lost`` in the kernel. With ``spill``, a path, they go into a recording instead
        (`open_recording`), which ends with the next `keep` or the program, and are counted in
        ``spilled``: so every row is either there or in `frame`. `collect` does not return them.

        Raises ValueError for a limit below 1; RecordingError when the file cannot be made.

        >>> prog["starts"].keep(rows=5, spill="older.arrows")
        >>> shell = lab.run(["/bin/sh", "-c", script])
        >>> len(prog["starts"].frame()), prog["starts"].spilled
        (5, 14)
        """
        if rows is not None:
            rows = arguments.whole("rows", rows, 1)
        if size_bytes is not None:
            size_bytes = arguments.whole("size_bytes", size_bytes, 1)
        recorder = None if spill is None else self._recorder(spill, sync=lambda: None)
        self._sync()
        with self._arrived:
            default = _KEEP_BYTES if rows is None else sys.maxsize
            self._most_rows = sys.maxsize if rows is None else rows
            self._most_bytes = default if size_bytes is None else size_bytes
            before, self._spill = self._spill, recorder
            self._let_go()
        if before is not None:
            before.close()

    if not TYPE_CHECKING:  # a type checker knows better what is not here

        def __getattr__(self, name: str) -> Any:
            raise AttributeError(
                f"{self.__dict__.get('name', '')!r} is a stream of events and has no .{name}. Read"
                " it with .collect(seconds=..., rows=...) or .frame(); histograms and counts are"
                " in tables."
            )

    @property
    def waiting(self) -> int:
        """Return how many rows no ``collect`` has returned yet, dropped and spilled ones included.

        >>> prog["starts"].waiting
        0
        """
        return self._rows - self._taken

    @property
    def arrived(self) -> int:
        """Return how many rows have ever arrived, dropped and spilled ones included.

        >>> prog["starts"].arrived
        0
        """
        return self.dropped + self.spilled + self._rows

    def _since(self, row: int) -> tuple[int, list[tuple[int, bytes]]]:
        """How many rows have ever arrived, and the kept batches with those after number ``row``.

        A batch is (rows, bytes). A look: nothing is taken from what `collect` hands out. Exact
        where ``row`` is what an earlier call returned, since batches arrive whole.
        """
        found: list[tuple[int, bytes]] = []
        with self._arrived:
            arrived = first = self.arrived
            for count, data in reversed(self._batches):
                if first <= row:
                    break
                found.append((count, data))
                first -= count
        return arrived, found[::-1]

    def close(self) -> None:
        """Stop receiving. Rows that have arrived stay readable, and a file of `keep` is ended.

        >>> prog["starts"].close()
        >>> len(prog["starts"])
        0
        """
        self._connection.ignore(self._ident, self._receive)
        if self._spill is not None:
            self._spill.close()

    def record(self, path: str | Path) -> Recorder:
        """Write every row that arrives from now on into a file, until its ``close``.

        ``path`` is the file, which is overwritten. Returns a recorder: a context manager with
        ``rows``, the number in the file. The file is an Arrow IPC stream, which can be read even
        when it is cut off; see `ebpflab.open_recording`. When the disk is full, recording ends with
        a line printed, and the stream goes on. Raises RecordingError when the file cannot be made.

        Source: the Arrow columnar format, "IPC Streaming Format".

        >>> with prog["starts"].record("starts.arrows") as recorder:
        ...     shell = lab.run(["/bin/sh", "-c", script])
        >>> recorder
        <Recorder 'starts.arrows': 18 rows recorded, 0 lost>
        """
        self._sync()
        recorder = self._recorder(path, self._sync)
        self._recorders = (*self._recorders, recorder)
        return recorder

    def _recorder(self, path: str | Path, sync: Callable[[], None]) -> Recorder:
        from ebpflab.recordings import Recorder  # Arrow takes a while to import

        attrs = {**self._attrs, "stream": self.name, "start": now()}
        return Recorder(path, attrs, sync, self._forget)

    def _forget(self, recorder: Recorder) -> None:
        self._recorders = tuple(each for each in self._recorders if each is not recorder)

    def __len__(self) -> int:
        return self._rows

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}: {self._account}, {self._bytes:,} bytes>"

    @property
    def _account(self) -> str:
        """How many rows are kept, and what became of the others."""
        gone = (("dropped", self.dropped), ("spilled", self.spilled))
        facts = [f"{self._rows:,} rows", f"{self.lost:,} lost"]
        return ", ".join(facts + [f"{many:,} {name}" for name, many in gone if many])

    def _tell_losses(self) -> None:
        if self.lost > self._told_lost:
            self._told_lost = self.lost
            notice(
                f"{self.name}: {self.lost:,} events were lost in the kernel because the buffer was"
                " full. Make it larger (its second argument, in pages), or send less."
            )

    # -- receiving ---------------------------------------------------------------------------

    def _receive(self, lost: int, data: bytes) -> None:
        count = self._count(data)
        with self._arrived:
            self.lost = lost
            if count:
                self._batches.append((count, data))
                self._rows += count
                self._bytes += len(data)
            self._let_go()
            self._arrived.notify_all()
        if self._recorders and count:
            frame = self._decode([data], 0)
            for recorder in self._recorders:
                recorder.write(frame, lost)

    def _let_go(self) -> None:
        """Drop or spill the oldest rows, until no more are kept than were asked for."""
        while self._rows > self._most_rows or self._bytes > self._most_bytes:
            rows, data = self._batches.popleft()
            # Of a batch that is to stay in part: as many rows as are too many.
            excess = (self._bytes - self._most_bytes) * rows / len(data)
            excess = max(self._rows - self._most_rows, excess)
            old, rest = self._cut(data, min(rows, math.ceil(excess)))
            gone = self._count(old)
            if rows > gone:
                self._batches.appendleft((rows - gone, rest))
            else:
                rest = b""
            self._rows -= gone
            self._bytes -= len(data) - len(rest)
            self._taken -= gone  # below 0 when some are gone that no `collect` has returned
            if self._spill is not None and self._spill.write(self._decode([old], 0), self.lost):
                self.spilled += gone
            else:
                self.dropped += gone

    def _wait(self, seconds: float | None, rows: int | None, began: float) -> None:
        if (seconds is None and rows is None) or self._connection.recorded:
            return
        deadline = None if seconds is None else began + seconds
        with self._arrived:
            while rows is None or self.waiting < rows:
                if self._connection.lost is not None:
                    raise self._connection.gone()
                left = _WAIT_STEP_SECONDS if deadline is None else deadline - time.monotonic()
                if left <= 0:
                    return
                self._arrived.wait(min(left, _WAIT_STEP_SECONDS))

    def _sync(self) -> None:
        if self._connection.lost is None:
            self._connection.request(messages.SYNC, messages.Sync(streams=[self._ident]))

    def _take(self, rows: int | None) -> pd.DataFrame:
        with self._arrived:
            start, gone = max(self._taken, 0), max(-self._taken, 0)
            end = self._rows if rows is None else min(self._rows, start + rows)
            wanted: list[bytes] = []
            skip = seen = 0
            for count, data in self._batches:
                if seen + count > start and seen < end:
                    if not wanted:
                        skip = start - seen
                    wanted.append(data)
                seen += count
            self._taken = end
        if rows is not None and gone and end - start < rows:
            notice(
                f"{self.name}: {end - start:,} rows instead of {rows:,}, because no more are kept:"
                f" {gone:,} before them are gone. Keep more of them: .keep(rows={rows})."
            )
        return self._with_attrs(self._decode(wanted, skip).iloc[: end - start])

    def _ordered(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The rows in the order in which they are shown; here, as they arrived."""
        return frame

    def _with_attrs(self, frame: pd.DataFrame) -> pd.DataFrame:
        frame = self._ordered(frame)
        frame.attrs.update(
            self._attrs,
            lost=self.lost,
            dropped=self.dropped,
            spilled=self.spilled,
            start=self._started,
            end=now(),
        )
        return frame

    @abstractmethod
    def _count(self, data: bytes) -> int:
        """How many rows a batch holds."""

    @abstractmethod
    def _cut(self, data: bytes, rows: int) -> tuple[bytes, bytes]:
        """A batch as two: its first ``rows`` rows, and the others."""

    @abstractmethod
    def _decode(self, batches: list[bytes], skip: int) -> pd.DataFrame:
        """The rows of ``batches``, without the first ``skip``."""
