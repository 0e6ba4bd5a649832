"""One key or value of a map, as the reader writes it, to the bytes that the kernel keeps.

A number, string, address or enumerator's name for a simple type; a dict of columns for a struct,
in which what is left out is zero, as in C. What does not fit is refused, not cut.
"""

from __future__ import annotations

import ipaddress
import operator
from collections.abc import Mapping
from typing import Any

import numpy as np

from ebpflab.decode.btf import Column
from ebpflab.decode.frames import Layout
from ebpflab.errors import TableError
from ebpflab.protocol.closest import suggest


def encode(layout: Layout, value: Any, what: str) -> bytes:
    r"""Return the bytes of ``value``; ``what`` names it in a TableError.

    >>> from ebpflab.decode.frames import layout_of
    >>> layout = layout_of([Column("pid", 0, np.dtype("u4"))], 4, "key")
    >>> encode(layout, {"pid": 1}, "the key of 'counts'")
    b'\x01\x00\x00\x00'
    """
    columns = {column.name: column for column in layout.columns}
    if not isinstance(value, Mapping):
        if len(columns) > 1:
            raise TableError(
                f"{what} is a struct: give it as a dict of {', '.join(columns)}, not {value!r}."
            )
        value = {next(iter(columns)): value}
    record = bytearray(layout.dtype.itemsize)
    for name, part in value.items():
        if name not in columns:
            have = ", ".join(columns)
            raise TableError(
                f"{what} has no field {name!r}. It has: {have}.{suggest(name, columns)}"
            )
        try:
            _put(record, columns[name], part)
        except (TypeError, ValueError, OverflowError) as error:
            raise TableError(f"{part!r} does not fit {what}, field {name!r}: {error}.") from None
    return bytes(record)


def encode_network(layout: Layout, value: Any, what: str) -> bytes:
    """The bytes of an LPM trie's key, from "10.0.0.0/8", a network object, or a dict."""
    if isinstance(value, Mapping):
        return encode(layout, value, what)
    try:
        network = ipaddress.ip_network(value, strict=False)
    except ValueError as error:
        raise TableError(f"{value!r} is not a network, so not {what}: {error}.") from None
    data = network.network_address.packed
    if len(data) != layout.dtype.itemsize - 4:
        raise TableError(f"{what} has no room for an IPv{network.version} address.")
    return network.prefixlen.to_bytes(4, "little") + data


def _put(record: bytearray, column: Column, value: Any) -> None:
    at = column.offset
    if column.bits is not None:
        shift, width = column.bits
        number = _number(column, value)
        signed = column.dtype.kind == "i"
        if not (-(1 << width - 1) if signed else 0) <= number < 1 << (width - signed):
            raise OverflowError(f"it is a bit field of {width} bits")
        end = at + -(-(shift + width) // 8)
        mask = ((1 << width) - 1) << shift
        before = int.from_bytes(record[at:end], "little") & ~mask
        record[at:end] = (before | number << shift & mask).to_bytes(end - at, "little")
        return
    data = _bytes(column, value)
    if len(data) > column.dtype.itemsize:
        raise OverflowError(f"there are {column.dtype.itemsize} bytes for it")
    record[at : at + len(data)] = data


def _bytes(column: Column, value: Any) -> bytes:
    if column.kind == "text":
        return value.encode() if isinstance(value, str) else bytes(memoryview(value))
    if column.kind == "bytes":
        return bytes(memoryview(value))
    if column.kind == "ipv6":
        return ipaddress.IPv6Address(value).packed
    if column.kind == "int128":
        return operator.index(value).to_bytes(16, "little", signed=True)
    if column.dtype.subdtype is not None:
        base, shape = column.dtype.subdtype
        if np.shape(value) != shape:
            raise ValueError(f"it is an array of {' x '.join(map(str, shape))}")
        return np.array(value, base).tobytes()
    if column.dtype.kind == "f":
        return np.array(float(value), column.dtype).tobytes()
    return np.array(_number(column, value), column.dtype).tobytes()


def _number(column: Column, value: Any) -> int:
    """A whole number, or the value of an enumerator that is given by its name."""
    if isinstance(value, str) and column.enumerators is not None:
        for number, name in column.enumerators.items():
            if name == value:
                return number
        names = column.enumerators.values()
        raise ValueError(f"no such enumerator.{suggest(value, names)} There are {', '.join(names)}")
    return int(value) if isinstance(value, np.bool_) else operator.index(value)
