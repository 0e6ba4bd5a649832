"""What is asked of programs, tables and machines, and cannot be had."""

from __future__ import annotations

from mistake import Case

from ebpflab import errors

ROWS = (
    Case(
        "a map that the program has not",
        errors.UnknownName,
        (r"no map 'evnets'", r"Closest matches: events"),
        "Take the closest match: it is the name in the `BPF_…` line of your C.",
        code='prog["evnets"]',
    ),
    Case(
        "messages of a program that prints nothing",
        errors.UnknownName,
        (r"does not call bpf_trace_printk",),
        'Rows of a ring buffer are in `prog["events"]`.',
        code="prog.messages",
    ),
    Case(
        "a number of rows below zero",
        ValueError,
        (r"rows",),
        "`rows=10` waits for ten; without `rows` all that are there come.",
        code='prog["events"].collect(rows=-1)',
    ),
    Case(
        "seconds below zero",
        ValueError,
        (r"seconds",),
        "`seconds=5` waits for five at most.",
        code='prog["events"].collect(seconds=-1)',
    ),
    Case(
        "a table asked for events",
        AttributeError,
        (r"'calls'", r"frame\(\)"),
        '`prog["calls"].frame()`.',
        code='prog["calls"].collect(seconds=1)',
    ),
    Case(
        "a stream asked for a histogram",
        AttributeError,
        (r"'events'", r"frame\(\)"),
        "Count in the kernel with `BPF_HISTOGRAM`, or in the notebook: `plots.histogram`.",
        code='prog["events"].histogram()',
    ),
    Case(
        "a table that is no histogram",
        errors.TableError,
        (r"'pairs' is not a histogram", r"BPF_HISTOGRAM"),
        '`prog["pairs"].frame()` shows it as a table.',
        code='prog["pairs"].histogram()',
    ),
    Case(
        "a histogram of values, not of their logarithms",
        errors.TableError,
        (r"key 72, which is no bpf_log2l\(\)", r"scale='linear'"),
        '`returned.increment(bpf_log2l(value))`, or `.histogram(scale="linear")`.',
        code="prog = lab.load(program)\n"
        'prog.attach_uretprobe(name="/tmp/work", sym="work", fn_name="count")\n'
        'lab.run(["/tmp/work", "37"])\n'
        'prog["returned"].histogram()',
        c="#include <uapi/linux/ptrace.h>\n\nBPF_HISTOGRAM(returned, s64);\n\n"
        "int count(struct pt_regs *ctx) {\n    returned.increment(PT_REGS_RC(ctx));\n"
        "    return 0;\n}\n",
    ),
    Case(
        "a closed program",
        errors.ProgramError,
        (r"closed", r"lab\.load"),
        "Run the cell that loads it again.",
        code='prog.close()\nprog["calls"].frame()',
    ),
)

COMMANDS = (
    Case(
        "a command that does not exist",
        errors.WorkloadError,
        (r"'/bin/lss'", r"No such file"),
        "The path is one of the *traced* machine.",
        code='lab.run(["/bin/lss", "/"])',
    ),
    Case(
        "a command with its arguments in one string",
        errors.WorkloadError,
        (r"'ls /'", r"\['ls', '/'\]"),
        '`lab.run(["ls", "/"])`. For pipes: `lab.run(["sh", "-c", "ls / | wc"])`.',
        code='lab.run("ls /")',
    ),
    Case(
        "a command that is nowhere on PATH",
        errors.WorkloadError,
        (r"'lss'", r"folders of PATH"),
        "Check the spelling, or give the whole path.",
        code='lab.run(["lss", "/"])',
    ),
    Case(
        "bytes for its input",
        errors.WorkloadError,
        (r"input= is text",),
        '`input="hello"`.',
        code='lab.run(["/bin/cat"], input=b"hello")',
    ),
    Case(
        "a number among the arguments",
        errors.WorkloadError,
        (r"list of strings", r"write '5'"),
        "`str(n)`.",
        code='lab.run(["/tmp/work", 5])',
    ),
    Case(
        "bytes among the arguments",
        errors.WorkloadError,
        (r"list of strings", r"write 'hello'"),
        "Without the `b`.",
        code='lab.run(["/bin/echo", b"hello"])',
    ),
    Case(
        "a file that may not be run",
        errors.WorkloadError,
        (r"Permission denied", r"not marked as a program"),
        'Name the program that is to read it: `lab.run(["cat", "/etc/passwd"])`.',
        code='lab.run(["/etc/passwd"])',
    ),
    Case(
        "a target that there is not",
        errors.TargetError,
        (r"no target 'vmm'", r"vm"),
        "`Lab()` without a name takes one that works here.",
        code='from ebpflab import Lab\n\nLab("vmm")',
    ),
)
