"""BCC's compilation of a program, which LLVM may end the process in: see guarded.py."""

import os
from contextlib import contextmanager
from typing import (
    Any,
    Callable,
    Dict,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
    TypeVar,
)

import bcc

from ebpflab.agent.faults import Fault, printed
from ebpflab.agent.kernel import maps
from ebpflab.agent.programs import (
    bccfix,  # noqa: F401  it puts BCC right
    choices,
    guarded,
)
from ebpflab.agent.programs.instrument import Instrumented
from ebpflab.agent.programs.precompiled import WARNINGS

_T = TypeVar("_T")

# A call to a function that does not exist is only a warning in C, and an obscure error later.
_CFLAGS = [
    *WARNINGS,
    f"-DEBPFLAB_CPUS={maps.possible_cpus()}",  # for EBPFLAB_RINGS
]
_GAVE_UP = "LLVM gave up on the program"
_MOST_GIVEN_UP = 8  # each costs a thread, and some 45 MB, until the agent ends
_compiler = guarded.Guard()
_precompiled = choices.Precompiled()
# What clang printed of those, by their code, since a cell is run again.
_given_up: Dict[Tuple[str, ...], str] = {}
os.environ.setdefault("BCC_PROBE_LIMIT", "1000000")  # we count nothing of ours against it


class _Compiled(bcc.BPF):  # type: ignore[misc]  # bcc has no types
    """BCC's object, which attaches nothing while it is made.

    BCC attaches functions by their names in its constructor. If one of several cannot be
    attached, the constructor raises, and the others stay attached with nobody to detach them.
    """

    def _trace_autoload(self) -> None:
        pass


def bcc_call(function: Callable[[], _T]) -> Tuple[Optional[_T], Optional[str], str]:
    """Call into BCC: its result, its complaint, and what was printed meanwhile."""
    with printed:
        mark = printed.mark()
        try:
            return function(), None, printed.since(mark)
        except guarded.Lost:
            return None, _GAVE_UP, printed.since(mark)
        except (Exception, SystemExit) as error:  # BCC calls sys.exit on some errors
            return None, str(error), printed.since(mark)


class Compiled(NamedTuple):
    """What came of a compilation."""

    bpf: Any
    complaint: Optional[str]
    log: str
    choice: choices.Choice


def compiled(
    code: Instrumented, cflags: Sequence[str], readers: str, tree: Optional[str]
) -> Compiled:
    """BCC's object, or its complaint; and what clang printed. ``tree`` of headers is in use."""
    tried = (code.text, *code.cflags, *cflags, readers, str(tree))
    if tried in _given_up:
        return Compiled(None, _GAVE_UP, _given_up[tried], choices.without("not compiled"))
    if len(_given_up) >= _MOST_GIVEN_UP:
        raise _too_many()
    choice = _precompiled.choose(readers + code.text, cflags)
    with _in_memory(readers) as include, _precompiled.paused():
        flags = [*_CFLAGS, *code.cflags, *include, *cflags]
        made = _by_bcc(code.text, [*flags, *choice.flags])
        if made[1] not in (None, _GAVE_UP) and _precompiled.once_more(choice, made[2]):
            choice = choices.without("it did not compile with them")
            made = _by_bcc(code.text, flags)
    bpf, complaint, log = made
    if complaint == _GAVE_UP:
        _given_up[tried] = log
    return Compiled(bpf, complaint, choice.of_headers(log), choice)


def _by_bcc(text: str, flags: List[str]) -> Tuple[Any, Optional[str], str]:
    return bcc_call(lambda: _compiler.call(lambda: _Compiled(text=text.encode(), cflags=flags)))


def _too_many() -> Fault:
    return Fault(
        "ProgramError",
        f"The program is not compiled: LLVM has given up on {_MOST_GIVEN_UP} others of this lab,"
        " and what it held of each is not given back until the lab is closed. What helps:"
        " lab.close(), then lab = Lab(), and load again what you need.",
    )


@contextmanager
def _in_memory(text: str) -> Iterator[List[str]]:
    """clang flags that include ``text``, which moves no line of the reader's own."""
    if not text:
        yield []
        return
    with open(os.memfd_create("ebpflab-include"), "w") as file:
        file.write(text)
        file.flush()
        yield ["-include", f"/proc/self/fd/{file.fileno()}"]
