"""What is added to the reader's C before BCC compiles it: lost counts and record types.

BCC compiles in two passes: it rewrites ``events.ringbuf_output(&e, n, 0)`` to
``bpf_ringbuf_output((void *)bpf_pseudo_fd(1, -7), &e, n, 0)`` and compiles the result. The second
pass sees the macros below. The name of the buffer reaches them in the first argument, before which
we write ``EBPFLAB_TO(events, e)``: ``__extension__``, an operator that changes nothing.

*Lost counts.* When a ring or perf buffer is full, ``ringbuf_output``, ``ringbuf_reserve`` and
``perf_submit`` fail, and a program that ignores the result loses the record in silence. Each
failure is counted in a per-CPU array that is declared right before the buffer. BCC numbers maps
downwards in order of declaration, so that array is the buffer's own number plus one.

*Record types.* clang's table of types (BTF) says what a map's keys and values are, but not what
goes into a buffer. A variable of the type of the argument, as clang itself sees it, makes it say
that as well: of each call, after preprocessing. A ``(void *)`` before ``&`` is left out, as it
says nothing.

*Several rings.* One ring slows down when several CPUs write to it. ``EBPFLAB_RINGS(events, pages)``
is a ring for each CPU, of so many pages: the first is the map ``events``, the others are made by
the agent (``rings.py``), and all stand in an array of maps by the number of their CPU. The calls
of the reader that need a ring, ``events.ringbuf_output`` and ``events.ringbuf_reserve``, become
calls of functions that take the ring of this CPU; ``ringbuf_submit`` and ``ringbuf_discard`` need
none, and stay BCC's.

Where clang objects to something of ours, the program is compiled without counts and types.
No line of the reader's program moves, so clang's line numbers are the reader's.
"""

import re
from typing import List, NamedTuple, Optional, Tuple

from ebpflab.agent.kernel.own_maps import LAYOUT_SUFFIX, LOST_SUFFIX

