"""The book's nine listings: what each does today, fault by fault, and why it was repaired so.

`listings/` has each in our own words, with the faults of the book's, as a program for BCC's own
Python. A listing with several faults shows the first; so each `Fault` after the first puts right
what came before it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import repaired

from ebpflab import Lab


@dataclass(frozen=True)
class Fault:
    """What is seen, as a regular expression for the output, when ``changes`` have been made."""

    seen: str
    meaning: str
    changes: tuple[tuple[str, str], ...] = ()
    command: tuple[str, ...] = ("/bin/sh", "-c", repaired.STARTS)


@dataclass(frozen=True)
class Listing:
    """One listing: its file in listings/, its faults, and its repaired form."""

    file: str
    name: str
    faults: tuple[Fault, ...]
    repair: str
    today: Callable[[Lab], str]
    chapter: str


LOADER = ("/usr/bin/python3", "-c", repaired.LOADER)
VOID = ("(void ctx)", "(void *ctx)")
UNQUOTED = (("/tmp/hello_usdt", "/tmp/unquoted"), ("probe-main", "probe_main"))

LISTINGS = (
    Listing(
        "kprobes",
        "kprobes",
        (
            Fault(
                r"executing program: (?!true)\w+",
                "Works, and prints the *caller's* name: no line says `true`.",
            ),
        ),
        "`syscall__execve` takes the new program's name from the arguments. `collect()` ends;"
        " `trace_print()` waits for ever.",
        repaired.kprobes,
        "01-kprobes",
    ),
    Listing(
        "kretprobes",
        "kretprobes",
        (
            Fault(
                r"error: incomplete definition of type 'struct pt_regs'",
                "`PT_REGS_RC` looks into a struct that nobody has declared.",
            ),
            Fault(
                r"program sh, result -2",
                "With the include put back it works.",
                (("int ret_sys", "#include <uapi/linux/ptrace.h>\nint ret_sys"),),
                ("/bin/sh", "-c", repaired.FAILING),
            ),
        ),
        "`#include <uapi/linux/ptrace.h>`.",
        repaired.kretprobes,
        "02-kretprobes",
    ),
    Listing(
        "tracepoints",
        "tracepoints",
        (
            Fault(r"error: argument may not have 'void' type", "`void ctx` is no C parameter."),
            Fault(
                r"Exception: Failed to attach BPF program .* to tracepoint b?'bpf:bpf_prog_load'",
                "The tracepoint was removed in 2018 (4d220ed0f814).",
                (VOID,),
            ),
        ),
        "`syscalls:sys_enter_bpf` with `cmd == 5`, and a parameter of the tracepoint's own type.",
        repaired.tracepoints,
        "03-tracepoints",
    ),
    Listing(
        "uprobes",
        "uprobes",
        (
            Fault(
                r"a Go function in process \d+",
                "Works, and calls a *thread's* number a process: `>> 32` is missing.",
                command=(repaired.GO, "1", "211"),
            ),
        ),
        "The process is the upper half of `bpf_get_current_pid_tgid()`, the thread the lower.",
        repaired.uprobes,
        "04-uprobes",
    ),
    Listing(
        "uretprobes",
        "uretprobes",
        (
            Fault(
                r"unexpected return pc for main\.deep called from 0x\w+",
                "The traced program dies: Go moves a stack on which the kernel has put a return"
                " address of its own.",
                command=(repaired.GO, "1", "0", "211"),
            ),
        ),
        "`attach_go_return`: a uprobe at each return instruction. Pairs are made by goroutine, not"
        " by thread, and entries are deleted.",
        repaired.uretprobes,
        "05-uretprobes",
    ),
    Listing(
        "usdt",
        "USDT",
        (
            Fault(
                r"USDTException: Failed to enable USDT probe 'probe-main'",
                '`DTRACE_PROBE("hello-usdt", ...)` makes the quotation marks a part of the names.',
            ),
            Fault(
                r"TypeError: .*unexpected keyword argument 'usdt'",
                "Without the quotes, the argument's name is wrong.",
                UNQUOTED,
            ),
            Fault(
                r"process \d+ says hello",
                "With `usdt_contexts=[usdt]` it works, with a warning: no `return`.",
                (*UNQUOTED, ("usdt=usdt", "usdt_contexts=[usdt]")),
                ("/tmp/unquoted",),
            ),
        ),
        "Names without quotes and hyphens, `usdt_contexts=[usdt]`, and a handler that returns.",
        repaired.usdt,
        "06-usdt",
    ),
    Listing(
        "flame_graph",
        "flame graph",
        (
            Fault(
                r"KeyError",
                "A sample without a stack has a number below zero, and no entry. (Run with 49"
                " samples a second: `sample_period=1` asks for one each nanosecond.)",
                (("sample_period=1", "sample_freq=49"),),
                ("/bin/sleep", "1"),
            ),
        ),
        "`sample_freq=99`, one process, and `prog.stacks()`, which counts samples without a stack.",
        repaired.flame_graph,
        "10-flame-graphs",
    ),
    Listing(
        "histogram",
        "histogram",
        (
            Fault(r"error: argument may not have 'void' type", "`void ctx` again.", command=LOADER),
            Fault(
                r"msecs +: count +distribution",
                "With `void *ctx` it works. Its unit is wrong: the numbers are nanoseconds.",
                (VOID,),
                LOADER,
            ),
        ),
        "`duration_ns`, and an entry is deleted once it is used.",
        repaired.histogram,
        "09-histograms",
    ),
    Listing(
        "perf_events",
        "perf events",
        (
            Fault(
                r"error: 'void' must be the first and only parameter if specified",
                "`void filename` is no parameter.",
            ),
            Fault(
                r"TypeError: unhashable type[^\n]*",
                "Without those, `programs[comm] += 1` fails for each event, and nothing is"
                " counted: what BCC gives for a bare array cannot be a key.",
                ((", void filename, void argv, void envp", ""),),
            ),
        ),
        "A struct with a field: the DataFrame has a column of strings, and `value_counts()`"
        " counts.",
        repaired.perf_events,
        "08-perf-events",
    ),
)
