"""Tab completion inside attach calls: the names that the traced machine really has.

IPython asks each of its *matchers* what could stand at the cursor. This one looks for the call
that the cursor is in, finds out which parameter it would fill, and asks the lab. It never guesses
and never raises: where it does not understand the line, it offers nothing.
"""

from __future__ import annotations

import glob
import inspect
import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from IPython.core.completer import (
    CompletionContext,
    SimpleCompletion,
    SimpleMatcherResult,
    context_matcher,
)
from IPython.core.interactiveshell import InteractiveShell

from ebpflab.errors import EbpflabError
from ebpflab.lab import Lab
from ebpflab.program import Program
from ebpflab.usdt import USDT

IDENTIFIER = "ebpflab"

MOST = 300
"""More names than that help nobody, and the menu of JupyterLab becomes slow."""

_PAIR = re.compile(r"\([^()]*\)")
_CALL = re.compile(r"([A-Za-z_][\w.]*)\.([a-z_]+)\(([^()]*)$")
_OPEN_STRING = re.compile(r"""(?:^|,)\s*(?:(?P<keyword>\w+)\s*=\s*)?[bru]?["'](?P<typed>[^"']*)$""")
_SYSCALL = re.compile(r"^__\w+?_sys_")


class Place(NamedTuple):
    """Where the cursor is: the object, its method, the parameter, and what is typed of it."""

    thing: str
    method: str
    arguments: str
    keyword: str | None
    typed: str


def place(text: str) -> Place | None:
    """What the end of ``text`` is in the middle of, or None.

    >>> place('prog.attach_kprobe(event="vfs_')[:2]
    ('prog', 'attach_kprobe')
    """
    while (shorter := _PAIR.sub("", text)) != text:  # calls that are closed already
        text = shorter
    call = _CALL.search(text)
    string = call and _OPEN_STRING.search(call.group(3))
    if not call or not string:
        return None
    thing, method, arguments = call.groups()
    return Place(thing, method, arguments, string.group("keyword"), string.group("typed"))


class Completion:
    """Offers names for what the cursor is in the middle of."""

    def __init__(self, shell: InteractiveShell) -> None:
        self._shell = shell

    @context_matcher(identifier=IDENTIFIER, priority=100.0)
    def match(self, context: CompletionContext) -> SimpleMatcherResult:
        """What IPython asks for each Tab."""
        lines = context.full_text.split("\n")[: context.cursor_line]
        here = place("\n".join([*lines, context.text_until_cursor]))
        if here is None:
            return SimpleMatcherResult(completions=[])
        try:
            names = list(self._names(here))
        except EbpflabError:  # a lab that is closed, a path that is not there
            names = []
        fitting = [name for name in names if name.startswith(here.typed)][:MOST]
        return SimpleMatcherResult(
            completions=[SimpleCompletion(text=name, type="probe") for name in fitting],
            matched_fragment=here.typed,
            ordered=True,
            suppress=bool(fitting),
        )

    def _names(self, here: Place) -> Iterable[str]:
        """Every name that could stand at the cursor."""
        thing = self._thing(here.thing)
        method = getattr(type(thing), here.method, None)
        if not isinstance(thing, Program | Lab | USDT) or method is None:
            return []
        parameters = list(inspect.signature(method).parameters)[1:]
        position = here.arguments.count(",")
        parameter = here.keyword or parameters[min(position, len(parameters) - 1)]
        pattern = glob.escape(here.typed) + "*"
        if isinstance(thing, Program):
            return self._of_program(thing, here, parameter, pattern)
        if isinstance(thing, USDT):
            known = thing.probes if parameter == "probe" else []
            return [*(probe.partition(":")[2] for probe in known), *known]
        return _of_lab(thing, here.method, pattern)

    def _thing(self, dotted: str) -> Any:
        first, *rest = dotted.split(".")
        thing = self._shell.user_ns.get(first)
        for name in rest:
            thing = getattr(thing, name, None)
        return thing

    def _of_program(
        self, program: Program, here: Place, parameter: str, pattern: str
    ) -> Iterable[str]:
        lab, method = program.lab, here.method
        if parameter == "fn_name":
            return program.functions
        if parameter == "event":
            return lab.kernel_functions(pattern)
        if parameter == "tp" and method == "attach_raw_tracepoint":
            found = [tp.partition(":") for tp in lab.tracepoints("*:" + pattern)]
            return sorted({name for category, _, name in found if category != "syscalls"})
        if parameter == "tp":
            return lab.tracepoints(pattern)
        path = self._argument(here, "name")
        if parameter != "sym" or path is None:
            return []
        list_symbols = lab.go_functions if method == "attach_go_return" else lab.symbols
        return list(list_symbols(path, pattern)["symbol"])

    def _argument(self, here: Place, parameter: str) -> str | None:
        """The text of another argument of the call: a string, or a variable that holds one."""
        first, _, _ = here.arguments.partition(",")
        named = re.search(rf"\b{parameter}\s*=\s*([^,]+)", here.arguments)
        written = (named.group(1) if named else first).strip()
        if written[:1] in "\"'":
            return written[1:-1]
        value = self._thing(written)
        return value if isinstance(value, str) else None


def _of_lab(lab: Lab, method: str, pattern: str) -> Iterable[str]:
    listed: dict[str, Callable[[str], Iterable[str]]] = {
        "tracepoints": lab.tracepoints,
        "tracepoint_format": lab.tracepoints,
        "kernel_functions": lab.kernel_functions,
        "syscall_name": lambda pattern: [
            _SYSCALL.sub("", name) for name in lab.kernel_functions(f"__*_sys_{pattern}")
        ],
    }
    return listed[method](pattern) if method in listed else []