# Given to clang as -D flags, not as text: the verifier quotes source lines by their number, and
# BCC gets the text of those wrong when a #line directive hides lines of our own.
_DECLARED = {
    f"EBPFLAB_{kind}_OUTPUT(name, ...)": (
        f"BPF_PERCPU_ARRAY(name##{LOST_SUFFIX}, u64, 1);"
        f" BPF_{kind}_OUTPUT(name{', ##__VA_ARGS__' if kind == 'RINGBUF' else ''})"
    )
    for kind in ("PERF", "RINGBUF")
}
_COUNTED_AND_TYPED = {
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
    # An array is sent whole, of another pointer what it points to; of void * that is not known.
    "EBPFLAB_IS(data, type)": "__builtin_types_compatible_p(__typeof__(data), type)",
    "EBPFLAB_RECORD(data)": (
        "__builtin_choose_expr(EBPFLAB_IS(data, void *) || EBPFLAB_IS(data, const void *),"
        " (struct ebpflab_untyped_ {}){},"
        " __builtin_choose_expr(EBPFLAB_IS(data, __typeof__(&(data)[0])), (data)[0], data))"
    ),
    "EBPFLAB_TYPE(data)": "typedef __typeof__(EBPFLAB_RECORD(data)) ebpflab_sent_",
    "EBPFLAB_TO(map, name)": "__extension__",
    # Not declared, the array of lost counts is an error, and the program compiled without us.
    "EBPFLAB_SENT_EBPFLAB_TO(map, name)": (
        f"(void)sizeof(map##{LOST_SUFFIX}); static struct ____btf_map_##map##{LAYOUT_SUFFIX}"
        " { int key; struct { ebpflab_sent_ name; } value; } layout_"
        f' __attribute__((section(".maps." #map "{LAYOUT_SUFFIX}"), used)) = {{}}; (void)'
    ),
    "EBPFLAB_OUTPUT(map, name, data, ...)": (
        "({ EBPFLAB_TYPE(data); EBPFLAB_SENT_EBPFLAB_TO(map, name) 0;"
        " map##__output(data, __VA_ARGS__); })"
    ),
    "bpf_ringbuf_output(map, data, ...)": (
        "({ EBPFLAB_TYPE(data); EBPFLAB_SENT_##data;"
        " long sent_ = bpf_ringbuf_output(map, data, __VA_ARGS__);"
        " EBPFLAB_COUNT(map, sent_) (int)sent_; })"
    ),
    "bpf_ringbuf_submit(data, ...)": (
        "({ EBPFLAB_TYPE(data); EBPFLAB_SENT_##data; bpf_ringbuf_submit(data, __VA_ARGS__); })"
    ),
    "bpf_ringbuf_reserve(map, ...)": (
        "({ void *record_ = bpf_ringbuf_reserve(map, __VA_ARGS__);"
        " EBPFLAB_COUNT(map, !record_) record_; })"
    ),
    "bpf_perf_event_output(ctx_, map, flags, data, ...)": (
        "({ EBPFLAB_TYPE(data); EBPFLAB_SENT_##ctx_;"
        " long sent_ = bpf_perf_event_output(ctx_, map, flags, data, __VA_ARGS__);"
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

_COMMENT_OR_STRING = re.compile(
    r"""//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'""", re.DOTALL
)
_BUFFER = re.compile(r"\bBPF_(?=(?:RINGBUF|PERF)_OUTPUT\s*\()")
_RING_EACH_CPU = re.compile(r"^(?![ \t]*#)(.*?)\b(EBPFLAB_RINGS)\s*\(\s*(\w+)", re.MULTILINE)
_NEEDS_RING = re.compile(r"\b(\w+)\s*\.\s*ringbuf_(output|reserve)\s*\(")
_QUEUE = re.compile(r"^(?![ \t]*#).*?\bBPF_(?:QUEUE|STACK)\s*\(", re.MULTILINE)
_SEND = re.compile(r"\b(\w+)\s*\.\s*(perf_submit(?:_skb)?|ringbuf_output|ringbuf_submit)\s*\(")
_CONTEXT = re.compile(r"\s*(?:\([^()]*\)\s*)?\w+\s*,")
_TYPELESS_CAST = re.compile(
    r"\s*\(\s*(?:const\s+)?(?:void|(?:unsigned\s+|signed\s+)?char|u8|__u8|uint8_t)\s*\*\s*\)(?=\s*&)"
)
_VARIABLE = re.compile(r"\s*(?:\([^()]*\*\s*\)\s*)?&?\s*([A-Za-z_]\w*)\s*,")
_UNNAMED = "data"  # the column of a record that is no struct and comes from no variable


class Instrumented(NamedTuple):
    """The text and flags for BCC, and what is known of its ring and perf buffers."""

    text: str
    cflags: List[str]
    rings: List[str]  # buffers that have a ring for each CPU
    typed: bool  # whether losses are counted, and records have types


def instrument(source: str, typed: bool = True) -> Instrumented:
    """Add lost counts and record types to a BCC program, unless told not to.

    >>> done = instrument("BPF_RINGBUF_OUTPUT(out, 8);\\n"
    ...                   "int f(void *ctx) { struct e e = {}; out.ringbuf_output(&e, 4, 0); }")
    >>> print(done.text)
    EBPFLAB_RINGBUF_OUTPUT(out, 8);
    int f(void *ctx) { struct e e = {}; out.ringbuf_output(EBPFLAB_TO(out, e) &e, 4, 0); }
    """
    plain = _COMMENT_OR_STRING.sub(lambda found: re.sub(r"[^\n]", " ", found.group()), source)
    edits = [(*found.span(), "EBPFLAB_") for found in _BUFFER.finditer(plain)]
    rings = []
    for found in _RING_EACH_CPU.finditer(plain):
        name, at = found.group(3), found.end(1)
        rings.append(name)
        edits.append((at, at, f"BPF_PERCPU_ARRAY({name}{LOST_SUFFIX}, u64, 1); "))
        edits.append((*found.span(2), "BPF_RINGBUF_OUTPUT"))
        end = plain.find(";", found.end()) + 1 or len(plain)
        edits.append((end, end, " " + _RINGS.replace("NAME", name)))
    for found in _NEEDS_RING.finditer(plain):
        if found.group(1) in rings and not (typed and found.group(2) == "output"):
            edits.append((*found.span(), f"{found.group(1)}__{found.group(2)}("))
    for found in _SEND.finditer(plain) if typed else ():
        edits += _typed_call(plain, found, rings)
    text = source
    for start, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    if _QUEUE.search(plain):  # BCC does not tell the kernel the types of these, only of others
        text += f"\nBPF_ARRAY(ebpflab{LAYOUT_SUFFIX}, u32, 1);"
    macros = {**_DECLARED, **_COUNTED_AND_TYPED} if typed else _DECLARED
    return Instrumented(text, [f"-D{name}={body}" for name, body in macros.items()], rings, typed)


def _typed_call(plain: str, call: "re.Match[str]", rings: List[str]) -> List[Tuple[int, int, str]]:
    """The edits of one call: (where, until where, what comes there)."""
    buffer, method = call.groups()
    data: Optional[int] = call.end()
    if method.startswith("perf_submit"):
        context = _CONTEXT.match(plain, call.end())
        data = context.end() if context and method == "perf_submit" else None
    edits, name = [], _UNNAMED
    if data is not None:
        cast = _TYPELESS_CAST.match(plain, data)
        if cast:
            edits.append((*cast.span(), ""))
        variable = _VARIABLE.match(plain, cast.end() if cast else data)
        name = variable.group(1) if variable else name
    if buffer in rings and method == "ringbuf_output":
        return [*edits, (*call.span(), f"EBPFLAB_OUTPUT({buffer}, {name}, ")]
    return [*edits, (call.end(), call.end(), f"EBPFLAB_TO({buffer}, {name}) ")]


_OURS = re.compile(
    r"EBPFLAB_TO\(\w+, \w+\) "
    r"|E(?=BPFLAB_(?:PERF|RINGBUF)_OUTPUT\b)|(?<=EBPF)LAB(?=_(?:PERF|RINGBUF)_OUTPUT\b)"
)
_PLACE = re.compile(r"^(\S+:\d+:)(\d+)(: .*)$")


def blames_us(log: str) -> bool:
    """Whether clang may object to something that `instrument` has added."""
    return re.search(rf"EBPFLAB_|ebpflab_|\w{LOST_SUFFIX}", _OURS.sub("", log)) is not None


def as_written(log: str) -> str:
    """What clang or the verifier has printed, with the lines that it quotes as the reader's are."""
    lines = log.split("\n")
    for number, line in enumerate(lines):
        places = [found.span() for found in _OURS.finditer(line)]
        if not places:
            continue
        # clang 19 puts the line's number and a bar before what it quotes.
        margin = len(line) - len(re.sub(r"^ *\d+ \| ", "", line))
        lines[number] = _without(line, places)
        place = _PLACE.match(lines[number - 1]) if number else None
        if place:
            column = int(place.group(2))
            before = [each for each in places if each[0] - margin < column - 1]
            column = len(_without(line[: margin + column], before)) - margin
            lines[number - 1] = f"{place.group(1)}{column}{place.group(3)}"
        if number + 1 < len(lines) and not lines[number + 1].strip(" |~^"):
            lines[number + 1] = _without(lines[number + 1], places)
    return "\n".join(lines)


def _without(line: str, places: List[Tuple[int, int]]) -> str:
    """A line without what stands at ``places``."""
    for start, end in reversed(places):
        line = line[:start] + line[end:]
    return line
