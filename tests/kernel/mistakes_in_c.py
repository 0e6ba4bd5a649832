"""Programs that the compiler or the verifier refuses."""

from __future__ import annotations

from mistake import Case

from ebpflab import errors

ATTACH = 'prog = lab.load(program)\nprog.attach_kprobe(event="vfs_read", fn_name="count")'
COMPILER = (
    Case(
        "a variable that is not declared",
        errors.CompileError,
        (r"at line 3: use of undeclared identifier 'sizee'", r"Misspelt, or its declaration"),
        "Look at the caret, and at what clang asks: did you mean …?",
        c="int count(struct pt_regs *ctx) {\n    u32 size = 1;\n    return sizee;\n}\n",
    ),
    Case(
        "a map that is not declared",
        errors.CompileError,
        (r"at line 2: use of undeclared identifier 'calls'", r"BPF_\.\.\. map"),
        "Declare it above the function: `BPF_ARRAY(calls, u64, 1);`.",
        c="int count(struct pt_regs *ctx) {\n    calls.increment(0);\n    return 0;\n}\n",
    ),
    Case(
        "a semicolon that is missing",
        errors.CompileError,
        (r"at line 2: expected ';'",),
        "The caret stands behind the last thing that was understood. Put the semicolon there.",
        c="int count(struct pt_regs *ctx) {\n    u32 pid = bpf_get_current_pid_tgid()\n"
        "    return 0;\n}\n",
    ),
    Case(
        "an include that is missing",
        errors.CompileError,
        (r"at line 2", r"#include <uapi/linux/ptrace\.h>"),
        "Put that line at the top. Macros such as `PT_REGS_RC` look into the struct.",
        c="int count(struct pt_regs *ctx) {\n    return PT_REGS_RC(ctx) > 0;\n}\n",
    ),
    Case(
        "a struct of the kernel without its header",
        errors.CompileError,
        (r"struct task_struct", r"#include <linux/sched\.h>"),
        "A pointer can be passed on without the header; looking into what it points at needs it.",
        c="int count(struct pt_regs *ctx) {\n"
        "    struct task_struct *task = (struct task_struct *)bpf_get_current_task();\n"
        "    return task->tgid;\n}\n",
    ),
    Case(
        "a header that does not exist",
        errors.CompileError,
        (r"linux/shed\.h", r"Closest matches: linux/sched\.h"),
        "Take one of the closest matches.",
        c="#include <linux/shed.h>\n\nint count(struct pt_regs *ctx) { return 0; }\n",
    ),
    Case(
        "a header of the C library",
        errors.CompileError,
        (r"stdio\.h", r"C library"),
        "Take the line out. BCC includes what its own macros need.",
        c="#include <stdio.h>\n\nint count(struct pt_regs *ctx) { return 0; }\n",
    ),
    Case(
        "a function of the C library",
        errors.CompileError,
        (r"'strlen_of'", r"no function or BPF helper"),
        "Find a helper that does it, or write it yourself in C.",
        c='int count(struct pt_regs *ctx) {\n    return strlen_of("ls");\n}\n',
    ),
    Case(
        "a parameter of type void",
        errors.CompileError,
        (r"'void'", r"void \*ctx"),
        "Write `void *ctx`. The book's listings have this one.",
        c="int count(void ctx) {\n    return 0;\n}\n",
    ),
    Case(
        "a field that the tracepoint has not",
        errors.CompileError,
        (r"at line 2: no member named 'file'", r"lab\.tracepoint_format"),
        "Print the format, and copy the field's name from there.",
        c="TRACEPOINT_PROBE(sched, sched_process_exec) {\n    return args->file;\n}\n",
    ),
    Case(
        "a field that your own struct has not",
        errors.CompileError,
        (r"at line 5: no member named 'pidd'",),
        "Here clang knows the answer itself.",
        c="struct event { u32 pid; };\n\nint count(struct pt_regs *ctx) {\n"
        "    struct event event = {};\n    event.pidd = 1;\n    return 0;\n}\n",
    ),
    Case(
        "a signed division",
        errors.CompileError,
        (r"signed", r"unsigned"),
        "`u64 n` instead of `s64 n`, if it cannot be negative; else divide its absolute value.",
        c="#include <uapi/linux/ptrace.h>\n\nint count(struct pt_regs *ctx) {\n"
        "    s64 n = PT_REGS_PARM1(ctx);\n    return n % 3;\n}\n",
    ),
    Case(
        "more than 512 bytes of stack",
        errors.CompileError,
        (r"[Ss]tack", r"512 bytes"),
        "Reserve the record in the ring buffer (`ringbuf_reserve`), or keep it in a per-CPU array.",
        c="#include <uapi/linux/ptrace.h>\n\nint count(struct pt_regs *ctx) {\n"
        "    char big[800] = {};\n"
        "    bpf_probe_read_user(&big, sizeof(big), (void *)PT_REGS_PARM1(ctx));\n"
        "    return big[bpf_get_prandom_u32() % 700];\n}\n",
    ),
    Case(
        "a ring buffer whose pages are no power of two",
        errors.ProgramError,
        (r"did not make the map 'events': Invalid argument", r"a power of two"),
        "Take 8 or 16. The compiler has nothing against 10, but the kernel has.",
        c="BPF_RINGBUF_OUTPUT(events, 10);\n\nint count(struct pt_regs *ctx) { return 0; }\n",
    ),
    Case(
        "no program at all",
        errors.ProgramError,
        (r"empty",),
        "The text is empty, or all of it is white space.",
        code='lab.load("")',
    ),
    Case(
        "the path of a file that is not there",
        errors.ProgramError,
        (r"Cannot read the C file 'my-tracer\.c'",),
        "A name that ends in `.c` is taken for a path, seen from the notebook's folder.",
        code='lab.load("my-tracer.c")',
    ),
)

