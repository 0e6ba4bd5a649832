from bcc import BPF

source = """
int ret_sys_execve(struct pt_regs *ctx) {
    char comm[16];
    bpf_get_current_comm(&comm, sizeof(comm));
    int result = PT_REGS_RC(ctx);
    bpf_trace_printk("program %s, result %d", comm, result);
    return 0;
}
"""
bpf = BPF(text=source)
bpf.attach_kretprobe(event=bpf.get_syscall_fnname("execve"), fn_name="ret_sys_execve")
bpf.trace_print()
