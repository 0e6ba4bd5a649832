"""What a perf event hands to a function, in the tests of perf events and of stacks."""

from __future__ import annotations

# It begins with the registers, which only their size matters of. uapi/linux/bpf_perf_event.h says
# the same, and takes four times as long to compile.
SAMPLE_C = r"""
#ifdef bpf_target_arm64
struct sample { char registers[272]; u64 sample_period, addr; };
#else
struct sample { char registers[168]; u64 sample_period, addr; };
#endif
"""
