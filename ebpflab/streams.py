"""Streams: events that a program sends, as DataFrames. How they are kept is in `arrivals`."""

from __future__ import annotations

import math
import re
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING

import pandas as pd

from ebpflab.arrivals import EventSource
from ebpflab.decode import records, spans
from ebpflab.decode.btf import Types
from ebpflab.display.progress import notice
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
    of its names. A perf buffer adds ``cpu`` (uint32).

    Which struct it is, clang tells, of each call that sends. Where several are sent, a row's is
    named in a column ``struct``, and the columns of the others are NA in it. Where the struct is
    not known, each row is the bytes of a record, in a column ``data``, as is a record that is
    longer than its struct; see `typed`. What a shorter one has not is NA.

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
        known: records.RecordTypes,
        types: Types | None,
        per_cpu: bool,
        rings: bool,
        program: weakref.ref[Traced],
    ) -> None:
        self._known, self._types, self._per_cpu, self._program = known, types, per_cpu, program
        self._rings, self._told_misfits = rings, False
        super().__init__(name, connection, ident, attrs)

    def typed(self, type: str | Mapping[int, str], tag: str | None = None) -> Stream:
        """Say of which type the records are, where clang cannot; the stream itself is returned.

        ``type`` is a type of the program, as C calls it: ``"struct event"``, ``"u64"``. Records
        may be longer. For several types, ``tag`` names a whole number that all have at the same
        place, and ``type`` says which number means which: ``{0: "struct start", 1: "struct end"}``.
        Rows that have arrived are read anew, too.

        Raises UnknownName for a type that the program does not have, or does not use in a map or
        buffer; ProgramError for one that no column can be made of, and for a ``tag`` that is not
        in all.

        >>> prog["starts"].typed("struct start")
        <Stream 'starts': 0 rows, 0 lost, 0 bytes>
        """
        if (tag is None) != isinstance(type, str):
            raise ProgramError(
                f"{self.name!r}: .typed() takes one type, .typed('struct event'), or several by the"
                " number in a field: .typed({0: 'struct start', 1: 'struct end'}, tag='kind')."
            )
        if isinstance(type, str):
            self._known = records.RecordTypes((self._type(type),))
            return self
        assert tag is not None
        try:
            self._known = records.tagged({n: self._type(each) for n, each in type.items()}, tag)
        except ValueError as error:
            raise ProgramError(f"{self.name!r}: {error}.") from None
        return self

    def _type(self, name: str) -> records.RecordType:
        known = {} if self._types is None else self._types.named()
        wanted = " ".join(name.split())
        if self._types is None or wanted not in known:
            raise UnknownName(
                f"The program has no type {name!r} in a map or in a call that sends."
                f"{suggest(wanted, known)}"
            )
        kind = records.record_type(self._types, known[wanted], self._per_cpu)
        if not kind.layout.described:
            raise ProgramError(f"{name!r} has no value that a column could show.")
        return kind._replace(exact=False, filled=0)

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
        known = numeric(self._known.layout)
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
        return spans.count_records(data)

    def _cut(self, data: bytes, rows: int) -> tuple[bytes, bytes]:
        at = spans.end_of(data, rows)
        return data[:at], data[at:]

    def _ordered(self, frame: pd.DataFrame) -> pd.DataFrame:
        merged = self._rings and _TIME in frame
        if merged and not frame[_TIME].is_monotonic_increasing:
            return frame.sort_values(_TIME, kind="stable", ignore_index=True)
        return frame

    def _decode(self, batches: list[bytes], skip: int) -> pd.DataFrame:
        frame, misfits = records.decode(batches, skip, self._known, self._per_cpu)
        if misfits and not self._told_misfits:
            self._told_misfits = True
            lengths = ", ".join(f"{length:,}" for length in misfits)
            types = " or ".join(f"{each.name} ({each.length:,})" for each in self._known.kinds)
            notice(
                f"{self.name}: records of {lengths} bytes are not a {types}, and are shown as bytes"
                " in a column of their own. Where you know that they begin with one, say it:"
                " .typed('struct event')."
            )
        return frame


_LINE = re.compile(
    r"^\s*(?P<task>.*)-(?P<tid>\d+)\s+(?:\(\s*[\d-]+\)\s+)?\[(?P<cpu>\d+)\]\s+"
    r"(?P<flags>\S{4,5})\s+(?P<time_s>[\d.]+):\s+(?P<function>\S+?):\s?(?P<message>.*)$",
    re.DOTALL,
)
_TASK_WIDTH = 16  # trace_print_context: "%16s-%-7d"
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
        data = whole + newline
        entries = _entries(data)
        rest = data[: max(data.find(entries[0]), 0)] if entries else data
        with self._arrived:
            if rest and self._batches:  # of an entry that was cut in two on its way
                count, before = self._batches.pop()
                self._batches.append((count, before + rest))
                self._bytes += len(rest)
        super()._receive(self.lost, b"".join(entries))

    def _count(self, data: bytes) -> int:
        return len(_entries(data))

    def _cut(self, data: bytes, rows: int) -> tuple[bytes, bytes]:
        entries = _entries(data)
        return b"".join(entries[:rows]), b"".join(entries[rows:])

    def _decode(self, batches: list[bytes], skip: int) -> pd.DataFrame:
        entries = [each for batch in batches for each in _entries(batch)][skip:]
        found = [_LINE.match(each.decode(errors="replace").rstrip("\n")) for each in entries]
        rows = [each.groupdict() for each in found if each]
        frame = pd.DataFrame(rows, columns=list(_LINE.groupindex))
        return frame.astype({"tid": "int64", "cpu": "int64", "time_s": "float64"})


def _entries(data: bytes) -> list[bytes]:
    """Whole entries of trace_pipe. One has several lines where its text has, or its task's name."""
    entries: list[bytes] = []
    loose: list[bytes] = []  # lines that begin no entry
    for line in re.findall(rb"[^\n]*\n|[^\n]+", data):
        found = _LINE.match(line.decode(errors="replace").removesuffix("\n"))
        if _LOST_LINE.match(line.decode(errors="replace")):
            continue
        if not found:
            loose.append(line)
            continue
        # A name is filled up with blanks to its width, so a shorter one began in a line before.
        name: list[bytes] = []
        width = len(line[: line.index(f"-{found['tid']}".encode())])
        while loose and sum(map(len, name)) + width < _TASK_WIDTH:
            name.insert(0, loose.pop())
        if entries:
            entries[-1] += b"".join(loose)
        loose = []
        entries.append(b"".join([*name, line]))
    if entries:
        entries[-1] += b"".join(loose)
    return entries
