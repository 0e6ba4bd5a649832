"""Numbers as a person would write them, and the unit that a column's name tells.

ebpflab's names end in their unit (``latency_ns``, ``size_bytes``), so a picture need not be told.
"""

from __future__ import annotations

import math
import re

_BINARY = ("", "Ki", "Mi", "Gi", "Ti", "Pi")
_TIMES = (("ns", 1), ("µs", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000))
_DAY_NS = 86_400 * 1_000_000_000
_LONG = (("day", _DAY_NS), ("year", 365 * _DAY_NS))
_WRITTEN_AS_POWER = 24  # up to eight digits are short enough for an axis
_RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_SUFFIX = re.compile(r"_(ns|us|ms|s|bytes)$")


def unit_of(name: object) -> str:
    """The unit that a name ends in; nothing where it has none.

    >>> unit_of("latency_ns"), unit_of("size_bytes"), unit_of("pid")
    ('ns', 'bytes', '')
    """
    found = _SUFFIX.search(str(name))
    return found[1] if found else ""


def is_scaled(unit: str) -> bool:
    """Is this a unit whose numbers `amount` rescales, and so writes with their unit?"""
    return unit == "bytes" or _normal(unit) in dict(_TIMES)


def nanoseconds_in(unit: str) -> int:
    """How many nanoseconds one ``unit`` has; 0 where it is no unit of time."""
    return dict(_TIMES).get(_normal(unit), 0)


def amount(value: float, unit: str) -> str:
    """A number with its unit, in three digits.

    Times go in thousands, bytes in 1024s; other units are left to the axis.

    >>> amount(4096, "bytes"), amount(1_048_576, "ns"), amount(65_536, "rows"), amount(0.25, "")
    ('4 KiB', '1.05 ms', '65,536', '0.25')
    >>> amount(86_400, "s"), amount(1 << 63, "ns")
    ('1 day', '292 years')
    """
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if math.isnan(value):
        return "no number"
    sign, size = ("-", -value) if value < 0 else ("", value)
    if unit == "bytes":
        power = min(max(int(size).bit_length() - 1, 0) // 10, len(_BINARY) - 1)
        return f"{sign}{_short(size / 1024**power)} {_BINARY[power]}B"
    if not is_scaled(unit):
        return f"{sign}{size:,}" if isinstance(size, int) else f"{sign}{_short(size)}"
    if not size:
        return "0"
    nanoseconds = size * nanoseconds_in(unit)
    if nanoseconds >= _DAY_NS:
        name, scale = next(each for each in reversed(_LONG) if nanoseconds >= each[1])
        number = _short(nanoseconds / scale)
        return f"{sign}{number} {name if number == '1' else f'{name}s'}"
    name, scale = next((each for each in reversed(_TIMES) if nanoseconds >= each[1]), _TIMES[0])
    return f"{sign}{_short(nanoseconds / scale)} {name}"


def edge(value: float, unit: str) -> str:
    """`amount` of a bucket's edge: a large power of two without a unit is written as one.

    >>> edge(65_536, ""), edge(2**63, ""), edge(2**63, "bytes")
    ('65,536', '2⁶³', '8,192 PiB')
    """
    power = value.bit_length() - 1 if isinstance(value, int) else 0
    if power < _WRITTEN_AS_POWER or value != 1 << power or is_scaled(unit):
        return amount(value, unit)
    return "2" + str(power).translate(_RAISED)


def with_unit(value: float, unit: str) -> str:
    """Like `amount`, and with the unit where `amount` leaves it to the axis.

    >>> with_unit(5, "arguments"), with_unit(1, "pages"), with_unit(1500, "us")
    ('5 arguments', '1 page', '1.5 ms')
    """
    written = amount(value, unit)
    if is_scaled(unit) or not unit:
        return written
    return f"{written} {singular(unit) if written == '1' else unit}"


def counted(number: float, of: str) -> str:
    """So many of something, one in the singular.

    >>> counted(1234, "reads"), counted(1, "calls")
    ('1,234 reads', '1 call')
    """
    return f"{plain(number)} {singular(of) if number == 1 else of}"


def singular(of: str) -> str:
    """The name of one of several.

    >>> singular("reads"), singular("context switches"), singular("misses"), singular("retries")
    ('read', 'context switch', 'miss', 'retry')
    """
    if of.endswith("ies"):
        return of.removesuffix("ies") + "y"
    return of.removesuffix("es" if re.search(r"(ss|sh|ch|x)es$", of) else "s")


def plain(number: float) -> str:
    """A whole number in full, another one in four digits or to a tenth.

    >>> plain(1_234_567), plain(0.1 + 0.2), plain(12_345.67), plain(7.0)
    ('1,234,567', '0.3', '12,345.7', '7')
    """
    if not isinstance(number, float):
        return f"{number:,}"
    if number.is_integer():
        return f"{number:,.0f}"
    return f"{number:.4g}" if abs(number) < 1000 else f"{number:,.1f}"


def percent(part: float, whole: float) -> str:
    """A share, never rounded to all or nothing when it is neither.

    >>> percent(1, 3), percent(1, 10_000), percent(9_999, 10_000), percent(0, 5)
    ('33 %', 'less than 1 %', 'more than 99 %', '0 %')
    """
    share = 100 * part / whole
    if 0 < share < 1:
        return "less than 1 %"
    if 99 < share < 100:
        return "more than 99 %"
    return f"{share:.0f} %"


def time_scale(span_ns: float) -> tuple[float, str]:
    """The unit for an axis of so many nanoseconds: how many it has, and its name."""
    scales = ((1e9, "seconds"), (1e6, "milliseconds"), (1e3, "microseconds"))
    return next((each for each in scales if span_ns >= 2 * each[0]), (1.0, "nanoseconds"))


def _normal(unit: str) -> str:
    return "µs" if unit == "us" else unit


def _short(value: float) -> str:
    """Three digits, without zeros at the end: 1.02, 16.4, 524."""
    return f"{value:.3g}" if value < 999.5 else f"{value:,.0f}"
