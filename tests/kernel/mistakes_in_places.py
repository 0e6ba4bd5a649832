"""Places that nothing can be attached to."""

from __future__ import annotations

from mistake import GOOD, Case

from ebpflab import errors

KERNEL = (
    Case(
        "a misspelt function of the kernel",
        errors.UnknownEvent,
        (r"no function 'do_sys_opennat2'", r"Closest matches: .*do_sys_openat2"),
        'Take one of the closest matches, or search: `lab.kernel_functions("do_sys_open*")`.',
        code='prog.attach_kprobe(event="do_sys_opennat2", fn_name="count")',
    ),
    Case(
        "a system call without its prefix",
        errors.UnknownEvent,
        (r"no function 'sys_execve'", r"lab\.syscall_name\('execve'\)"),
        '`event=lab.syscall_name("execve")`, which is right on every processor.',
        code='prog.attach_kprobe(event="sys_execve", fn_name="count")',
    ),
    Case(
        "a misspelt system call",
        errors.UnknownEvent,
        (r"no system call 'exceve'", r"execve"),
        "Take one of the closest matches.",
        code='lab.syscall_name("exceve")',
    ),
    Case(
        "a function that the compiler has inlined",
        errors.UnknownEvent,
        (r"static inline", r"Probe a\s+caller"),
        "Look into its callers in the kernel's source, or for a tracepoint in the same place.",
        code='prog.attach_kprobe(event="task_pid_nr", fn_name="count")',
    ),
    Case(
        "a function that must not be probed",
        errors.AttachError,
        (r"kernel's own list of functions that a probe would crash",),
        "Take one of its callers, or a tracepoint: here `exceptions:page_fault_user`.",
        code='prog.attach_kprobe(event="exc_page_fault", fn_name="count")',
    ),
    Case(
        "a misspelt tracepoint",
        errors.UnknownEvent,
        (r"no tracepoint 'sched:sched_proces_exec'", r"Closest matches: sched:sched_process_exec"),
        'Take one of the closest matches, or search: `lab.tracepoints("sched:*")`.',
        code='prog.attach_tracepoint(tp="sched:sched_proces_exec", fn_name="note")',
    ),
    Case(
        "a tracepoint of another category",
        errors.UnknownEvent,
        (r"no tracepoint 'syscalls:sched_process_exec'", r"sched:sched_process_exec"),
        "The name was right. Take the category from the closest match.",
        code='prog.attach_tracepoint(tp="syscalls:sched_process_exec", fn_name="note")',
    ),
    Case(
        "a tracepoint without its category",
        errors.UnknownEvent,
        (r"'sched_process_exec'", r"category:name", r"sched:sched_process_exec"),
        "Write category, colon, name.",
        code='prog.attach_tracepoint(tp="sched_process_exec", fn_name="note")',
    ),
    Case(
        "a tracepoint that is gone",
        errors.UnknownEvent,
        (r"no tracepoint 'bpf:bpf_prog_load'",),
        "Removed in 2018. [Chapter 03](../notebooks/03-tracepoints.ipynb) has three ways of today.",
        code='prog.attach_tracepoint(tp="bpf:bpf_prog_load", fn_name="note")',
    ),
    Case(
        "a function of the kernel taken for a tracepoint",
        errors.UnknownEvent,
        (r"'vfs_read'", r"attach_kprobe"),
        "Tracepoints are in `lab.tracepoints()`, functions in `lab.kernel_functions()`.",
        code='prog.attach_tracepoint(tp="vfs_read", fn_name="count")',
    ),
    Case(
        "a raw tracepoint with its category",
        errors.UnknownEvent,
        (r"raw tracepoint", r"without a category", r"sched_process_exec"),
        '`tp="sched_process_exec"`.',
        code='prog.attach_raw_tracepoint(tp="sched:sched_process_exec", fn_name="count")',
    ),
    Case(
        "a function that takes the registers, at a tracepoint",
        errors.AttachError,
        (r"reads beyond", r"struct tracepoint__sched__sched_process_exec \*args"),
        "Change the parameter, and read fields instead of registers: `args->pid`.",
        code="prog = lab.load(program)\n"
        'prog.attach_tracepoint(tp="sched:sched_process_exec", fn_name="count")',
        c="#include <uapi/linux/ptrace.h>\n\nint count(struct pt_regs *ctx) {\n"
        "    return PT_REGS_PARM1(ctx) > 0;\n}\n",
    ),
    Case(
        "an offset inside of a kernel function's instruction",
        errors.AttachError,
        (r"Cannot attach 1 bytes into 'vfs_read'", r"first byte of an\s+instruction"),
        "Leave `event_off` out, unless you have the function's machine code before you.",
        code='prog.attach_kprobe(event="vfs_read", event_off=1, fn_name="count")',
    ),
    Case(
        "one function for a kprobe and for a tracepoint",
        errors.AttachError,
        (r"'count' is attached to a kprobe", r"tracepoint", r"function of its\s+own"),
        "Two functions. What they share goes into a `static` function that both call.",
        code='prog.attach_kprobe(event="vfs_read", fn_name="count")\n'
        'prog.attach_tracepoint(tp="sched:sched_process_exec", fn_name="count")',
    ),
    Case(
        "a function that attaches itself by a misspelt name",
        errors.UnknownEvent,
        (r"no function 'vfs_raed'", r"vfs_read"),
        "What comes after `kprobe__` is the name of the kernel's function.",
        c="int kprobe__vfs_raed(struct pt_regs *ctx) { return 0; }\n",
    ),
    Case(
        "a misspelt TRACEPOINT_PROBE",
        errors.UnknownEvent,
        (r"no tracepoint 'sched:sched_swich'", r"sched:sched_switch"),
        "Take the closest match; category and name are two arguments here.",
        c="TRACEPOINT_PROBE(sched, sched_swich) { return 0; }\n",
    ),
    Case(
        "a misspelt function of one's own",
        errors.UnknownName,
        (r"no function 'cuont'", r"Closest matches: count"),
        "`fn_name` is the name of a function of your C.",
        code='prog.attach_kprobe(event="vfs_read", fn_name="cuont")',
    ),
)

