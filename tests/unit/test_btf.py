"""clang's table of types becomes columns. The tables were recorded: see tests/data/btf."""

from __future__ import annotations

import ipaddress
import struct
from pathlib import Path

import numpy as np
import pytest

from ebpflab.decode import btf, entries, frames
from ebpflab.errors import TableError

DATA = Path(__file__).parents[1] / "data" / "btf"
EVENT_BYTES = 336
SOURCE, DESTINATION = ipaddress.IPv6Address("2001:db8::1"), ipaddress.IPv6Address("::ffff:10.1.2.3")


@pytest.fixture(params=sorted(path.name for path in DATA.glob("*.btf")))
def types(request: pytest.FixtureRequest) -> btf.Types:
    return btf.Types((DATA / request.param).read_bytes())


def event() -> bytes:
    """One ``struct event`` of types.c, laid out by hand."""
    data = bytearray(EVENT_BYTES)
    struct.pack_into("<Q4s4s4s", data, 0, 1 << 40, b"ls\0", b"-l\0", b"")
    struct.pack_into("<I", data, 20, 5 | 1000 << 3 | 500_000 << 13)
    struct.pack_into("<QIB", data, 24, -7 & (1 << 40) - 1, 70000, -1 & 0xF)
    data[40:56], data[64:80] = SOURCE.packed, DESTINATION.packed
    data[80:96] = (-(1 << 100)).to_bytes(16, "little", signed=True)
    struct.pack_into("<?3x6i", data, 96, True, 1, 2, 3, 4, 5, -6)
    struct.pack_into("<20Q", data, 128, *range(20))
    struct.pack_into("<B3xIB3xHH", data, 288, 1, 0x00020003, 4, 5, 6)
    struct.pack_into("<6s2xQhh5sc", data, 304, b"\x02\0\0\0\0\xff", 1 << 63, -1, 2, b"cat", b"x")
    return bytes(data)


@pytest.fixture
def layout(types: btf.Types) -> frames.Layout:
    return frames.layout_in(types, "events", "value", EVENT_BYTES)


def test_every_field_has_its_value(layout: frames.Layout) -> None:
    found = frames.columns([np.frombuffer(event() * 2, layout.dtype)], layout)
    rows = {name: list(column) for name, column in found.items()}
    assert list(rows.pop("stack")[0]) == list(range(20))
    assert {name: values[0] for name, values in rows.items()} == {
        "n": 1 << 40,
        "args[0]": "ls",
        "args[1]": "-l",
        "args[2]": "",
        "three": 5,
        "ten": 1000,
        "nineteen": 500_000,
        "forty": -7,
        "color": "BLUE",
        "sign": "MINUS",
        "source": str(SOURCE),
        "destination": str(DESTINATION),
        "number": -(1 << 100),
        "ok": True,
        **{f"matrix[{n // 3}][{n % 3}]": [1, 2, 3, 4, 5, -6][n] for n in range(6)},
        "pair[0].small": 1,
        "pair[0].wide": 0x00020003,
        "pair[0].low": 3,
        "pair[0].high": 2,
        "pair[1].small": 4,
        "pair[1].wide": 0x00060005,
        "pair[1].low": 5,
        "pair[1].high": 6,
        "mac": b"\x02\0\0\0\0\xff",
        "where": 1 << 63,
        "point.x": -1,
        "point.y": 2,
        "comm": "cat",
        "letter": "x",
    }


def test_numbers_keep_their_width_and_enums_their_names(layout: frames.Layout) -> None:
    found = frames.columns([np.frombuffer(event(), layout.dtype)], layout)
    assert found["ten"].dtype == np.uint32 and found["forty"].dtype == np.int64
    assert found["point.x"].dtype == np.int16 and found["ok"].dtype == np.bool_
    assert list(found["color"].categories) == ["RED", "GREEN", "BLUE"]


def test_an_enum_without_a_name_is_its_number(types: btf.Types) -> None:
    layout = frames.layout_in(types, "events", "key", 8)
    keys = np.frombuffer(struct.pack("<6I", 5, 1, 6, 2, 0, 3), layout.dtype)
    found = frames.columns([keys], layout)
    assert list(found["color"]) == ["GREEN", "6", "RED"] and list(found["slot"]) == [1, 2, 3]


def test_what_is_written_is_read_again(layout: frames.Layout) -> None:
    frame = frames.columns([np.frombuffer(event(), layout.dtype)], layout)
    values = {name: column[0] for name, column in frame.items() if not name.endswith(".wide")}
    assert entries.encode(layout, values, "the value") == event()


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ({"ten": 1024}, "bit field of 10 bits"),
        ({"forty": 1 << 39}, "bit field of 40 bits"),
        ({"comm": "too long"}, "there are 5 bytes"),
        ({"color": "BLEU"}, "Closest matches: BLUE"),
        ({"colour": "BLUE"}, "no field 'colour'.*Closest matches: color"),
        ({"source": "10.1.2.3"}, "does not fit"),
        ({"matrix[0][0]": 1 << 31}, "out of bounds"),
        ({"stack": [1, 2]}, "array of 20"),
        ({"n": 1.5}, "float"),
        (7, "is a struct"),
    ],
)
def test_what_does_not_fit_is_refused(layout: frames.Layout, value: object, complaint: str) -> None:
    with pytest.raises(TableError, match=complaint):
        entries.encode(layout, value, "the value")


def test_a_queue_has_a_value_and_no_key(types: btf.Types) -> None:
    assert list(types.map_types("waiting")) == ["value"]


def test_a_map_that_the_table_does_not_know_is_a_number_or_bytes(types: btf.Types) -> None:
    assert frames.layout_in(types, "gone", "value", 8).dtype["value"] == np.dtype("u8")
    assert not frames.layout_in(None, "gone", "value", 12).described


def test_what_is_no_table_of_types_is_refused() -> None:
    with pytest.raises(ValueError, match="not BTF"):
        btf.Types(b"\x7fELF" + bytes(60))
