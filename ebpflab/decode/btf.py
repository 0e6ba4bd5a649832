"""BTF: clang's own description of a program's C types, turned into columns.

clang writes a table of every type it has compiled (struct, union, enum, array, typedef, ...) into
the program, BCC hands it to the kernel, and the agent reads it back: exact offsets, names of
enumerators, widths of bit fields, arrays of arrays. Numbers of types are places in that table;
0 is void. Format: Documentation/bpf/btf.rst.

BCC adds a ``struct ____btf_map_NAME { key; value; }`` for each map, so a map's types are found by
its name, and `columns_of` flattens one of them: a column for each number, string or address in
it, nested ones as ``outer.inner`` and ``list[0]``. What a column holds, and where, is said by
`Column`; `frames` makes values of it.

The table comes from an agent, which is no more trusted than its machine: one that is damaged is
refused whole, and what a layout may take is limited, as types may be made to contain themselves.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ebpflab.decode.arrays import Dtype

_MAGIC = 0xEB9F
_INT, _PTR, _ARRAY, _STRUCT, _UNION, _ENUM, _FWD, _TYPEDEF = range(1, 9)
_VOLATILE, _CONST, _RESTRICT, _FUNC, _FUNC_PROTO, _VAR, _DATASEC, _FLOAT = range(9, 17)
_DECL_TAG, _TYPE_TAG, _ENUM64 = range(17, 20)
_ALIASES = (_TYPEDEF, _VOLATILE, _CONST, _RESTRICT, _TYPE_TAG)
_FIXED_BYTES = {_INT: 4, _ARRAY: 12, _VAR: 4, _DECL_TAG: 4}
_ENTRY_BYTES = {_STRUCT: 12, _UNION: 12, _ENUM: 8, _FUNC_PROTO: 8, _DATASEC: 12, _ENUM64: 12}
_MAX_DEPTH = 32  # as the kernel's btf_resolve, MAX_RESOLVE_DEPTH
_MAX_STEPS = 5_000  # types, each as often as it is in a record, for one layout
_INTEGER_BYTES, _MAX_BIT_FIELD = (1, 2, 4, 8, 16), 64
_SIGNED, _BOOL = 1, 4  # bits of an integer's encoding

_KEYWORDS = {_STRUCT: "struct ", _UNION: "union ", _ENUM: "enum ", _ENUM64: "enum "}

SENT = "ebpflab_sent_"
"""The typedef of what a call sends (`agent/programs/instrument.py`)."""

MAX_ELEMENT_COLUMNS = 16
"""Longer arrays are one column of arrays."""


class Bits(NamedTuple):
    """A bit field: its first bit, counted from the start of its first byte, and its width."""

    shift: int
    width: int


class Column(NamedTuple):
    """A column: what lies where in a record, and how it is shown."""

    name: str
    offset: int
    dtype: Dtype
    kind: str = "number"
    """``number``, ``text`` (a C string), ``bytes``, ``ipv6``, or ``int128``."""
    enumerators: dict[int, str] | None = None
    """The C names of an enum's values."""
    bits: Bits | None = None


class Member(NamedTuple):
    """A field of a struct or union."""

    name: str
    type: int
    bit_offset: int
    width: int
    """In bits; 0 for what is not a bit field."""


class _Type(NamedTuple):
    name: str
    kind: int
    flag: bool
    """Of a struct or union: its members carry a width."""
    size: int
    """Its size, or the number of the type that it refers to."""
    members: int
    start: int
    """Where in the blob its members begin."""


class NoSuchType(Exception):
    """The table does not say it: there is no such map, or a type has no size."""


