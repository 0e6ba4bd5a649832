"""Streams: events that a program sends, as DataFrames.

Records arrive in a background thread and are kept as the bytes they came in; they become columns
only when somebody looks. `Stream.collect` hands out each row once, `Stream.frame` shows all that
is kept. A sync request makes the agent send what the kernel holds at that moment, so what a
workload did before the call is in the result, without sleeping and hoping.
"""

from __future__ import annotations

import re
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd

from ebpflab import frames
from ebpflab.connection import Connection
from ebpflab.errors import ProgramError, UnknownName, suggest
from ebpflab.progress import notice

if TYPE_CHECKING:
    from ebpflab.live import Live
    from ebpflab.live.widget import Traced
    from ebpflab.recordings import Recorder

_WAIT_STEP_SECONDS = 0.25


class EventSource(ABC):
    """What arrives from one place of the traced machine, in order."""

    KEEP_BYTES: ClassVar[int] = 256 << 20
    """The oldest batches beyond this are dropped, and counted in ``dropped``."""

    def __init__(
        self, name: str, connection: Connection, ident: int, attrs: dict[str, Any]
    ) -> None:
        self.name = name
        self._connection, self._ident = connection, ident
        self._arrived = threading.Condition()
        self._batches: deque[tuple[int, bytes]] = deque()  # (rows, bytes)
        self._bytes = self._rows = self._taken = 0
        self._attrs, self._started = attrs, pd.Timestamp.now(tz="UTC")
        self._recorders: tuple[Recorder, ...] = ()
        self.lost = 0
        """Records that the kernel could not hand over because the buffer was full. Exact."""
        self.dropped = 0
        """Rows that arrived and were let go because more than KEEP_BYTES were kept."""
        connection.listen(ident, self._receive)

    def frame(self) -> pd.DataFrame:
        """Everything that has arrived and is kept, up to this moment, as a DataFrame.

        ``attrs`` carries lost, dropped, kernel, bcc, target, start and end (UTC).
        """
        self._sync()
        with self._arrived:
            batches = list(self._batches)
        return self._with_attrs(self._decode([data for _, data in batches], 0))

    def collect(self, seconds: float | None = None, rows: int | None = None) -> pd.DataFrame:
        """The rows that no earlier ``collect`` has returned.

        Waits until ``seconds`` have passed or ``rows`` rows are there, whichever comes first;
        with neither it returns at once. Interrupting the kernel (Ctrl-C) ends the wait and
        returns the rows so far, with ``attrs["interrupted"]`` set. The lab stays usable.

        >>> events = prog["events"].collect(seconds=5, rows=100)      # doctest: +SKIP
        """
        if rows is not None and rows < 0:
            raise ValueError(f"rows= is how many to wait for, 0 or more, and is {rows}")
        if seconds is not None and seconds < 0:
            raise ValueError(f"seconds= is how long to wait, 0 or more, and is {seconds}")
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
        if self.lost:
            notice(
                f"{self.name}: {self.lost:,} events were lost in the kernel because the buffer was"
                " full. Make it larger (its second argument, in pages), or send less."
            )
        return frame

    if not TYPE_CHECKING:  # a type checker knows better what is not here

        def __getattr__(self, name: str) -> Any:
            raise AttributeError(
                f"{self.__dict__.get('name', '')!r} is a stream of events and has no .{name}. Read"
                " it with .collect(seconds=..., rows=...) or .frame(); histograms and counts are"
                " in tables."
            )

    @property
    def waiting(self) -> int:
        """How many rows have arrived that no ``collect`` has returned."""
        return self._rows - self._taken

    def since(self, row: int) -> tuple[int, list[tuple[int, bytes]]]:
        """How many rows have ever arrived, and the kept batches with those after number ``row``.

        A batch is (rows, bytes). A look: nothing is taken from what `collect` hands out. Exact
        where ``row`` is what an earlier call returned, since batches arrive whole.
        """
        found: list[tuple[int, bytes]] = []
        with self._arrived:
            arrived = first = self.dropped + self._rows
            for count, data in reversed(self._batches):
                if first <= row:
                    break
                found.append((count, data))
                first -= count
        return arrived, found[::-1]

    def close(self) -> None:
        """Stop receiving. What has arrived stays readable."""
        self._connection.ignore(self._ident, self._receive)

    def record(self, path: str | Path) -> Recorder:
        """Write every row that arrives from now on into a file, until its ``close``.

        The file is an Arrow IPC stream, which can be read even when it is cut off; see
        `ebpflab.open_recording`. Raises RecordingError when the file cannot be made.

        >>> with prog["reads"].record("reads.arrows"):                # doctest: +SKIP
        ...     lab.run(["dd", "if=/dev/zero", "of=/dev/null", "count=1000"])
        """
        from ebpflab.recordings import Recorder  # Arrow takes a while to import

        attrs = {**self._attrs, "stream": self.name, "start": pd.Timestamp.now(tz="UTC")}
        self._sync()
        recorder = Recorder(path, attrs, self._sync, self._forget)
        self._recorders = (*self._recorders, recorder)
        return recorder

    def _forget(self, recorder: Recorder) -> None:
        self._recorders = tuple(each for each in self._recorders if each is not recorder)

    def __len__(self) -> int:
        return self._rows

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} {self.name!r}: {self._rows:,} rows, {self.lost:,} lost,"
            f" {self._bytes:,} bytes>"
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
            while self._bytes > self.KEEP_BYTES and len(self._batches) > 1:
                old, let_go = self._batches.popleft()
                self._rows -= old
                self._bytes -= len(let_go)
                self._taken = max(self._taken - old, 0)
                self.dropped += old
            self._arrived.notify_all()
        if self._recorders and count:
            frame = self._decode([data], 0)
            for recorder in self._recorders:
                recorder.write(frame, lost)

    def _wait(self, seconds: float | None, rows: int | None, began: float) -> None:
        if (seconds is None and rows is None) or self._connection.recorded:
            return
        deadline = None if seconds is None else began + seconds
        with self._arrived:
            while rows is None or self._rows - self._taken < rows:
                if self._connection.lost is not None:
                    raise self._connection.lost
                left = _WAIT_STEP_SECONDS if deadline is None else deadline - time.monotonic()
                if left <= 0:
                    return
                self._arrived.wait(min(left, _WAIT_STEP_SECONDS))

    def _sync(self) -> None:
        if self._connection.lost is None:
            self._connection.request("sync", streams=[self._ident])

    def _take(self, rows: int | None) -> pd.DataFrame:
        with self._arrived:
            end = self._rows if rows is None else min(self._rows, self._taken + rows)
            wanted: list[bytes] = []
            skip = seen = 0
            for count, data in self._batches:
                if seen + count > self._taken and seen < end:
                    if not wanted:
                        skip = self._taken - seen
                    wanted.append(data)
                seen += count
            taken, self._taken = end - self._taken, end
        return self._with_attrs(self._decode(wanted, skip).iloc[:taken])

    def _with_attrs(self, frame: pd.DataFrame) -> pd.DataFrame:
        frame.attrs.update(
            self._attrs,
            lost=self.lost,
            dropped=self.dropped,
            start=self._started,
            end=pd.Timestamp.now(tz="UTC"),
        )
        return frame

    @abstractmethod
    def _count(self, data: bytes) -> int:
        """How many rows a batch holds."""

    @abstractmethod
    def _decode(self, batches: list[bytes], skip: int) -> pd.DataFrame:
        """The rows of ``batches``, without the first ``skip``."""


