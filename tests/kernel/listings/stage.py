"""Runs a program of the book, written for BCC, as its reader would: in the guest, by its python3.

    python3 stage.py LISTING.py COMMAND...

The book's programs wait for events until Ctrl-C. Here the command comes when the program begins
to wait, and Ctrl-C when it has read what the command caused. Nothing else is different.
"""

import subprocess
import sys
import time
from pathlib import Path

import bcc

command, poll = sys.argv[2:], bcc.BPF.perf_buffer_poll


def trace_print(bpf, fmt=None):
    pipe = bpf.trace_open(nonblocking=True)
    pipe.read()  # what others have printed before
    subprocess.run(command)
    print((pipe.read() or b"").decode())
    raise KeyboardInterrupt


def perf_buffer_poll(bpf, timeout=-1):
    subprocess.run(command)
    poll(bpf, 1000)
    raise KeyboardInterrupt


def sleep(seconds):
    subprocess.run(command)
    raise KeyboardInterrupt


bcc.BPF.trace_print, bcc.BPF.perf_buffer_poll, time.sleep = trace_print, perf_buffer_poll, sleep
listing = compile(Path(sys.argv[1]).read_text(), sys.argv[1], "exec")
try:
    exec(listing, {"__name__": "__main__"})
except KeyboardInterrupt:
    print("^C")
