from bcc import BPF

source = """
BPF_HASH(cache, u64, u64);

int trace_start(struct pt_regs *ctx) {
    u64 pid = bpf_get_current_pid_tgid();
    u64 start_ns = bpf_ktime_get_ns();
    cache.update(&pid, &start_ns);
    return 0;
}

int print_duration(struct pt_regs *ctx) {
    u64 pid = bpf_get_current_pid_tgid();
    u64 *start_ns = cache.lookup(&pid);
    if (start_ns == 0)
        return 0;
    u64 duration_ns = bpf_ktime_get_ns() - *start_ns;
    bpf_trace_printk("the call took %d", duration_ns);
    return 0;
}
"""
go = "/opt/ebpflab/labs/go-hello/work"
bpf = BPF(text=source)
bpf.attach_uprobe(name=go, sym="main.deep", fn_name="trace_start")
bpf.attach_uretprobe(name=go, sym="main.deep", fn_name="print_duration")
bpf.trace_print()
