"""Streams: events that a program sends, as DataFrames. How they are kept is in `arrivals`."""

from __future__ import annotations

import math
import re
import weakref
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ebpflab.arrivals import EventSource
from ebpflab.decode import frames
from ebpflab.errors import ProgramError, UnknownName
from ebpflab.protocol.closest import suggest
from ebpflab.transport.connection import Connection

if TYPE_CHECKING:
    from ebpflab.live import Live
    from ebpflab.live.widget import Traced

_TIME = "time_ns"


class Stream(EventSource):
    """A ring or perf buffer of a program: the C struct's fields are the columns.

    Numbers have the dtype of their C type (``u32`` is uint32), and a ``char`` array is text, up to
    its first NUL; from 10,000 rows on, repeated texts are a categorical. An enum is a categorical
    of its names. A perf buffer adds ``cpu`` (uint32). Where the struct is not known, each row is
    the bytes of a record, in a column ``data``.

    ``EBPFLAB_RINGS(events, pages)`` declares a ring for each CPU, for several that send a lot. It
    is one stream; where the struct has a field ``time_ns``, the rows of each DataFrame are in the
    order of that, and otherwise each ring's in their own.

    >>> prog["starts"]
    <Stream 'starts': 0 rows, 0 lost, 0 bytes>
    >>> prog["starts"].frame().dtypes[["time_ns", "pid", "ppid", "uid"]].astype(str).to_list()
    ['uint64', 'uint32', 'uint32', 'uint32']
    """

    def __init__(
        self,
        name: str,
        connection: Connection,
        ident: int,
        attrs: dict[str, object],
        layout: frames.Layout,
        per_cpu: bool,
        rings: bool,
        program: weakref.ref[Traced],
    ) -> None:
        self.layout, self._per_cpu, self._program = layout, per_cpu, program
        self._merged = rings and _TIME in (each.name for each in layout.columns)
        super().__init__(name, connection, ident, attrs)

    def live(self, column: str | None = None) -> Live:
        """Return a view that moves: events per second, how ``column`` is spread, last rows, losses.

        ``column`` is a column of numbers; without it, a duration or a size where there is one. It
        starts at once: a program that was detached is attached again. Its *stop* detaches the
        program, and *start* attaches what was attached. It takes no row away from `collect`.
        Running the cell again, clearing its output or closing the program ends it, and leaves the
        last picture.

        Raises UnknownName, with the closest columns; ProgramError when the program is closed.

        >>> live = prog["calls"].live("latency_ns")
        >>> live.stop()
        >>> live.close()
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

    def _cost(self, drain_ns: int | None) -> dict[str, float]:
        """For `Program.stats`: what has arrived, what was lost, and what reading one took."""
        sent, known = self.arrived + self.lost, drain_ns or math.nan
        return {
            "events": self.arrived,
            "lost": self.lost,
            "share_lost": self.lost / sent if sent else math.nan,
            "drain_ns_per_event": known / self.arrived if self.arrived else math.nan,
        }

    def _count(self, data: bytes) -> int:
        return frames.count_records(data)

    def _cut(self, data: bytes, rows: int) -> tuple[bytes, bytes]:
        at = frames.end_of(data, rows)
        return data[:at], data[at:]

    def _ordered(self, frame: pd.DataFrame) -> pd.DataFrame:
        if self._merged and not frame[_TIME].is_monotonic_increasing:
            return frame.sort_values(_TIME, kind="stable", ignore_index=True)
        return frame

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
    reader of it takes lines away. Columns: task (text), tid (int64: what trace_pipe prints is the
    thread id), cpu (int64), flags (text), time_s (float64, seconds since boot), function and
    message (text). Source: Documentation/trace/ftrace.rst.

    >>> shell = lab.run(["/bin/sh", "-c", "/bin/ls / > /dev/null; /bin/date"])
    >>> prog.messages.collect(seconds=5, rows=3)["message"].to_list()
    ['executing program: python3', 'executing program: sh', 'executing program: sh']
    """

    def __init__(self, connection: Connection, ident: int, attrs: dict[str, object]) -> None:
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

    def _cut(self, data: bytes, rows: int) -> tuple[bytes, bytes]:
        lines = data.splitlines(keepends=True)
        return b"".join(lines[:rows]), b"".join(lines[rows:])

    def _rows_of(self, data: bytes) -> list[dict[str, str]]:
        lines = data.decode(errors="replace").split("\n")
        return [found.groupdict() for line in lines if (found := _LINE.match(line))]

    def _decode(self, batches: list[bytes], skip: int) -> pd.DataFrame:
        rows = self._rows_of(b"".join(batches).removesuffix(b"\n"))[skip:]
        frame = pd.DataFrame(rows, columns=list(_LINE.groupindex))
        return frame.astype({"tid": "int64", "cpu": "int64", "time_s": "float64"})