WORK = 'prog.attach_uprobe(name="/tmp/work", sym="work", fn_name="count"'
PROGRAMS = (
    Case(
        "a misspelt function of a program",
        errors.UnknownEvent,
        (r"no function 'wrok' in '/tmp/work'", r"Closest matches: work"),
        'Take the closest match, or search: `lab.symbols("/tmp/work")`.',
        code='prog.attach_uprobe(name="/tmp/work", sym="wrok", fn_name="count")',
    ),
    Case(
        "a program that is not there",
        errors.UnknownEvent,
        (r"no file '/tmp/wrok'",),
        'The path is one of the *traced* machine: `lab.run(["ls", "/tmp"])` shows what is there.',
        code='prog.attach_uprobe(name="/tmp/wrok", sym="work", fn_name="count")',
    ),
    Case(
        "a library that is not there",
        errors.UnknownEvent,
        (r"no library 'libd'", r"whole\s+path"),
        "Short names leave out `lib`: the C library is `c`.",
        code='prog.attach_uprobe(name="libd", sym="malloc", fn_name="count")',
    ),
    Case(
        "a script",
        errors.AttachError,
        (r"not an ELF file", r"It is a script.*bash"),
        "Probe the interpreter, or what the script starts.",
        code='prog.attach_uprobe(name="/usr/bin/ldd", sym="main", fn_name="count")',
    ),
    Case(
        "a program for another processor",
        errors.AttachError,
        (r"another processor \(ARM \(32 bits\)\)",),
        "Build it, or copy it, for the machine that is traced.",
        code='prog.attach_uprobe(name="/tmp/work-arm", sym="work", fn_name="count")',
    ),
    Case(
        "a stripped program",
        errors.UnknownEvent,
        (r"stripped",),
        "Build it without `-s`. The symbols of Debian's programs are in packages `…-dbgsym`.",
        code='prog.attach_uprobe(name="/tmp/work-stripped", sym="work", fn_name="count")',
    ),
    Case(
        "an offset inside of an instruction",
        errors.AttachError,
        (r"work\+1 .*inside of an instruction", r"corrupt"),
        "Take one of the two places that the message names.",
        code='prog.attach_uprobe(name="/tmp/work", sym="work", fn_name="count", sym_off=1)',
    ),
    Case(
        "an address inside of an instruction",
        errors.AttachError,
        (r"work\+1 .*inside of an instruction", r"corrupt"),
        "The same by its address.",
        code='work = lab.symbols("/tmp/work", "work")["address"].iloc[0]\n'
        'prog.attach_uprobe(name="/tmp/work", addr=int(work) + 1, fn_name="count")',
    ),
    Case(
        "an address where nothing is",
        errors.AttachError,
        (r"Nothing of '/tmp/work'",),
        '`lab.symbols("/tmp/work", "work")` has the address of `work`.',
        code='prog.attach_uprobe(name="/tmp/work", addr=0x7fff0000, fn_name="count")',
    ),
    Case(
        "neither a function nor an address",
        errors.AttachError,
        (r"sym=", r"addr="),
        '`sym="work"`.',
        code='prog.attach_uprobe(name="/tmp/work", fn_name="count")',
    ),
    Case(
        "a process that has ended",
        errors.AttachError,
        (r"no process \d+",),
        "Start it so that it waits (`lab.start`), attach, and then let it go on.",
        code='gone = lab.run(["/tmp/work", "1"]).pid\n' + WORK + ", pid=gone)",
    ),
    Case(
        "too many probes",
        errors.AttachError,
        (r"too many probes", r"RLIMIT_NOFILE", r"prog\.detach"),
        "Fewer places: a pattern of functions is seldom the question. Or count in a tracepoint.",
        code='path = "/opt/ebpflab/labs/go-hello/work"\n'
        'for symbol in lab.symbols(path)["symbol"]:\n'
        '    prog.attach_uprobe(name=path, sym=symbol, fn_name="count")',
    ),
    Case(
        "a uretprobe on a Go program",
        errors.AttachError,
        (r"Go program", r"attach_go_return"),
        "`attach_go_return`, with the same arguments.",
        code='prog.attach_uretprobe(name="/opt/ebpflab/labs/go-hello/hello", sym="main.main",'
        ' fn_name="count")',
    ),
    Case(
        "a Go function without its package",
        errors.UnknownEvent,
        (r"begins with its package", r"main\.handle"),
        '`main.handle`. `lab.go_functions(path, "main.*")` lists them.',
        code='prog.attach_go_return(name="/opt/ebpflab/labs/go-hello/work", sym="handle",'
        ' fn_name="count")',
    ),
    Case(
        "a stripped Go program",
        errors.AttachError,
        (r"stripped", r"gopclntab"),
        'Build it without `-ldflags="-s -w"`.',
        code='prog.attach_go_return(name="/opt/ebpflab/labs/go-hello/work-stripped",'
        ' sym="main.handle", fn_name="count")',
    ),
)

