from bcc import BPF, USDT

source = """
#include <uapi/linux/ptrace.h>

int trace_hello(struct pt_regs *ctx) {
    u32 pid = bpf_get_current_pid_tgid() >> 32;
    bpf_trace_printk("process %d says hello", pid);
}
"""
usdt = USDT(path="/tmp/hello_usdt")
usdt.enable_probe(probe="probe-main", fn_name="trace_hello")
bpf = BPF(text=source, usdt=usdt)
bpf.trace_print()