class Stream(EventSource):
    """A ring or perf buffer of a program: the C struct's fields are the columns."""

    def __init__(
        self,
        name: str,
        connection: Connection,
        ident: int,
        attrs: dict[str, Any],
        layout: frames.Layout,
        per_cpu: bool,
        program: weakref.ref[Traced],
    ) -> None:
        self.layout, self._per_cpu, self._program = layout, per_cpu, program
        super().__init__(name, connection, ident, attrs)

    def live(self, column: str | None = None) -> Live:
        """A view that moves: events per second, how ``column`` is spread, the last rows, lost.

        ``column`` is a column of numbers; without it, a duration or a size where there is one. It
        starts at once: a program that was detached is attached again. Its *stop* detaches the
        program, and *start* attaches what was attached. It looks, and takes no row away from
        `collect`. Running the cell again, clearing its output or closing the program ends it,
        and leaves the last picture. Raises UnknownName, with the closest columns.

        >>> live = prog["events"].live()                              # doctest: +SKIP
        """
        from ebpflab.live import Live  # widgets take their time to import
        from ebpflab.live.sources import StreamSource, numeric

        program = self._program()
        if program is None or program.closed:
            raise ProgramError(f"Nothing arrives in {self.name!r} any more: its program is closed.")
        known = numeric(self.layout)
        if column is not None and column not in known:
            have = ", ".join(known) or "none"
            raise UnknownName(
                f"{self.name!r} has no column of numbers {column!r}. It has:"
                f" {have}.{suggest(column, known)}"
            )
        return Live(StreamSource(self, column), program, self._sync)

    def decode(self, batches: list[bytes], skip: int) -> pd.DataFrame:
        """The rows of ``batches`` (see `since`), without the first ``skip`` of the first one."""
        return self._decode(batches, skip)

    def _count(self, data: bytes) -> int:
        return frames.count_records(data)

    def _decode(self, batches: list[bytes], skip: int) -> pd.DataFrame:
        if not self.layout.described:
            return pd.DataFrame({"data": frames.raw_records(b"".join(batches), skip)})
        parts = [frames.records(batch, self.layout.dtype) for batch in batches]
        if not parts:
            parts = [frames.records(b"", self.layout.dtype)]
        data, cpus = [data for data, _ in parts], [cpus for _, cpus in parts]
        data[0], cpus[0] = data[0][skip:], cpus[0][skip:]  # rows of one batch, at most
        columns = frames.columns(data, self.layout)
        if self._per_cpu and "cpu" not in columns:
            columns["cpu"] = np.concatenate(cpus)
        return pd.DataFrame(columns, copy=False)


