"""The book's nine listings, repaired: each sees every event of a workload of its own, and no other.

Each function takes a lab, makes a prime number of events, expects as many, and says what it saw.
(Samples of a clock are as many as there is time for.)
What was wrong with each, and how it fails today, is in `listings.py`.
"""

from __future__ import annotations

from collections import Counter

from ebpflab import Lab, PerfSWConfig, PerfType

LABS = "/opt/ebpflab/labs"
GO = f"{LABS}/go-hello/work"
# Loads the smallest program there is, "r0 = 0; exit", seven times, by the bare system call.
LOADER = r"""
import ctypes, os, platform, struct
number = {"x86_64": 321, "aarch64": 280}[platform.machine()]
libc, licence = ctypes.CDLL(None), ctypes.create_string_buffer(b"GPL")
code = ctypes.create_string_buffer(bytes([0xb7, 0, 0, 0, 0, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0]))
where = ctypes.addressof(code), ctypes.addressof(licence)
details = ctypes.create_string_buffer(struct.pack("IIQQ", 1, 2, *where), 72)
for _ in range(7):
    os.close(libc.syscall(number, 5, details, 72))
"""
STARTS = "/bin/true; " * 6 + ":"
FAILING = "/bin/true; /no/such; /bin/true; /no/such; /bin/true; /bin/true; :"


def kprobes(lab: Lab) -> str:
    source = r"""
    #include <uapi/linux/ptrace.h>
    struct start { u32 pid; char filename[32]; };
    BPF_RINGBUF_OUTPUT(starts, 8);
    int syscall__execve(struct pt_regs *ctx, const char __user *filename) {
        struct start start = {.pid = bpf_get_current_pid_tgid() >> 32};
        bpf_probe_read_user_str(start.filename, sizeof(start.filename), filename);
        starts.ringbuf_output(&start, sizeof(start), 0);
        return 0;
    }
    """
    with lab.load(source) as prog:
        prog.attach_kprobe(event=lab.syscall_name("execve"), fn_name="syscall__execve")
        lab.run(["/bin/sh", "-c", STARTS])
        starts = prog["starts"].collect()
    assert list(starts["filename"]) == ["/bin/sh", *["/bin/true"] * 6]
    return "7 starts, 7 rows, each with the name of the new program"


def kretprobes(lab: Lab) -> str:
    source = r"""
    #include <uapi/linux/ptrace.h>
    struct end { int result; char comm[16]; };
    BPF_RINGBUF_OUTPUT(ends, 8);
    int ret_sys_execve(struct pt_regs *ctx) {
        struct end end = {.result = PT_REGS_RC(ctx)};
        bpf_get_current_comm(&end.comm, sizeof(end.comm));
        ends.ringbuf_output(&end, sizeof(end), 0);
        return 0;
    }
    """
    with lab.load(source) as prog:
        prog.attach_kretprobe(event=lab.syscall_name("execve"), fn_name="ret_sys_execve")
        lab.run(["/bin/sh", "-c", FAILING])
        ends = prog["ends"].collect()
    seen = Counter(zip(ends["comm"], ends["result"], strict=True))
    assert seen == {("sh", 0): 1, ("true", 0): 4, ("sh", -2): 2}
    return "7 attempts, 7 rows: 5 with result 0, 2 with -2 (ENOENT)"


def tracepoints(lab: Lab) -> str:
    source = r"""
    BPF_HASH(loads, u32, u64);
    int on_bpf(struct tracepoint__syscalls__sys_enter_bpf *args) {
        if (args->cmd == 5)
            loads.increment(bpf_get_current_pid_tgid() >> 32);
        return 0;
    }
    """
    with lab.load(source) as prog:
        prog.attach_tracepoint(tp="syscalls:sys_enter_bpf", fn_name="on_bpf")
        python = lab.run(["/usr/bin/python3", "-c", LOADER])
        loads = prog["loads"].frame().set_index("key")["value"]
    assert python.returncode == 0 and loads[python.pid] == 7
    return "7 loads, 7 counted"


def uprobes(lab: Lab) -> str:
    source = r"""
    #include <uapi/linux/ptrace.h>
    struct call { u32 pid, tid; };
    BPF_RINGBUF_OUTPUT(calls, 8);
    int trace_go(struct pt_regs *ctx) {
        u64 both = bpf_get_current_pid_tgid();
        struct call call = {.pid = both >> 32, .tid = both};
        calls.ringbuf_output(&call, sizeof(call), 0);
        return 0;
    }
    """
    with lab.load(source) as prog:
        prog.attach_uprobe(name=GO, sym="main.known", fn_name="trace_go")
        done = lab.run([GO, "1", "211"])
        calls = prog["calls"].collect()
    assert len(calls) == 211 and set(calls["pid"]) == {done.pid}
    return "211 calls, 211 rows, all of one process"


def uretprobes(lab: Lab) -> str:
    source = r"""
    #include <uapi/linux/ptrace.h>
    struct call { u64 goroutine, duration_ns; };
    BPF_HASH(starts, u64, u64);
    BPF_RINGBUF_OUTPUT(calls, 64);
    static u64 goroutine_id(struct pt_regs *ctx) {
        u64 id = 0;
        bpf_probe_read_user(&id, sizeof(id), (void *)(ctx->GO_G + GOID_OFFSET));
        return id;
    }
    int on_entry(struct pt_regs *ctx) {
        u64 id = goroutine_id(ctx), now = bpf_ktime_get_ns();
        starts.update(&id, &now);
        return 0;
    }
    int on_return(struct pt_regs *ctx) {
        u64 id = goroutine_id(ctx), *start = starts.lookup(&id);
        struct call call = {.goroutine = id};
        if (!start)
            return 0;
        call.duration_ns = bpf_ktime_get_ns() - *start;
        starts.delete(&id);
        calls.ringbuf_output(&call, sizeof(call), 0);
        return 0;
    }
    """
    with lab.load(source, cflags=lab.go_runtime(GO).cflags) as prog:
        prog.attach_uprobe(name=GO, sym="main.handle", fn_name="on_entry")
        prog.attach_go_return(name=GO, sym="main.handle", fn_name="on_return")
        done = lab.run([GO, "7", "101"])
        calls, left = prog["calls"].collect(), prog["starts"].frame()
    assert done.returncode == 0 and left.empty and (calls["duration_ns"] > 0).all()
    assert sorted(calls.groupby("goroutine").size()) == [101] * 7
    return "7 goroutines × 101 calls, 707 durations; the program ends with 0"


