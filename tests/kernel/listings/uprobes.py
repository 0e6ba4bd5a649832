from bcc import BPF

source = """
int trace_go(struct pt_regs *ctx) {
    u64 pid = bpf_get_current_pid_tgid();
    bpf_trace_printk("a Go function in process %d", pid);
    return 0;
}
"""
bpf = BPF(text=source)
bpf.attach_uprobe(name="/opt/ebpflab/labs/go-hello/work", sym="main.known", fn_name="trace_go")
bpf.trace_print()