_LINE = re.compile(
    r"^\s*(?P<task>.*)-(?P<tid>\d+)\s+(?:\(\s*[\d-]+\)\s+)?\[(?P<cpu>\d+)\]\s+"
    r"(?P<flags>\S{4,5})\s+(?P<time_s>[\d.]+):\s+(?P<function>\S+?):\s?(?P<message>.*)$"
)
_LOST_LINE = re.compile(r"^CPU:\d+ \[LOST (\d+) EVENTS\]")


class Messages(EventSource):
    """Lines of ``bpf_trace_printk``, every field of trace_pipe a column.

    trace_pipe is one for the whole machine: lines of other programs appear as well, and another
    reader of it takes lines away. Columns: task, tid (what trace_pipe prints is the thread id),
    cpu, flags, time_s (seconds since boot), function, message.
    Source: Documentation/trace/ftrace.rst.
    """

    def __init__(self, connection: Connection, ident: int, attrs: dict[str, Any]) -> None:
        self._partial = b""
        super().__init__("messages", connection, ident, attrs)

    def _receive(self, lost: int, data: bytes) -> None:
        data = self._partial + data
        whole, newline, self._partial = data.rpartition(b"\n")
        for line in whole.split(b"\n"):
            gone = _LOST_LINE.match(line.decode(errors="replace"))
            self.lost += int(gone.group(1)) if gone else 0
        super()._receive(self.lost, whole + newline)

    def _count(self, data: bytes) -> int:
        return len(self._rows_of(data))

    def _rows_of(self, data: bytes) -> list[dict[str, str]]:
        lines = data.decode(errors="replace").split("\n")
        return [found.groupdict() for line in lines if (found := _LINE.match(line))]

    def _decode(self, batches: list[bytes], skip: int) -> pd.DataFrame:
        rows = self._rows_of(b"".join(batches).removesuffix(b"\n"))[skip:]
        frame = pd.DataFrame(rows, columns=list(_LINE.groupindex))
        return frame.astype({"tid": "int64", "cpu": "int64", "time_s": "float64"})
