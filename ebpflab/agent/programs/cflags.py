"""Which of clang's flags a reader may give.

clang runs as root, and some of its flags read and write files (``-include``, ``-MF``), or load code
(``-fplugin``). So what is allowed is listed: macros, folders of headers, warnings, the dialect.
"""

import re
from typing import Sequence

from ebpflab.agent.faults import Fault

_ALLOWED = re.compile(
    r"-[DU][A-Za-z_].*|-I.+"
    r"|-w|-W[a-z][\w=+-]*"
    r"|-O[0-3sz]|-g|-std=[\w+]+|-m(?:cpu|tune)=\w+"
    r"|-f(?:no-)?(?:unroll-loops|vectorize|slp-vectorize|inline|inline-functions|builtin"
    r"|jump-tables|strict-aliasing|signed-char|unsigned-char|short-enums|ms-extensions)",
    re.DOTALL,
)
_WITH_ARGUMENT = ("-D", "-U", "-I")


def check(flags: Sequence[str]) -> None:
    """Refuse what is not allowed: a Fault that names it."""
    left = iter(flags)
    for flag in left:
        whole = flag + next(left, "") if flag in _WITH_ARGUMENT else flag
        if not _ALLOWED.fullmatch(whole):
            raise Fault(
                "ProgramError",
                f"The flag {flag!r} is not taken: clang runs as root there. In cflags= may be"
                " macros (-DNAME=1, -UNAME), folders of headers (-I/path), warnings (-Wname, -w),"
                " -O2, -std=gnu11 and the like. An #include belongs into the program.",
                flag=flag,
            )
