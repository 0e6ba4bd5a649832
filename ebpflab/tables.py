"""Tables: BPF maps read as DataFrames, and histograms made in the kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from ebpflab import frames
from ebpflab.connection import Connection
from ebpflab.errors import ProgramError

_PER_CPU = (5, 6, 10)  # PERCPU_HASH, PERCPU_ARRAY, LRU_PERCPU_HASH in enum bpf_map_type


class Table:
    """A hash, array, per-CPU map or histogram of a program."""

    def __init__(
        self, program: int, described: dict[str, Any], connection: Connection, attrs: dict[str, Any]
    ) -> None:
        self.name: str = described["name"]
        self._program, self._connection, self._attrs = program, connection, attrs
        self._key = frames.layout_of(described["key"], described["key_size"], "key")
        self._value = frames.layout_of(described["value"], described["value_size"], "value")
        self._cpus = described["cpus"] if described["type"] in _PER_CPU else 0

    def frame(self) -> pd.DataFrame:
        """All entries, one a row: the key's columns, then the value's.

        A scalar key or value is called ``key`` or ``value``. A per-CPU map has a row for each
        entry and CPU, with a column ``cpu``. A name that key and value share gets ``_value``.
        """
        keys, values, cpus = self._read()
        columns = frames.columns(keys, self._key)
        if cpus is not None:
            columns["cpu"] = cpus
        for name, column in frames.columns(values, self._value).items():
            columns[f"{name}_value" if name in columns else name] = column
        return self._labelled(pd.DataFrame(columns))

    def histogram(self, scale: str = "log2") -> pd.DataFrame:
        """The buckets of a ``BPF_HISTOGRAM``: an IntervalIndex ``bucket`` and a column ``count``.

        ``scale`` is how the program chose its slots: "log2" for ``bpf_log2l(value)``, "linear"
        for the value itself. Intervals are closed on the left: [4, 8) holds 4 to 7.

        >>> prog["dist"].histogram()                                  # doctest: +SKIP
        """
        keys, values, _ = self._read()
        if self._key.dtype.kind not in "iu" or self._value.dtype.kind not in "iu":
            raise ProgramError(
                f"{self.name!r} is not a histogram: its key and value must be integers, and are"
                f" {self._key.dtype} and {self._value.dtype}. Declare it with BPF_HISTOGRAM."
            )
        return self._labelled(frames.histogram(keys, values, scale))

    def clear(self) -> None:
        """Delete every entry of a hash, set every value of an array to zero."""
        self._connection.request("clear", program=self._program, name=self.name)

    def __repr__(self) -> str:
        return f"<Table {self.name!r}>"

    def _labelled(self, frame: pd.DataFrame) -> pd.DataFrame:
        """``frame``, knowing where and when it comes from."""
        frame.attrs.update(self._attrs, end=pd.Timestamp.now(tz="UTC"))
        return frame

    def _read(self) -> tuple[frames.Records, frames.Records, frames.Records | None]:
        answer = self._connection.request("table", program=self._program, name=self.name)
        entries, stride = answer["entries"], answer["stride"]
        split = entries * self._key.dtype.itemsize
        keys = np.frombuffer(answer.blob[:split], self._key.dtype)
        if not self._cpus:
            return keys, np.frombuffer(answer.blob[split:], self._value.dtype), None
        one = np.dtype(
            {
                "names": ["value"],
                "formats": [self._value.dtype],
                "offsets": [0],
                "itemsize": stride // self._cpus,
            }
        )
        values = np.frombuffer(answer.blob[split:], one)["value"]
        cpus = np.tile(np.arange(self._cpus, dtype="u4"), entries)
        return np.repeat(keys, self._cpus), values, cpus
