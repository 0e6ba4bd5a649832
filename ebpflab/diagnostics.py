"""From clang's and the verifier's logs to an error that a learner can act on.

Both logs are long and say the decisive thing once. Of each we show that one thing, the line of
the reader's own C that it is about, what it usually means, and how much more there is; the whole
text stays on the exception as ``log``.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping

from ebpflab.errors import CompileError, VerifierError

_CLANG = re.compile(
    r"^/virtual/main\.c:(\d+):(\d+): (?:fatal )?error: (.*)$"
    r"(?:\n(?: *\d+ \| ?)?(.*)$)?",  # the line that it is about; numbered from LLVM 17 on
    re.MULTILINE,
)
_CLANG_ANYWHERE = re.compile(r"^(\S+?):(\d+):(\d+): (?:fatal )?error: (.*)$", re.MULTILINE)
# What follows is advice for writers of C programs, or the name of a flag that we have given.
_NOISE = re.compile(r"; ISO C99 and later.*| \[-W[\w,=-]+\]|\. For non-kernel uses,.*")
_LLVM = re.compile(
    r"^(?:Error at line \d+: (.*?)(?: for DAG:.*)?"  # until LLVM 14
    r"|error: \S*?(?::\d+:\d+)?: in function \w+ [^:]*: (.*))$",
    re.MULTILINE,
)
_LLVM_FUNCTION = re.compile(r"[Ii]n function:? (\w+)")
_BESIDE_THE_POINT = (";", "WARNING:", "bpf:", "libbpf:", "cur state:", "old state:")
_VERIFIER_SOURCE = re.compile(r"^; (?! *@)(\S.*?)(?: @ \S+:\d+)?$")

# Which header defines what a tracing program is likely to look into.
_HEADER_OF = {
    "pt_regs": "uapi/linux/ptrace.h",
    "bpf_perf_event_data": "uapi/linux/bpf_perf_event.h",
    "task_struct": "linux/sched.h",
    "mm_struct": "linux/mm_types.h",
    "cred": "linux/cred.h",
    "file": "linux/fs.h",
    "inode": "linux/fs.h",
    "dentry": "linux/dcache.h",
    "path": "linux/path.h",
    "request": "linux/blk-mq.h",
    "bio": "linux/bio.h",
    "sk_buff": "linux/skbuff.h",
    "sock": "net/sock.h",
    "linux_binprm": "linux/binfmts.h",
    "bpf_prog": "linux/bpf.h",
}
_LOOP_ADVICE = "The verifier must see the loop end. Give it a constant bound."
_STACK_ADVICE = "The BPF stack is 512 bytes. Keep large structs in a map or in the ring buffer."
_CLANG_HINTS = (
    (r"stack limit", _STACK_ADVICE),
    (
        r"signed division",
        "BPF divides unsigned numbers only (until LLVM 18): make both sides of / or % unsigned.",
    ),
    (
        r"missing terminating '\"' character",
        'Is the C in r""" ... """? In a Python string without the r, \\n ends the line in the C.',
    ),
    (
        r"too many args",
        "A helper takes five arguments at most, so bpf_trace_printk() a format and three values."
        " Send more in a struct, through a ring buffer.",
    ),
    (
        r"argument may not have 'void' type|incomplete type 'void'|'void' must be the first",
        "`void name` is not a C parameter: write `void *ctx`, or `struct pt_regs *ctx`.",
    ),
    (
        r"'_bpf_readarg_\w+_\d+'",
        "bpf_usdt_readarg() finds no such argument: the number at the end of that name, counted"
        " from 1, is not one of the probe's (lab.usdt_probes(path)), or the function before it was"
        " not enabled for a USDT probe: usdt.enable_probe(), then lab.load(usdt_contexts=[usdt]).",
    ),
    (
        r"(?:implicit declaration of function|call to undeclared function) '(\w+)'",
        "There is no function or BPF helper of that name here. BPF programs can call helpers"
        " (bpf-helpers(7)) and their own functions, nothing of the C library.",
    ),
    (
        r"incomplete (?:definition of )?type 'struct (?P<struct>\w+)'",
        "The compiler must know what is in this struct: {include}.",
    ),
    (
        r"'(?:(?:stdio|stdlib|string|unistd|errno|time|math|assert|pthread)|sys/\w+)\.h' file not",
        "This header is of the C library, which programs have and the kernel has not. Leave it"
        " out: BPF programs call helpers (bpf-helpers(7)) and their own functions.",
    ),
    (r"'([^']+)' file not found", "This header is not among the traced kernel's headers."),
    (
        r"no member named '\w+' in 'struct tracepoint__(?P<category>\w+?)__(?P<name>\w+)'",
        "The fields of this tracepoint: lab.tracepoint_format('{category}:{name}').",
    ),
    (
        r"redefinition of",
        "This name is taken, by the kernel's headers or further up in the program. Choose another.",
    ),
    (
        r"use of undeclared identifier",
        "Misspelt, or its declaration (a BPF_... map, a struct, an #include) is missing above.",
    ),
)
_VERIFIER_HINTS = (
    (
        r"map_value_or_null|mem_or_null|_or_null'?$",
        "This pointer may be NULL: a lookup or reserve can fail. Test it first:"
        " `if (!pointer) return 0;`",
    ),
    (
        r"register R0 has .* should have been in \[-4095, 0\]",
        "An LSM_PROBE answers 0 for yes, and minus the number of an error for no: -1 is EPERM.",
    ),
    (
        r"function k(?:ret)?func__.*invalid bpf_context access",
        "There is no such argument. A KFUNC_PROBE takes the arguments of the kernel's"
        " function, in order; a KRETFUNC_PROBE all of them and then what it returns.",
    ),
    (
        r"invalid bpf_context access",
        "`ctx` has no such field, or it may not be written. Read a whole field at a time, by the"
        " name that its declaration gives it: struct pt_regs in probes of functions, struct"
        " bpf_perf_event_data in those of perf events.",
    ),
    (
        r"invalid mem access '(?:inv|scalar)'",
        "This address was not proven safe. Read kernel and user memory through"
        " bpf_probe_read_kernel() and bpf_probe_read_user().",
    ),
    (
        r"Unreleased reference",
        "A reserved ring buffer record must be submitted or discarded on every path.",
    ),
    (r"back-edge|infinite loop|loop detected|too many states", _LOOP_ADVICE),
    (
        # E2BIG, with which BCC's largest log is at times as empty as its smallest.
        r"BPF program is too large|Argument list too long",
        f"The verifier followed a million steps and gave up. Is there a loop? {_LOOP_ADVICE}",
    ),
    (
        r"unbounded memory access|invalid access to map value|outside of the allowed memory range",
        "This may lie outside of the memory that it is taken from. The verifier must see that the"
        " index is in bounds: test it right before, as in `if (index < 8)`.",
    ),
    (
        r"invalid (?:indirect )?read from stack|invalid stack",
        "Part of this variable was never written. Start it with `= {{}}`.",
    ),
    (r"R0 !read_ok", "Every path must return a value: end the function with `return 0;`."),
    (
        r"combined stack size|stack.*exceeds|stack limit",
        _STACK_ADVICE,
    ),
    (
        r"unknown func|program of this type cannot use helper|invalid func",
        "This helper does not exist in this kernel, or not for this kind of probe.",
    ),
)


def _hint(text: str, hints: tuple[tuple[str, str], ...]) -> str:
    for pattern, advice in hints:
        if found := re.search(pattern, text):
            named = found.groupdict()
            if header := _HEADER_OF.get(named.get("struct", "")):
                return advice.format(include=f"#include <{header}>")
            return advice.format(include="include the kernel header that defines it", **named)
    return ""


def _excerpt(source: str, line: int, column: int | None = None) -> str:
    """The reader's line with its number, and a caret under the column."""
    lines = source.splitlines()
    if not 1 <= line <= len(lines):
        return ""
    number = f"{line:5} | "
    text = number + lines[line - 1].replace("\t", " ")
    if column is not None:
        text += "\n" + " " * (len(number) - 2) + "| " + " " * (column - 1) + "^"
    return text


