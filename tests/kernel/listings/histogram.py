import time

from bcc import BPF

source = """
#include <uapi/linux/ptrace.h>

BPF_HASH(cache, u64, u64);
BPF_HISTOGRAM(histogram);

int load_begins(void ctx) {
    u64 pid = bpf_get_current_pid_tgid();
    u64 start_ns = bpf_ktime_get_ns();
    cache.update(&pid, &start_ns);
    return 0;
}

int load_ends(void ctx) {
    u64 pid = bpf_get_current_pid_tgid();
    u64 *start_ns = cache.lookup(&pid);
    if (start_ns == 0)
        return 0;
    u64 delta = bpf_ktime_get_ns() - *start_ns;
    histogram.increment(bpf_log2l(delta));
    return 0;
}
"""
bpf = BPF(text=source)
bpf.attach_kprobe(event="bpf_prog_load", fn_name="load_begins")
bpf.attach_kretprobe(event="bpf_prog_load", fn_name="load_ends")
try:
    time.sleep(100000)
except KeyboardInterrupt:
    pass
bpf["histogram"].print_log2_hist("msecs")
