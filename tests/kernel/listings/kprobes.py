from bcc import BPF

source = """
#include <uapi/linux/ptrace.h>

int do_sys_execve(struct pt_regs *ctx) {
    char comm[16];
    bpf_get_current_comm(&comm, sizeof(comm));
    bpf_trace_printk("executing program: %s\\n", comm);
    return 0;
}
"""
bpf = BPF(text=source)
bpf.attach_kprobe(event=bpf.get_syscall_fnname("execve"), fn_name="do_sys_execve")
bpf.trace_print()