def compile_error(message: str, detail: Mapping[str, object], source: str) -> CompileError:
    """A CompileError that points at the reader's line."""
    log = str(detail.get("log", ""))
    errors = _CLANG.findall(log)
    line: int | None = None
    column: int | None = None
    if errors:
        what, quoted, more = _NOISE.sub("", errors[0][2]), errors[0][3], len(errors) - 1
        line = _readers_line(int(errors[0][0]), quoted, source)
        if line is None:
            parts = [f"clang refused the program: {what}", quoted]
        else:
            column = int(errors[0][1]) - _inserted(quoted, source.splitlines()[line - 1])
            parts = [
                f"clang refused the program at line {line}: {what}",
                _excerpt(source, line, column),
            ]
    elif gave_up := _LLVM.search(log):
        # Not with its line: by then BCC's rewriting has moved the lines.
        what, more = _NOISE.sub("", gave_up.group(1) or gave_up.group(2)).rstrip("."), 0
        function = _LLVM_FUNCTION.search(log)
        where = f"the function {function.group(1)}" if function else "the program"
        parts = [f"LLVM cannot translate {where} to BPF: {what}."]
    else:
        elsewhere = _CLANG_ANYWHERE.search(log)
        what = elsewhere.group(0) if elsewhere else (log.strip().splitlines() or [message])[-1]
        parts = [f"clang refused the program: {what}"]
        more = 0
    parts.append(_hint(what, _CLANG_HINTS))
    closest = detail.get("closest")
    if isinstance(closest, list) and closest:
        parts.append(f"Closest matches: {', '.join(map(str, closest))}.")
    if more:
        parts.append(
            f"({more} more error{'s' * (more > 1)}; the whole text is in the error's .log)"
        )
    error = CompileError("\n".join(part for part in parts if part), **detail)
    error.line, error.column, error.log = line, column, log
    return error