class Types:
    """The table of types of one program, from the bytes of its BTF.

    Raises ValueError for what is not BTF of this machine's byte order.
    """

    def __init__(self, blob: bytes) -> None:
        try:
            self._take(blob)
            for number in range(len(self._types)):
                self._check(number)
        except (struct.error, IndexError) as error:
            raise ValueError(f"this is BTF that is cut or damaged: {error}") from None

    def _take(self, blob: bytes) -> None:
        magic, _, _, header, types, size, strings, length = struct.unpack_from("<HBBIIIII", blob)
        if magic != _MAGIC:
            raise ValueError(f"this is not BTF: it begins with {magic:#x}")
        self._blob, self._strings = blob, blob[header + strings : header + strings + length]
        self._types = [_Type("void", 0, False, 0, 0, 0)]
        self._types.extend(self._read(header + types, header + types + size))
        self._by_name = {
            each.name: number
            for number, each in enumerate(self._types)
            if each.kind == _STRUCT and each.name
        }

    def _check(self, number: int) -> None:
        """Raise for a type that is not all there, or refers to one that is not."""
        type_ = self._types[number]
        refers: list[int] = []
        if type_.kind in (_STRUCT, _UNION):
            refers = [member.type for member in self.members(number)]
        elif type_.kind == _ARRAY:
            refers = [self._array(type_)[0]]
        elif type_.kind in _ALIASES:
            refers = [type_.size]
        elif type_.kind in (_ENUM, _ENUM64):
            self._enumerators(type_)
        elif type_.kind == _INT:
            self._encoding(type_)
        if max(refers, default=0) >= len(self._types):
            raise IndexError(f"type {number} refers to one that is not there")

    def _read(self, at: int, end: int) -> Iterator[_Type]:
        while at < end:
            name, info, size = struct.unpack_from("<III", self._blob, at)
            kind, count, at = info >> 24 & 0x1F, info & 0xFFFF, at + 12
            yield _Type(self._name(name), kind, bool(info >> 31), size, count, at)
            at += _FIXED_BYTES.get(kind, 0) + _ENTRY_BYTES.get(kind, 0) * count

    def _name(self, offset: int) -> str:
        return self._strings[offset : self._strings.index(b"\0", offset)].decode()

    def map_types(self, name: str) -> dict[str, int]:
        """The numbers of the types of a map's ``key`` and ``value``; a queue has no key."""
        return {
            member.name: member.type for member in self.members(self._named(f"____btf_map_{name}"))
        }

    def _named(self, name: str) -> int:
        try:
            return self._by_name[name]
        except KeyError:
            raise NoSuchType(name) from None

    def sent(self, table: str) -> list[tuple[int, str]]:
        """The types of what is sent into a buffer, each with the name of its variable: the one
        member of the value of each struct that the agent has made clang write about it."""
        found = []
        for number, type_ in enumerate(self._types):
            if type_.kind == _STRUCT and type_.name == f"____btf_map_{table}":
                value = {each.name: each.type for each in self.members(number)}.get("value", 0)
                members = self.members(value)
                if len(members) != 1:
                    raise NoSuchType(f"{type_.name} does not describe one record")
                found.append((members[0].type, members[0].name))
        return found

    def name_of(self, number: int) -> str:
        """A type as C calls it: ``struct event``, ``u64``, ``char[16]``."""
        type_ = self._types[number]
        for _ in range(_MAX_DEPTH):
            if type_.kind not in _ALIASES or (type_.kind == _TYPEDEF and type_.name != SENT):
                break
            number, type_ = type_.size, self._types[type_.size]
        if type_.kind == _ARRAY:
            shape, element, _ = self._shape(number)
            return self.name_of(element) + "".join(f"[{length}]" for length in shape)
        return _KEYWORDS.get(type_.kind, "") + (type_.name or "without a name")

    def named(self) -> dict[str, int]:
        """The numbers of all types that a value can have, by what C calls them."""
        kinds = (_INT, _STRUCT, _UNION, _ENUM, _ENUM64, _TYPEDEF)
        return {
            self.name_of(number): number
            for number, each in enumerate(self._types)
            if each.kind in kinds
            and each.name
            and "ebpflab" not in each.name
            and not each.name.startswith("____btf_map_")
        }

    def members(self, number: int) -> list[Member]:
        """The fields of a struct or union, in order. Raises NoSuchType for what is none."""
        type_ = self._types[number]
        if type_.kind not in (_STRUCT, _UNION):
            raise NoSuchType(f"{type_.name} has no members")
        found = []
        for name, member, offset in struct.iter_unpack(
            "<III", self._blob[type_.start : type_.start + 12 * type_.members]
        ):
            width = offset >> 24 if type_.flag else 0
            found.append(
                Member(self._name(name), member, offset & 0xFFFFFF if type_.flag else offset, width)
            )
        return found

    def resolve(self, number: int) -> tuple[int, _Type]:
        """What stands behind typedef, const and the like."""
        for _ in range(_MAX_DEPTH):
            if self._types[number].kind not in _ALIASES:
                return number, self._types[number]
            number = self._types[number].size
        raise NoSuchType(f"type {number} stands for itself")

    def is_struct(self, number: int) -> bool:
        return self.resolve(number)[1].kind in (_STRUCT, _UNION)

    def size_of(self, number: int) -> int:
        """``sizeof``, in bytes."""
        shape, _, type_ = self._shape(number)
        if type_.kind == _PTR:
            return 8 * math.prod(shape)
        if type_.kind in (_INT, _STRUCT, _UNION, _ENUM, _ENUM64, _FLOAT):
            return type_.size * math.prod(shape)
        raise NoSuchType(f"{type_.name} has no size")

    def _shape(self, number: int) -> tuple[list[int], int, _Type]:
        """The lengths of an array of arrays, and the type of what is in it; none for others."""
        shape: list[int] = []
        number, type_ = self.resolve(number)
        while type_.kind == _ARRAY:
            element, length = self._array(type_)
            shape.append(length)
            if len(shape) > _MAX_DEPTH:
                raise NoSuchType(f"type {number} is an array of arrays without an end")
            number, type_ = self.resolve(element)
        return shape, number, type_

    def _array(self, type_: _Type) -> tuple[int, int]:
        element, _, length = struct.unpack_from("<III", self._blob, type_.start)
        return element, length

    # -- columns -----------------------------------------------------------------------------

    def columns_of(self, number: int, name: str = "") -> list[Column]:
        """The columns of a type; a struct's are named after its fields.

        Raises NoSuchType for what has no value, and for more columns than anybody could read.
        """
        self._steps = 0
        return self._columns(number, name, 0)

    def _columns(self, number: int, name: str, offset: int, depth: int = 0) -> list[Column]:
        self._steps += 1
        if self._steps > _MAX_STEPS or depth > _MAX_DEPTH:
            raise NoSuchType(f"{name} has no end")
        number, type_ = self.resolve(number)
        if type_.kind in (_STRUCT, _UNION):
            if type_.name == "in6_addr":
                return [Column(name, offset, np.dtype("V16"), "ipv6")]
            return [
                column
                for member in self.members(number)
                for column in self._member(member, name, offset, depth)
            ]
        if type_.kind == _ARRAY:
            return self._array_columns(number, name, offset, depth)
        return [self._scalar(number, name, offset)]

    def _member(self, member: Member, outer: str, offset: int, depth: int) -> list[Column]:
        # The fields of a member without a name belong, in C, to the struct that it is in.
        name = ".".join(part for part in (outer, member.name) if part)
        at, shift = divmod(member.bit_offset, 8)
        if not member.width:
            return self._columns(member.type, name, offset + at, depth + 1)
        if not member.name:
            return []  # padding: `u32 :7;`
        if member.width > _MAX_BIT_FIELD:
            raise NoSuchType(f"{name} is a bit field of {member.width} bits")
        plain = self._scalar(member.type, name, offset + at)
        return [plain._replace(bits=Bits(shift, member.width))]

    def _array_columns(self, number: int, name: str, offset: int, depth: int) -> list[Column]:
        shape, element, type_ = self._shape(number)
        if 0 in shape:
            return []  # a flexible array at the end of a struct
        size, many = self.size_of(element), math.prod(shape)
        if type_.kind == _INT and size == 1 and not self._encoding(type_) & _BOOL:
            # Not numbers one by one: a string, or a MAC address, a packet, an opaque key.
            text = type_.name == "char"
            dtype, kind = (
                np.dtype(f"{'S' if text else 'V'}{shape.pop()}"),
                "text" if text else "bytes",
            )
            size = dtype.itemsize
        elif type_.kind in (_STRUCT, _UNION) and many > MAX_ELEMENT_COLUMNS:
            return [Column(name, offset, np.dtype(f"V{size * many}"), "bytes")]
        elif type_.kind in (_STRUCT, _UNION):
            dtype, kind = None, ""
        else:
            scalar = self._scalar(element, name, 0)
            dtype, kind = scalar.dtype, scalar.kind
        if many > MAX_ELEMENT_COLUMNS and dtype is not None:
            return [Column(name, offset, np.dtype((dtype, tuple(shape))), kind)]
        found: list[Column] = []
        for place, index in enumerate(np.ndindex(*shape)):
            one = name + "".join(f"[{i}]" for i in index)
            at = offset + place * size
            if kind in ("text", "bytes"):
                assert dtype is not None
                found.append(Column(one, at, dtype, kind))
            else:
                found += self._columns(element, one, at, depth + 1)
        return found

    def _scalar(self, number: int, name: str, offset: int) -> Column:
        _, type_ = self.resolve(number)
        if type_.kind != _PTR and type_.size not in _INTEGER_BYTES:
            raise NoSuchType(f"{name}: a {type_.name or 'type'} of {type_.size} bytes has no value")
        if type_.kind in (_ENUM, _ENUM64):
            names = self._enumerators(type_)
            # Not by the type's flag, which LLVM sets from 15 on only.
            dtype = np.dtype(f"{'i' if min(names, default=0) < 0 else 'u'}{type_.size}")
            return Column(name, offset, dtype, enumerators=names)
        if type_.kind == _PTR:
            return Column(name, offset, np.dtype("u8"))
        if type_.kind == _FLOAT:
            return Column(name, offset, np.dtype(f"f{type_.size}"))
        if type_.kind != _INT:
            raise NoSuchType(f"{name}: a {type_.name or 'type'} of kind {type_.kind} has no value")
        encoding = self._encoding(type_)
        if type_.size == 16:
            # BPF programs have no other use for an unsigned one than an IPv6 address.
            return Column(name, offset, np.dtype("V16"), "int128" if encoding & _SIGNED else "ipv6")
        if encoding & _BOOL:
            return Column(name, offset, np.dtype("?"))
        if type_.name == "char":
            return Column(name, offset, np.dtype("S1"), "text")
        return Column(name, offset, np.dtype(f"{'i' if encoding & _SIGNED else 'u'}{type_.size}"))

    def _encoding(self, type_: _Type) -> int:
        return int(struct.unpack_from("<I", self._blob, type_.start)[0]) >> 24 & 0xF

    def _enumerators(self, type_: _Type) -> dict[int, str]:
        """Value -> name; of two names for one value, the first."""
        found: dict[int, str] = {}
        entry = struct.Struct("<IIi" if type_.kind == _ENUM64 else "<Ii")
        for index in range(type_.members):
            name, *value = entry.unpack_from(self._blob, type_.start + entry.size * index)
            number = value[0] if len(value) == 1 else value[1] << 32 | value[0]
            found.setdefault(number, self._name(name))
        return found
