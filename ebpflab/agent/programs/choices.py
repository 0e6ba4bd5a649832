"""What a program is compiled with: precompiled headers, where they fit; see precompiled.py.

*What does not fit* is compiled without: flags other than ``-D``, a macro that a header asks for, a
folder that hides the kernel's headers. `Choice.reason` names it, for ``prog.stats()``.

*Errors* are those of a compilation without. Of what is precompiled, clang does not suggest names
("did you mean 'real_parent'?"), and it prints other paths of headers. So a program that does not
compile is compiled once more, without, unless clang misses a semicolon, a parenthesis or the like
alone: errors that begin with "expected".
"""

import os
import queue
import re
import threading
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Set, Tuple

from ebpflab.agent.programs.precompiled import (
    FOLDER,
    Compiler,
    Kernel,
    Prefix,
    Running,
    Store,
    prefix_of,
)
from ebpflab.protocol import messages

_NOT_YET = "none was made yet"
_MACRO = re.compile(r"-D([A-Za-z]\w*)(\(.*?\))?(=.*)?", re.DOTALL)
_REFUSED = re.compile(r"precompiled header|PCH file|\bAST file", re.IGNORECASE)
_ERROR = re.compile(r"^(.*)\berror: (.*)$", re.MULTILINE)


class Choice(NamedTuple):
    """What a program is compiled with: clang's flags, and the prefix or why there is none."""

    flags: List[str]
    prefix: Optional[Prefix]
    reason: Optional[str]
    tree: str = ""

    def of_headers(self, log: str) -> str:
        """What clang prints, with its headers named as it names them in this very folder."""
        return log.replace(self.tree + "/", "") if self.tree else log

    def describe(self, seconds: float) -> messages.Compilation:
        """What became of the program's includes, and how long the compilation took."""
        includes = None if self.prefix is None else list(self.prefix)
        return {"seconds": seconds, "includes": includes, "reason": self.reason}


def without(reason: str) -> Choice:
    return Choice([], None, reason)


class Precompiled:
    """What a session's programs are compiled with."""

    def __init__(self, folder: str = FOLDER) -> None:
        self._folder = folder
        self._compiler: "Optional[Compiler]" = None
        self._looked = False
        self._unfit: Dict[str, str] = {}  # paths of files that cannot be made or used, and why
        self._wanted: "queue.Queue[Tuple[Store, Prefix]]" = queue.Queue(maxsize=1)
        self._running = Running(idle=True)
        self._maker: Optional[threading.Thread] = None

    def choose(self, text: str, cflags: Sequence[str]) -> Choice:
        """What to compile ``text`` with, now. What is missing is made for the next time."""
        try:
            return self._choose(text, cflags)
        except OSError as error:  # another agent has removed the file just now, say
            return without(str(error))

    def _choose(self, text: str, cflags: Sequence[str]) -> Choice:
        if not self._looked:
            self._looked, self._compiler = True, Compiler.find()
        if self._compiler is None:
            return without("the clang of libbcc's LLVM is not installed, or libbcc has its own")
        macros = [_MACRO.fullmatch(flag) for flag in cflags]
        for flag, macro in zip(cflags, macros):
            if macro is None:
                return without(f"of clang's flags -D alone is supported, not {flag}")
        store = Store(self._compiler, Kernel.running(), self._folder)
        hidden = _hidden(store.kernel)
        if hidden is not None:
            return without(f"{hidden!r} in the current folder hides one of the kernel's headers")
        prefix = prefix_of(text)
        have = store.longest(prefix)
        if have != prefix:
            self._want(store, prefix)
        shorter = None if have == prefix else self._unfit.get(store.path(prefix), _NOT_YET)
        if have is None:
            return without(shorter or _NOT_YET)
        for macro in macros:
            if macro is not None and store.asks_for(macro.group(1), have):
                return without(f"a header asks for the macro {macro.group(1)}")
        return Choice(["-include-pch", store.use(have)], have, shorter, store.tree())

    def once_more(self, choice: Choice, log: str) -> bool:
        """Whether a program that did not compile is to be compiled without what was chosen.

        A file that clang refuses as such is not used again.
        """
        if choice.prefix is None:
            return False
        if _REFUSED.search(log):
            assert self._compiler is not None
            store = Store(self._compiler, Kernel.running(), self._folder)
            self._unfit[store.path(choice.prefix)] = log[:2000]
            store.forget(choice.prefix)
            return True
        return not is_syntax_alone(log)

    def paused(self) -> Any:
        """While a program is compiled, nothing is made."""
        return self._running.paused()

    def _want(self, store: Store, prefix: Prefix) -> None:
        if store.path(prefix) in self._unfit:
            return
        try:  # of many that are met one after the other, as tools are tried, the last is made
            self._wanted.get_nowait()
        except queue.Empty:
            pass
        self._wanted.put((store, prefix))
        if self._maker is None:
            self._maker = threading.Thread(target=self._make, name="precompile", daemon=True)
            self._maker.start()

    def _make(self) -> None:
        while True:
            store, prefix = self._wanted.get()
            problem = store.make(prefix, self._running)
            if problem is not None:
                self._unfit[store.path(prefix)] = problem


def is_syntax_alone(log: str) -> bool:
    """Whether clang objects to the reader's syntax, and to nothing that depends on a header.

    >>> is_syntax_alone("/virtual/main.c:3:9: error: expected ';' after expression\\n")
    True
    >>> is_syntax_alone("/virtual/main.c:3:9: error: use of undeclared identifier 'pdi'\\n")
    False
    """
    errors = _ERROR.findall(log)
    syntax = [
        where.startswith("/virtual/main.c:") and what.startswith("expected ")
        for where, what in errors
    ]
    return bool(errors) and all(syntax) and ".h:" not in log


def _hidden(kernel: Kernel) -> Optional[str]:
    """What hides one of the headers: clang looks in the current folder first."""
    for folder in kernel.include_folders():
        for name in _listed(folder) & _listed("."):
            path = os.path.join(folder, name)
            if not os.path.isdir(path) or _listed(path) & _listed(name):
                return name
    return None


def _listed(folder: str) -> Set[str]:
    try:
        return set(os.listdir(folder))
    except OSError:
        return set()
