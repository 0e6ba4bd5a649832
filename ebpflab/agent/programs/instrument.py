"""What is added to the reader's C before BCC compiles it: lost counts and record layouts.

*Lost counts.* When a ring or perf buffer is full, ``ringbuf_output``, ``ringbuf_reserve`` and
``perf_submit`` fail, and a program that ignores the result loses the record in silence. BCC
compiles in two passes: it rewrites ``events.ringbuf_output(&e, n, 0)`` to
``bpf_ringbuf_output((void *)bpf_pseudo_fd(1, -7), &e, n, 0)`` and compiles the result. The
second pass sees the macros below, which count each failure in a per-CPU array declared right
before the buffer. BCC numbers maps downwards in order of declaration, so that array is the
buffer's own number plus one; no name has to be guessed.

*Layouts.* clang's table of types (BTF) says what a map's keys and values are, but not what goes
into a buffer. An array of one record, declared at the end of the program, makes it say that as
well. What the record is, is read from the calls; where that goes wrong, clang objects to our line,
and the program is compiled without it.

*Several rings.* One ring slows down when several CPUs write to it. ``EBPFLAB_RINGS(events, pages)``
is a ring for each CPU, of so many pages: the first is the map ``events``, the others are made by
the agent (``rings.py``), and all stand in an array of maps by the number of their CPU. The calls
of the reader that need a ring, ``events.ringbuf_output`` and ``events.ringbuf_reserve``, become
calls of functions that take the ring of this CPU; ``ringbuf_submit`` and ``ringbuf_discard`` need
none, and stay BCC's.

No line of the reader's program moves, so clang's line numbers are the reader's.
"""

import re
from typing import Dict, List, NamedTuple, Optional

from ebpflab.agent.kernel.own_maps import LAYOUT_SUFFIX, LOST_SUFFIX

# Given to clang as -D flags, not as text: the verifier quotes source lines by their number, and
# BCC gets the text of those wrong when a #line directive hides lines of our own.
COUNT_LOST = {
    "EBPFLAB_DROP_CAST_(...)": "",
    "EBPFLAB_DROP_CAST(map)": "EBPFLAB_DROP_CAST_ map",
    "EBPFLAB_NUMBER_bpf_pseudo_fd(type, number)": "number",
    "EBPFLAB_JOIN_(a, b)": "a##b",
    "EBPFLAB_JOIN(a, b)": "EBPFLAB_JOIN_(a, b)",
    "EBPFLAB_NUMBER(map)": "EBPFLAB_JOIN(EBPFLAB_NUMBER_, EBPFLAB_DROP_CAST(map))",
    "EBPFLAB_COUNT(map, failed)": (
        "if (failed) { int zero_ = 0; u64 *lost_ = bpf_map_lookup_elem("
        "(void *)bpf_pseudo_fd(1, EBPFLAB_NUMBER(map) + 1), &zero_);"
        " if (lost_) __sync_fetch_and_add(lost_, 1); }"
    ),
    "bpf_ringbuf_output(map, ...)": (
        "({ long sent_ = bpf_ringbuf_output(map, __VA_ARGS__);"
        " EBPFLAB_COUNT(map, sent_) (int)sent_; })"
    ),
    "bpf_ringbuf_reserve(map, ...)": (
        "({ void *record_ = bpf_ringbuf_reserve(map, __VA_ARGS__);"
        " EBPFLAB_COUNT(map, !record_) record_; })"
    ),
    "bpf_perf_event_output(ctx, map, ...)": (
        "({ long sent_ = bpf_perf_event_output(ctx, map, __VA_ARGS__);"
        " EBPFLAB_COUNT(map, sent_) (int)sent_; })"
    ),
}

# The names in parentheses are BCC's functions: not the macros above, which know of one ring alone.
_RINGS = (
    'BPF_ARRAY_OF_MAPS(NAME__rings, "NAME", EBPFLAB_CPUS);'
    " static void *NAME__ring() {"
    " int cpu_ = bpf_get_smp_processor_id(); return NAME__rings.lookup(&cpu_); }"
    " static void NAME__count() { int zero_ = 0; u64 *lost_ = NAME__lost.lookup(&zero_);"
    " if (lost_) __sync_fetch_and_add(lost_, 1); }"
    " static int NAME__output(void *data, u64 size, u64 flags) { void *ring_ = NAME__ring();"
    " int sent_ = ring_ ? (bpf_ringbuf_output)(ring_, data, size, flags) : -1;"
    " if (sent_) NAME__count(); return sent_; }"
    " static void *NAME__reserve(u64 size) { void *ring_ = NAME__ring();"
    " void *record_ = ring_ ? (bpf_ringbuf_reserve)(ring_, size, 0) : 0;"
    " if (!record_) NAME__count(); return record_; }"
)

