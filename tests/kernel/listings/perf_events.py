from collections import Counter

from bcc import BPF

source = """
#include <uapi/linux/ptrace.h>

BPF_PERF_OUTPUT(events);

int do_sys_execve(struct pt_regs *ctx, void filename, void argv, void envp) {
    char comm[16];
    bpf_get_current_comm(&comm, sizeof(comm));
    events.perf_submit(ctx, &comm, sizeof(comm));
    return 0;
}
"""
bpf = BPF(text=source)
bpf.attach_kprobe(event=bpf.get_syscall_fnname("execve"), fn_name="do_sys_execve")
programs = Counter()


def count(cpu, data, size):
    comm = bpf["events"].event(data)
    programs[comm] += 1


bpf["events"].open_perf_buffer(count)
try:
    while True:
        bpf.perf_buffer_poll()
except KeyboardInterrupt:
    pass
print(programs)