LOOP = 'usdt = lab.usdt("/opt/ebpflab/labs/usdt-c/usdt_loop")\n'
USDT = (
    Case(
        "a misspelt USDT probe",
        errors.UnknownEvent,
        (r"'stpe'", r"step"),
        "Take the name from the list in the message, or from `lab.usdt_probes(path)`.",
        code=LOOP + 'usdt.enable_probe(probe="stpe", fn_name="count")',
    ),
    Case(
        "a misspelt USDT provider",
        errors.UnknownEvent,
        (r"usdt_lop", r"usdt_loop:step"),
        "Take the closest match, or leave the provider out.",
        code=LOOP + 'usdt.enable_probe(probe="usdt_lop:step", fn_name="count")',
    ),
    Case(
        "a program without USDT probes",
        errors.UnknownEvent,
        (r"no USDT probe",),
        "Probe a function of it, or build it with its probes.",
        code='lab.usdt("/tmp/work")',
    ),
    Case(
        "a process of another program",
        errors.AttachError,
        (r"Process \d+ does not use", r"it runs"),
        "`workload = lab.start([...])`, then `lab.usdt(path, pid=workload.pid)`; or no `pid=`.",
        code='lab.usdt("/opt/ebpflab/labs/usdt-c/usdt_loop", pid=lab.agent_pid)',
    ),
    Case(
        "a USDT object with nothing enabled",
        errors.ProgramError,
        (r"enable_probe",),
        "Enable first, load second.",
        code=LOOP + "lab.load(program, usdt_contexts=[usdt])",
        c=GOOD,
    ),
    Case(
        "an argument that the probe has not",
        errors.CompileError,
        (r"finds no such argument",),
        "Arguments are counted from 1, and this probe has three.",
        code=LOOP + 'usdt.enable_probe(probe="step", fn_name="on_step")\n'
        "lab.load(program, usdt_contexts=[usdt])",
        c="#include <uapi/linux/ptrace.h>\n\nint on_step(struct pt_regs *ctx) {\n"
        "    u64 fourth = 0;\n"
        "    bpf_usdt_readarg(4, ctx, &fourth);\n    return 0;\n}\n",
    ),
)
