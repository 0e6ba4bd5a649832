"""Tables: BPF maps read as DataFrames, written from Python, and histograms made in the kernel."""

from __future__ import annotations

import ipaddress
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ebpflab import arguments
from ebpflab.decode import btf, entries, frames, histograms
from ebpflab.errors import TableError
from ebpflab.protocol import map_types, messages
from ebpflab.transport.connection import Connection

if TYPE_CHECKING:
    from ebpflab.live import Live
    from ebpflab.live.widget import Traced

_HISTOGRAM_SLOTS = 64  # of BPF_HISTOGRAM(name)
_ADDRESS_BYTES = (4, 16)


class Table:
    """A map of a program: hash, array, LRU, per-CPU, LPM trie, histogram, queue, jump table, ...

    Entries are written as in Python's dict, structs as a dict of their fields, where what is left
    out is zero, and a jump table takes the name of a function. A value that is written to a per-CPU
    map is written for each CPU. Raises TableError when a key or value does not fit, when there is
    no such entry to delete, when the map is full, or when the map cannot be written from outside.
    Every method raises ProgramError when the program is closed.

    >>> prog["limits"]["bash"] = {"reads": 100}                       # doctest: +SKIP
    >>> del prog["limits"]["bash"]                                    # doctest: +SKIP
    >>> prog["jumps"][0] = "handle_read"                              # doctest: +SKIP
    """

    def __init__(
        self,
        program: int,
        described: messages.MapDescription,
        types: btf.Types | None,
        connection: Connection,
        attrs: dict[str, object],
        owner: weakref.ref[Traced],
    ) -> None:
        self.name: str = described["name"]
        self._connection, self._attrs = connection, attrs
        self._asked = messages.OfTable(program=program, name=self.name)
        self._type: int = described["type"]
        self._key = frames.layout_in(types, self.name, "key", described["key_size"])
        self._value = frames.layout_in(types, self.name, "value", described["value_size"])
        self._cpus = described["cpus"] if self._type in map_types.PER_CPU else 0
        self._room: int = described["max_entries"]
        self._owner = owner

    def frame(self) -> pd.DataFrame:
        """Return all entries, one a row: the key's columns, then the value's.

        A scalar key or value is called ``key`` or ``value``; dtypes are those of `Stream`. A
        per-CPU map has a row for each entry and CPU, with a column ``cpu`` (uint32); where the
        program has a field ``cpu``, ours is ``cpu_``. A field of the value that the key has, too,
        gets ``_value``. The key of an LPM trie of addresses is a column ``network`` (text). The
        values of a jump table and of a map of maps are the kernel's numbers of the programs and
        maps. ``attrs`` has what `Lab.attrs` has, and end (time, UTC, as text).

        Raises TableError for a queue or stack, which `pop` reads, and for maps without entries to
        read.

        >>> prog["by_size"].frame().dtypes.astype(str).to_dict()
        {'key': 'int64', 'value': 'uint64'}
        """
        keys, values, cpus = self._read()
        columns = frames.side_by_side(
            self._key_columns(keys), cpus, frames.columns([values], self._value)
        )
        return self._labelled(pd.DataFrame(columns, copy=False))

    def histogram(self, scale: str = "log2") -> pd.DataFrame:
        """Return the buckets of a ``BPF_HISTOGRAM``, and how many values are in each.

        The index is an IntervalIndex ``bucket``, the column ``count`` (int64). ``scale`` is how the
        program chose its slots: "log2" for ``bpf_log2l(value)``, "linear" for the value itself.
        Intervals are closed on the left: [4, 8) holds 4 to 7. Where the key is a struct, its field
        ``slot`` (or its last one) is the slot, and there is a histogram for each value of the
        others, which are levels of the index before ``bucket``.

        Raises TableError where slots or counts are not integers, or keys are not slots: negative,
        or too many; ValueError for another ``scale``.

        >>> prog["latency_ns"].histogram().loc[1024:4096].reset_index()
                 bucket  count
        0  [1024, 2048)    495
        1  [2048, 4096)      3
        2  [4096, 8192)      1
        >>> by_call["latency_ns"].histogram()["count"].groupby("number").sum().loc[[0, 1]].to_dict()
        {0: 308, 1: 307}
        """
        names = [column.name for column in self._key.columns]
        slot = "slot" if "slot" in names else names[-1]
        kinds = self._key.dtype[slot].kind, self._value.dtype[0].kind
        if not set(kinds) <= set("iu") or len(self._value.columns) > 1:
            raise self._no_histogram()
        keys, values, _ = self._read()
        slots, counts = keys[slot], values[self._value.columns[0].name]
        if len(names) == 1:
            return self._labelled(histograms.histogram(slots, counts, scale))
        groups = frames.columns([keys], self._key)
        del groups[slot]
        frame = histograms.grouped_histogram(pd.DataFrame(groups), slots, counts, scale)
        return self._labelled(frame)

    def pop(self, rows: int | None = None) -> pd.DataFrame:
        """Take values out of a queue or stack: all that are there, or at most ``rows``.

        Returns the value's columns, in the order in which values come out: the oldest first of a
        ``BPF_QUEUE``, the newest first of a ``BPF_STACK``. The kernel offers no way to look without
        taking. Raises TableError for every other kind of map.

        >>> prog["queue"].pop(rows=10)                                    # doctest: +SKIP
        """
        most = self._room if rows is None else arguments.whole("rows", rows, 0)
        asked = messages.Pop(**self._asked, most=most)
        answer = self._connection.request(messages.POP, asked)
        values = np.frombuffer(answer.blob, self._value.dtype)
        return self._labelled(pd.DataFrame(frames.columns([values], self._value)))

    def __setitem__(self, key: object, value: object) -> None:
        entry = messages.OfEntry(**self._asked, key=self._encoded_key(key).hex())
        if self._type == map_types.PROG_ARRAY and isinstance(value, str):
            self._connection.request(
                messages.PUT_PROGRAM, messages.PutProgram(**entry, fn_name=value)
            )
        else:
            data = entries.encode(self._value, value, f"the value of {self.name!r}")
            self._connection.request(messages.UPDATE, messages.Update(**entry, value=data.hex()))

    def __getitem__(self, key: object) -> Any:
        raise TableError(
            f"A table is read whole, and then looked into: frame = prog[{self.name!r}].frame(), and"
            f" frame.set_index({[each.name for each in self._key.columns]}).loc[{key!r}]."
        )

    def __iter__(self) -> Iterator[Any]:
        raise TableError(
            f"A table is read whole: prog[{self.name!r}].frame() has a row for each entry, and"
            " .itertuples() goes through them."
        )

    def __len__(self) -> int:
        """The number of entries; of an array, as long as it is declared."""
        return int(self._connection.request(messages.TABLE, self._asked).ok["entries"])

    def __bool__(self) -> bool:
        return True

    def __delitem__(self, key: object) -> None:
        data = self._encoded_key(key)
        self._connection.request(messages.DELETE, messages.OfEntry(**self._asked, key=data.hex()))

    if not TYPE_CHECKING:  # a type checker knows better what is not here

        def __getattr__(self, name: str) -> Any:
            raise AttributeError(
                f"{self.__dict__.get('name', '')!r} is a table (a BPF map) and has no .{name}. Read"
                " it with .frame() or .histogram(); .collect() is for ring and perf buffers."
            )

    def live(self, scale: str | None = None, unit: str = "") -> Live:
        """Return a view that moves: counts per second, and buckets or the top rows.

        ``scale`` ("log2" or "linear", see `histogram`) draws keys as buckets. Without it an array
        of 64 whole numbers, which is what ``BPF_HISTOGRAM(name)`` makes, is taken for "log2", and
        of any other table the ten largest entries are shown. ``unit`` is that of the keys, such as
        "ns" or "bytes". The picture is of the chosen window, not of all time. See `Stream.live` for
        start, stop and how it ends.

        Raises TableError where keys are not buckets, or the program is closed; ValueError for
        another ``scale``.

        >>> live = prog["latency"].live(unit="ns")
        >>> live.stop()
        >>> live.close()
        """
        from ebpflab.live import Live  # widgets take their time to import
        from ebpflab.live.sources import TableSource

        program = self._owner()
        if program is None or program.closed:
            raise TableError(f"The table {self.name!r} is not counted in: its program is closed.")
        if scale not in (None, "log2", "linear"):
            raise ValueError(f"scale is 'log2' or 'linear', not {scale!r}")
        whole = [len(each.columns) == 1 and each.dtype[0].kind in "iu" for each in self._layouts]
        if scale is not None and not all(whole):
            raise self._no_histogram()
        is_histogram = (self._type, self._room) == (map_types.ARRAY, _HISTOGRAM_SLOTS)
        if scale is None and is_histogram and all(whole):
            scale = "log2"
        return Live(TableSource(self, scale, unit), program)

    @property
    def _layouts(self) -> tuple[frames.Layout, frames.Layout]:
        """Of its keys, and of its values."""
        return self._key, self._value

    def clear(self) -> None:
        """Delete every entry of a hash, queue or stack; set every value of an array to zero.

        >>> prog["counts"].clear()
        """
        self._connection.request(messages.CLEAR, self._asked)

    def _no_histogram(self) -> TableError:
        return TableError(
            f"{self.name!r} is not a histogram: its slot and its count must be integers. It is"
            " declared with BPF_HISTOGRAM(name), or with BPF_HISTOGRAM(name, struct key), where"
            " the struct has an integer field `slot`."
        )

    def __repr__(self) -> str:
        return f"<Table {self.name!r}>"

    def _encoded_key(self, key: object) -> bytes:
        what = f"the key of {self.name!r}"
        if not self._key.dtype.itemsize:
            return b""  # a queue: the agent says what is wrong
        if self._is_networks():
            return entries.encode_network(self._key, key, what)
        return entries.encode(self._key, key, what)

    def _is_networks(self) -> bool:
        """Whether the keys are IP networks: a length of the prefix, then as much as an address."""
        return self._type == map_types.LPM_TRIE and self._key.dtype.itemsize - 4 in _ADDRESS_BYTES

    def _key_columns(self, keys: frames.Records) -> dict[str, Any]:
        if not self._is_networks():
            return frames.columns([keys], self._key)
        raw = keys.tobytes()
        size = keys.dtype.itemsize
        found = np.empty(len(keys), object)
        for index in range(len(keys)):
            key = raw[index * size : (index + 1) * size]
            length = int.from_bytes(key[:4], "little")
            found[index] = str(ipaddress.ip_network((key[4:], length), strict=False))
        return {"network": found}

    def _labelled(self, frame: pd.DataFrame) -> pd.DataFrame:
        """``frame``, knowing where and when it comes from."""
        frame.attrs.update(self._attrs, end=frames.now())
        return frame

    def _read(self) -> tuple[frames.Records, frames.Records, npt.NDArray[np.uint32] | None]:
        """Keys, values and CPUs (None where the map is not per CPU), as numpy records."""
        answer = self._connection.request(messages.TABLE, self._asked)
        count, stride = answer.ok["entries"], answer.ok["stride"]
        split = count * self._key.dtype.itemsize
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
        cpus = np.tile(np.arange(self._cpus, dtype="u4"), count)
        return np.repeat(keys, self._cpus), values, cpus
