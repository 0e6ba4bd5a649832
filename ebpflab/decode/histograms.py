"""The slots of a ``BPF_HISTOGRAM`` and its counts, as a DataFrame of buckets."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ebpflab.decode.arrays import Array
from ebpflab.errors import TableError

_MAX_LOG2_SLOTS = 65  # bpf_log2l() of the largest u64 is 64
_MAX_BUCKETS = 1 << 20  # more than anyone looks at, and still nothing for a machine's memory


def histogram(keys: Array, counts: Array, scale: str) -> pd.DataFrame:
    """Buckets of BCC's ``BPF_HISTOGRAM`` as an IntervalIndex, from the first to the last used.

    ``log2``: slot n holds the values whose bpf_log2l() is n: 0 and 1, 2 and 3, 4 to 7, ...
    ``linear``: slot n holds the value n. Buckets are closed on the left: [4, 8) is 4 to 7.
    """
    used = counts > 0
    dense = _dense(keys[used], counts[used], scale)
    return pd.DataFrame({"count": dense}, index=_buckets(len(dense), scale))


def grouped_histogram(groups: pd.DataFrame, keys: Array, counts: Array, scale: str) -> pd.DataFrame:
    """The same for each different row of ``groups``: its columns are levels before ``bucket``.

    Every group has the same buckets, so that they can be put side by side.
    """
    used = counts > 0
    groups, keys, counts = groups[used].reset_index(drop=True), keys[used], counts[used]
    many = len(_dense(keys, counts, scale))
    rows_of = groups.groupby(list(groups.columns), observed=True).indices
    if scale == "linear" and many * len(rows_of) > _MAX_BUCKETS:
        raise TableError(
            f"The table has {len(rows_of):,} histograms of {many:,} buckets each, and"
            f" {_MAX_BUCKETS:,} buckets in all is the most. In the C program, count"
            " bpf_log2l(value), which is scale='log2', or coarser steps, such as value >> 20."
        )
    parts = {}
    for group, rows in rows_of.items():
        dense = _dense(keys[rows], counts[rows], scale)
        parts[group] = pd.DataFrame(
            {"count": np.pad(dense, (0, many - len(dense)))}, _buckets(many, scale)
        )
    if not parts:
        index = pd.MultiIndex.from_arrays([[] for _ in [*groups.columns, "bucket"]])
        empty = pd.DataFrame({"count": np.zeros(0, "i8")}, index)
        return empty.rename_axis([*groups.columns, "bucket"])
    return pd.concat(parts, names=[*groups.columns, "bucket"])


def _dense(keys: Array, counts: Array, scale: str) -> Array:
    """The count of each bucket up to the last that is used."""
    numbers = slots(keys, scale)
    dense = np.zeros(max(int(numbers.max()) + 1, 2) if len(numbers) else 0, "i8")
    np.add.at(dense, numbers, counts.astype("i8"))
    if scale == "log2" and len(dense):
        dense[1] += dense[0]  # bpf_log2l() gives 1 for both 0 and 1
        dense = dense[1:]
    return dense


def slots(keys: Array, scale: str) -> npt.NDArray[np.int64]:
    """The keys of a ``BPF_HISTOGRAM`` as numbers of buckets.

    Raises TableError for a key that is no such number: one below 0, a ``log2`` that is none, or a
    ``linear`` one that would make more than 1,048,576 buckets.
    """
    if scale not in ("log2", "linear"):
        raise ValueError(f"scale is 'log2' or 'linear', not {scale!r}")
    most = _MAX_LOG2_SLOTS if scale == "log2" else _MAX_BUCKETS
    for key in (keys.min(), keys.max()) if len(keys) else ():
        if not 0 <= key < most:
            raise _no_slot(key, scale)
    return keys.astype("i8")


def _no_slot(key: np.integer[Any], scale: str) -> TableError:
    """The error for a key that is no number of a bucket: most likely it is a value."""
    number, bits = int(key), 8 * key.itemsize
    told = f"The table has a key {number:,}"
    if number >= 1 << (bits - 1) and key.dtype.kind == "u":
        number -= 1 << bits
        told += f" (which is {number:,} in an unsigned field)"
    if number < 0:
        return TableError(
            f"{told}, and there is no such bucket. The keys of a BPF_HISTOGRAM are slots, which"
            " count from 0, and not values. In the C program, leave out what is negative, such as"
            " an error that a function returns (`if (value >= 0)`), or count values as they are"
            " in a BPF_HASH, and read that with .frame()."
        )
    if scale == "log2":
        return TableError(
            f"{told}, which is no bpf_log2l(): the largest is {_MAX_LOG2_SLOTS - 1}. Is it"
            " scale='linear'? Else count bpf_log2l(value) in the C program, not the value itself."
        )
    return TableError(
        f"{told}, and so many buckets are too many: {_MAX_BUCKETS:,} is the most. The keys of a"
        " BPF_HISTOGRAM are slots, not values. In the C program, count bpf_log2l(value), which is"
        " scale='log2', or coarser steps, such as value >> 20."
    )


def _buckets(many: int, scale: str) -> pd.IntervalIndex:
    edges = np.arange(many + 1, dtype="i8")
    if scale == "log2" and many:
        powers = 2.0 ** np.arange(1, many + 1)  # exact, and from 1 << 63 on too large for i8
        edges = np.concatenate([[0], powers if many > 62 else powers.astype("i8")])
    return pd.IntervalIndex.from_breaks(edges, closed="left", name="bucket")
