"""Take the agent's zip off a byte stream and become the agent.

The agent is never installed: whoever wants it sends `u32 length | zip` (little-endian) and
gets the answer b"RUN\\n" when the zip is about to run, as ``__main__`` of this very process,
with the stream on standard input and output. From there on both sides speak the agent's wire.

    bootstrap.py         the stream is standard input and output (ssh)
    bootstrap.py PORT    the stream is a virtio-serial port (the VM). Before it listens, the
                         process imports bcc and compiles a program, then says b"READY\\n":
                         a guest saved at that point answers at once when it is resumed.

Standard library and bcc only; runs under the python3 of every guest (3.9 and later).
"""

import os
import runpy
import struct
import sys

PRECOMPILED = "/opt/ebpflab/precompiled.py"
# The headers that most programs of the chapters start with, so that the compiler's own pages,
# and theirs, are in memory when the first program is compiled.
WARM_UP = r"""
#include <uapi/linux/ptrace.h>
#include <linux/sched.h>
BPF_HASH(seen, u32, u64);
BPF_RINGBUF_OUTPUT(events, 1);
int warm_up(struct pt_regs *ctx) {
    struct { u64 time_ns; u32 pid; char comm[TASK_COMM_LEN]; } event = {};
    event.time_ns = bpf_ktime_get_ns();
    event.pid = bpf_get_current_pid_tgid() >> 32;
    bpf_get_current_comm(&event.comm, sizeof(event.comm));
    seen.increment(event.pid);
    events.ringbuf_output(&event, sizeof(event), 0);
    return 0;
}
"""


def warm_up():
    """Import bcc, compile and load a program, and let go of it again."""
    from bcc import BPF

    for flags in ([], precompiled_flags()):
        try:
            program = BPF(text=WARM_UP, cflags=flags)
        except Exception:  # a BCC older than the kernel; the agent says so, program by program
            return
        program.load_func("warm_up", BPF.KPROBE)
        program.cleanup()


def precompiled_flags():
    """What the agent would give clang, too, for the program above; all such files are read."""
    precompiled = runpy.run_path(PRECOMPILED)
    folder = precompiled["FOLDER"]
    for name in os.listdir(folder) if os.path.isdir(folder) else ():
        if os.path.isfile(os.path.join(folder, name)):
            with open(os.path.join(folder, name), "rb") as file:
                file.read()
    compiler = precompiled["Compiler"].find()
    if compiler is None:
        return []
    store = precompiled["Store"](compiler, precompiled["Kernel"].running())
    prefix = store.longest(precompiled["prefix_of"](WARM_UP))
    return [] if prefix is None else ["-include-pch", store.use(prefix)]


def read_exactly(fd, size):
    """``size`` bytes; exits when the other side has gone, since then nobody needs an agent."""
    data = bytearray()
    while len(data) < size:
        chunk = os.read(fd, min(size - len(data), 1 << 20))
        if not chunk:
            sys.exit("bootstrap: the stream ended before the agent had arrived")
        data += chunk
    return bytes(data)


def write_all(fd, data):
    """A virtio-serial port may take only a part of a write."""
    while data:
        data = data[os.write(fd, data) :]


def take_port(path):
    """Put the virtio-serial port at ``path`` on standard input and output."""
    port = os.open(path, os.O_RDWR)
    os.dup2(port, 0)
    os.dup2(port, 1)
    os.close(port)


def main():
    if len(sys.argv) > 1:
        warm_up()
        take_port(sys.argv[1])
        write_all(1, b"READY\n")
    (size,) = struct.unpack("<I", read_exactly(0, 4))
    agent = os.memfd_create("ebpflab-agent", 0)  # in memory: nothing to clean up, ever
    write_all(agent, read_exactly(0, size))
    write_all(1, b"RUN\n")
    path = "/proc/self/fd/%d" % agent
    sys.argv[:] = [path]
    runpy.run_path(path, run_name="__main__")


if __name__ == "__main__":
    main()