VERIFIER = (
    Case(
        "a pointer that may be NULL",
        errors.VerifierError,
        (r"map_value_or_null", r"may be NULL", r"6 \|     \(\*value\)\+\+;"),
        "`if (!value) return 0;` behind the lookup. Or `seen.increment(key)`, which does it all.",
        code=ATTACH,
        c="BPF_HASH(seen, u32, u64);\n\nint count(struct pt_regs *ctx) {\n"
        "    u32 key = bpf_get_current_pid_tgid() >> 32;\n"
        "    u64 *value = seen.lookup(&key);\n    (*value)++;\n    return 0;\n}\n",
    ),
    Case(
        "a loop without an end",
        errors.VerifierError,
        (r"must see the loop end",),
        "`for (int i = 0; i < 100; i++)`. What would take longer belongs in the notebook.",
        code=ATTACH,
        c="int count(struct pt_regs *ctx) {\n"
        "    while (bpf_get_prandom_u32() != 7)\n        ;\n    return 0;\n}\n",
    ),
    Case(
        "an index out of bounds",
        errors.VerifierError,
        (r"unbounded memory access", r"index is in bounds", r"9 \|         table->slots"),
        "`if (table && slot < 8)`. A bound that the verifier cannot see does not count.",
        code=ATTACH,
        c="struct table { u64 slots[8]; };\nBPF_ARRAY(tables, struct table, 1);\n\n"
        "int count(struct pt_regs *ctx) {\n    int zero = 0;\n"
        "    struct table *table = tables.lookup(&zero);\n"
        "    u32 slot = bpf_get_prandom_u32();\n"
        "    if (table)\n        table->slots[slot] = 1;\n    return 0;\n}\n",
    ),
    Case(
        "a return that is missing",
        errors.VerifierError,
        (r"R0 !read_ok", r"return 0;"),
        "`return 0;` on every path, also on those that you think are never taken.",
        code=ATTACH,
        c="int count(struct pt_regs *ctx) {\n    // your lines\n}\n",
    ),
    Case(
        "memory of the program followed as if it were ours",
        errors.VerifierError,
        (r"invalid mem access", r"bpf_probe_read_user"),
        "Copy it first: `bpf_probe_read_user(&first, sizeof(first), name);`.",
        code=ATTACH,
        c="#include <uapi/linux/ptrace.h>\n\nint count(struct pt_regs *ctx) {\n"
        "    char *name = (char *)PT_REGS_PARM2(ctx);\n    char first;\n"
        "    __builtin_memcpy(&first, name, 1);\n    return first;\n}\n",
    ),
    Case(
        "a reserved record that is never sent",
        errors.VerifierError,
        (r"Unreleased reference", r"submitted or discarded"),
        "`events.ringbuf_submit(event, 0);` before the last return.",
        code=ATTACH,
        c="struct event { u32 pid; };\nBPF_RINGBUF_OUTPUT(events, 8);\n\n"
        "int count(struct pt_regs *ctx) {\n"
        "    struct event *event = events.ringbuf_reserve(sizeof(struct event));\n"
        "    if (!event)\n        return 0;\n    event->pid = 1;\n    return 0;\n}\n",
    ),
    Case(
        "a helper that is not for this kind of program",
        errors.VerifierError,
        (r"bpf_redirect", r"kind of probe"),
        "bpf-helpers(7) tells what each helper is for. This one is for network packets.",
        code=ATTACH,
        c="int count(struct pt_regs *ctx) {\n    return bpf_redirect(1, 0);\n}\n",
    ),
)