def _readers_line(line: int, quoted: str, source: str) -> int | None:
    """The reader's line for the one that clang counts, by the text that clang quotes of it.

    The numbers differ where BCC puts text of its own before the program (the structs of
    tracepoints); the lines themselves then stand further up in the reader's text.
    """
    lines = source.splitlines()
    if not quoted.strip():
        return line if 1 <= line <= len(lines) else None
    alike = [
        number
        for number, text in enumerate(lines[:line], start=1)
        if text.strip() and quoted.strip().endswith(text.strip())
    ]
    return alike[-1] if alike else None


def _inserted(quoted: str, text: str) -> int:
    """How many characters stand before the reader's text in the line that clang quotes."""
    return max(quoted.rstrip().find(text.rstrip()), 0)


def verifier_error(message: str, detail: Mapping[str, object], source: str) -> VerifierError:
    """A VerifierError with the decisive line of the log and the C line that it is about."""
    log = str(detail.get("log", ""))
    lines = [line.rstrip() for line in log.splitlines()]
    # What the verifier objected to is the line before it ends, with statistics or, in Linux 7.3,
    # with a page that explains it.
    ends = ("processed ", "Verification failed:")
    end = next((i for i, line in enumerate(lines) if line.startswith(ends)), len(lines))
    said = [line for line in lines[:end] if line and not line.startswith(_BESIDE_THE_POINT)]
    decisive = said[-1] if said else str(detail.get("complaint", "no reason was given"))
    quoted = [found.group(1) for line in lines[:end] if (found := _VERIFIER_SOURCE.match(line))]
    parts = [f"{message}: {decisive}"]
    hint = _hint(parts[0], _VERIFIER_HINTS)
    number = _line_of(quoted[-1], source) if quoted else None
    if number is not None:
        parts.append(_excerpt(source, number))
    parts.append(hint)
    parts.append(f"({len(lines)} lines of the verifier's log are in the error's .log)")
    error = VerifierError("\n".join(part for part in parts if part), line=number, **detail)
    error.log = log
    return error


def _line_of(quoted: str, source: str) -> int | None:
    """The line of ``source`` that the verifier quotes.

    It quotes BCC's rewriting of the line, so where no line is equal the most similar one is
    meant, provided it is similar enough to be worth showing.
    """
    text = quoted.strip()
    lines = [line.strip() for line in source.splitlines()]
    if text in lines:
        return lines.index(text) + 1
    found = difflib.get_close_matches(text, lines, n=1, cutoff=0.5)
    return lines.index(found[0]) + 1 if found else None
