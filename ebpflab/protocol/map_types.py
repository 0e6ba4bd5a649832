"""enum bpf_map_type (include/uapi/linux/bpf.h), as far as BCC's macros make them."""

HASH, ARRAY, PROG_ARRAY, PERF_EVENT_ARRAY, PERCPU_HASH, PERCPU_ARRAY, STACK_TRACE = range(1, 8)
CGROUP_ARRAY, LRU_HASH, LRU_PERCPU_HASH, LPM_TRIE, ARRAY_OF_MAPS, HASH_OF_MAPS = range(8, 14)
QUEUE, STACK = 22, 23
RINGBUF = 27

PER_CPU = (PERCPU_HASH, PERCPU_ARRAY, LRU_PERCPU_HASH)
"""Their values are one for each CPU."""
