"""How many probes an agent holds. Asked of the kernel: perf buffers have perf events as well, and
come and go with the programs that are kept idle."""

from __future__ import annotations

from ebpflab import Lab

# BPF_TASK_FD_QUERY (20) succeeds for the descriptor of a kprobe, uprobe or tracepoint, and for no
# other: bpf(2). It is given struct { pid, fd, flags, buf_len; u64 buf; prog_id, fd_type; ... }.
_COUNT = r"""
import ctypes, os, struct, sys
pid, number = int(sys.argv[1]), {"x86_64": 321, "aarch64": 280}[os.uname().machine]
libc = ctypes.CDLL(None)
def is_probe(fd):
    asked = ctypes.create_string_buffer(struct.pack("<IIIIQIIQQ", pid, fd, *[0] * 7), 48)
    return libc.syscall(number, 20, asked, 48) == 0
print(sum(is_probe(int(fd)) for fd in os.listdir(f"/proc/{pid}/fd")))
"""


def probes(lab: Lab) -> int:
    """The kprobes, uprobes and tracepoints that the lab's agent has attached."""
    done = lab.run(["/usr/bin/python3", "-c", _COUNT, str(lab.agent_pid)])
    assert done.returncode == 0, done.stderr
    return int(done.stdout)