def usdt(lab: Lab) -> str:
    source = r"""
    #include <uapi/linux/ptrace.h>
    struct hello { u32 pid; };
    BPF_RINGBUF_OUTPUT(hellos, 8);
    int trace_hello(struct pt_regs *ctx) {
        struct hello hello = {.pid = bpf_get_current_pid_tgid() >> 32};
        hellos.ringbuf_output(&hello, sizeof(hello), 0);
        return 0;
    }
    """
    probes = lab.usdt(f"{LABS}/usdt-c/hello_usdt")
    probes.enable_probe(probe="probe_main", fn_name="trace_hello")
    with lab.load(source, usdt_contexts=[probes]) as prog:
        pids = [lab.run([f"{LABS}/usdt-c/hello_usdt"]).pid for _ in range(5)]
        assert list(prog["hellos"].collect()["pid"]) == pids
    return "5 runs, 5 rows, each with its process id"


def flame_graph(lab: Lab) -> str:
    source = r"""
    #include <uapi/linux/ptrace.h>
    #include <uapi/linux/bpf_perf_event.h>
    struct sample { u32 pid; int user_stack_id; };
    BPF_HASH(samples, struct sample, u64);
    BPF_STACK_TRACE(stacks, 1024);
    int on_sample(struct bpf_perf_event_data *ctx) {
        struct sample sample = {.pid = bpf_get_current_pid_tgid() >> 32};
        sample.user_stack_id = stacks.get_stackid(&ctx->regs, BPF_F_USER_STACK);
        samples.increment(sample);
        return 0;
    }
    """
    spin = 'void spin(void) { for (;;) __asm__ volatile(""); }\nint main(void) { spin(); }\n'
    flags = ["-fno-omit-frame-pointer", "-mno-omit-leaf-frame-pointer"]  # the second for arm64
    lab.run(["gcc", *flags, "-x", "c", "-o", "/tmp/spin", "-"], input=spin)
    with lab.load(source) as prog:
        spinning = lab.start(["/tmp/spin"])
        prog.attach_perf_event(
            ev_type=PerfType.SOFTWARE,
            ev_config=PerfSWConfig.CPU_CLOCK,
            fn_name="on_sample",
            sample_freq=99,
            pid=spinning.pid,
        )
        while prog["samples"].frame()["value"].sum() < 29:
            lab.run(["sleep", "0.1"])
        prog.detach()
        samples, stacks = prog["samples"].frame(), prog.stacks("samples")
        spinning.stop()
    assert set(samples["pid"]) == {spinning.pid}
    assert stacks["value"].sum() == samples["value"].sum()
    assert [frame.name for frame in stacks["stack"].iloc[0]][-2:] == ["main", "spin"]
    return "all samples are of the one process, and the widest stack is `main;spin`"


def histogram(lab: Lab) -> str:
    source = r"""
    #include <uapi/linux/ptrace.h>
    BPF_HASH(starts, u32, u64);
    BPF_HISTOGRAM(duration_ns);
    int load_begins(struct pt_regs *ctx) {
        u32 tid = bpf_get_current_pid_tgid();
        u64 now = bpf_ktime_get_ns();
        starts.update(&tid, &now);
        return 0;
    }
    int load_ends(struct pt_regs *ctx) {
        u32 tid = bpf_get_current_pid_tgid();
        u64 *start = starts.lookup(&tid);
        if (!start)
            return 0;
        duration_ns.increment(bpf_log2l(bpf_ktime_get_ns() - *start));
        starts.delete(&tid);
        return 0;
    }
    """
    with lab.load(source) as prog:
        prog.attach_kretprobe(event="bpf_prog_load", fn_name="load_ends")
        prog.attach_kprobe(event="bpf_prog_load", fn_name="load_begins")
        lab.run(["/usr/bin/python3", "-c", LOADER])
        assert prog["duration_ns"].histogram()["count"].sum() == 7
        assert prog["starts"].frame().empty
    return "7 loads, 7 in the histogram; nothing is left in the hash"


def perf_events(lab: Lab) -> str:
    source = r"""
    #include <uapi/linux/ptrace.h>
    struct start { char comm[16]; };
    BPF_PERF_OUTPUT(events);
    int syscall__execve(struct pt_regs *ctx) {
        struct start start = {};
        bpf_get_current_comm(&start.comm, sizeof(start.comm));
        events.perf_submit(ctx, &start, sizeof(start));
        return 0;
    }
    """
    with lab.load(source) as prog:
        prog.attach_kprobe(event=lab.syscall_name("execve"), fn_name="syscall__execve")
        lab.run(["/bin/sh", "-c", STARTS])
        callers = prog["events"].collect()["comm"].value_counts()
    assert len(callers) == 2 and callers["sh"] == 6 and callers.sum() == 7
    return "7 attempts, 7 counted: 6 by `sh`, 1 by who started it"
