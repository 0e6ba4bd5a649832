"""Did you mean ...: the names most like one that does not exist. For both halves."""

import difflib
from typing import Iterable, List, Sequence

_MANY = 5000


def closest(name: str, names: Iterable[str]) -> List[str]:
    """The three ``names`` most like ``name``, best first.

    Of a kernel's 200,000 functions, difflib is shown those that share a third of the pairs of
    letters: it takes many seconds for all of them.

    >>> closest("do_sys_opennat2", ["do_sys_openat2", "vfs_read"])
    ['do_sys_openat2']
    """
    known = list(dict.fromkeys(names))
    if len(known) > _MANY:
        pairs = {name[at : at + 2] for at in range(len(name) - 1)}
        known = [other for other in known if 3 * sum(p in other for p in pairs) >= len(pairs)]
    return difflib.get_close_matches(name, known, n=3, cutoff=0.6)


def suggest(name: str, names: Iterable[str]) -> str:
    """A sentence that offers the closest of ``names``, or the empty string.

    >>> suggest("evnts", ["events", "counts"])
    ' Closest matches: events.'
    """
    return offered(closest(name, names))


def offered(found: Sequence[str]) -> str:
    """A sentence that offers these names, or the empty string where there are none."""
    return f" Closest matches: {', '.join(found)}." if found else ""
