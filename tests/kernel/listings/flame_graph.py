import time

from bcc import BPF, PerfSWConfig, PerfType

source = """
#include <uapi/linux/ptrace.h>
#include <uapi/linux/bpf_perf_event.h>

struct trace_t {
    int stack_id;
};
BPF_HASH(cache, struct trace_t);
BPF_STACK_TRACE(traces, 10000);

int collect_stack_traces(struct bpf_perf_event_data *ctx) {
    struct trace_t trace = {.stack_id = traces.get_stackid(&ctx->regs, BPF_F_USER_STACK)};
    cache.increment(trace);
    return 0;
}
"""
bpf = BPF(text=source)
bpf.attach_perf_event(
    ev_type=PerfType.SOFTWARE,
    ev_config=PerfSWConfig.CPU_CLOCK,
    fn_name="collect_stack_traces",
    sample_period=1,
)
try:
    time.sleep(100000)
except KeyboardInterrupt:
    pass
for trace, count in sorted(bpf["cache"].items(), key=lambda item: item[1].value):
    names = [bpf.sym(address, -1) for address in bpf["traces"].walk(trace.stack_id)]
    print(";".join(name.decode() for name in names), count.value)