_COMMENT_OR_STRING = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"', re.DOTALL)
_BUFFER = re.compile(
    r"^(?![ \t]*#)(.*?)\b(BPF_RINGBUF_OUTPUT|BPF_PERF_OUTPUT|EBPFLAB_RINGS)\s*\(\s*(\w+)",
    re.MULTILINE,
)
_NEEDS_RING = re.compile(r"\b(\w+)\s*\.\s*ringbuf_(output|reserve)\s*\(")
_QUEUE = re.compile(r"^(?![ \t]*#).*?\bBPF_(?:QUEUE|STACK)\s*\(", re.MULTILINE)
_SEND = re.compile(
    r"(\w+)\s*\.\s*(?:perf_submit\s*\(\s*\w+\s*,|ringbuf_output\s*\(|ringbuf_reserve\s*\()\s*"
    r"(?:\(\s*(?:\w+\s*)+\*+\s*\)\s*)?"  # a cast
    r"(?:sizeof\s*\(\s*\*?\s*(?P<type>(?:struct|union)\s+\w+|\w+)\s*\)|(?P<by>&?)\s*(?P<variable>\w+))"
)
_NO_TYPES = ("return", "goto", "else", "sizeof", "struct", "union", "enum")
_TYPE = r"(?:(?:struct|union|enum)\s+\w+|(?:unsigned\s+|signed\s+)*\w+)"


class Instrumented(NamedTuple):
    """The text and flags for BCC, and what is known of its ring and perf buffers."""

    text: str
    cflags: List[str]
    buffers: List[str]
    rings: List[str]  # those of them that have a ring for each CPU
    counted: bool  # False where a buffer is declared in a way that we do not know
    layouts: Dict[str, str]  # buffer name -> name of the map that describes its record


def instrument(source: str, layouts: bool = True) -> Instrumented:
    """Add lost counts and, unless told not to, layouts to a BCC program.

    >>> done = instrument("struct e { u32 pid; };\\nBPF_RINGBUF_OUTPUT(out, 8);\\n"
    ...                   "int f(void *ctx) { struct e e = {}; out.ringbuf_output(&e, 4, 0); }")
    >>> done.buffers, done.counted, done.layouts
    (['out'], True, {'out': 'out__layout'})
    """
    plain = _COMMENT_OR_STRING.sub(lambda found: re.sub(r"[^\n]", " ", found.group()), source)
    buffers = list(_BUFFER.finditer(plain))
    declared = [found.group(3) for found in buffers]
    rings = [found.group(3) for found in buffers if found.group(2) == "EBPFLAB_RINGS"]
    sends = list(_SEND.finditer(plain))
    # One buffer declared in a way we do not know would make its neighbour count its losses.
    known = bool(declared) and all(found.group(1) in declared for found in sends)
    edits = []  # (where, until where, what comes there)
    for found in buffers:
        name, at = found.group(3), found.end(1)
        if known or name in rings:
            edits.append((at, at, f"BPF_PERCPU_ARRAY({name}{LOST_SUFFIX}, u64, 1); "))
        if name in rings:
            edits.append((*found.span(2), "BPF_RINGBUF_OUTPUT"))
            end = plain.find(";", found.end()) + 1 or len(plain)
            edits.append((end, end, " " + _RINGS.replace("NAME", name)))
    for found in _NEEDS_RING.finditer(plain):
        if found.group(1) in rings:
            edits.append((*found.span(), f"{found.group(1)}__{found.group(2)}("))
    text = source
    for start, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    described: Dict[str, str] = {}
    for found in sends if layouts else []:
        name = found.group(1)
        member = _record_member(plain, found)
        if name in declared and name not in described and member:
            described[name] = name + LAYOUT_SUFFIX
            text += (
                f"\nstruct {name}__record {{ {member}; }};"
                f" BPF_ARRAY({name}{LAYOUT_SUFFIX}, struct {name}__record, 1);"
            )
    if _QUEUE.search(plain):  # BCC does not tell the kernel the types of these, only of others
        text += f"\nBPF_ARRAY(ebpflab{LAYOUT_SUFFIX}, u32, 1);"
    cflags = [f"-D{name}={body}" for name, body in COUNT_LOST.items()] if known else []
    return Instrumented(text, cflags, declared, rings, known, described)


def blames_layouts(log: str) -> bool:
    """Whether clang objects to a line that `instrument` has added for a layout."""
    return (
        re.search(rf"error: .*\n(?: *\d+ \| ?)?struct \w+__record {{.*{LAYOUT_SUFFIX}, ", log)
        is not None
    )


def _record_member(plain: str, send: "re.Match[str]") -> Optional[str]:
    """The record that a call sends, as the C declaration of one struct member."""
    if send.group("type") and not _declaration(plain[: send.start()], send.group("type")):
        return f"{send.group('type')} record"
    return _declaration(plain[: send.start()], send.group("variable") or send.group("type"))


def _declaration(before: str, variable: str) -> Optional[str]:
    """How ``variable`` was last declared before the call: ``struct e e``, ``char comm[16]``."""
    declared = re.compile(
        rf"\b({_TYPE})\s*(?:\*\s*)?\b{re.escape(variable)}\b\s*((?:\[\s*\w+\s*\])*)\s*(?=[=;,)])"
    )
    last = None
    for found in declared.finditer(before):
        if found.group(1) not in _NO_TYPES:
            last = found
    return f"{last.group(1)} {variable}{last.group(2)}" if last else None
