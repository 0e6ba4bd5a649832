"""What the agent keeps of what is printed in its process, by whichever thread."""

import subprocess
import sys

LINES = 50_000
TWO_THREADS = f"""
import os, sys, threading
from ebpflab.agent.faults import printed

def write():
    for _ in range({LINES}):
        os.write(2, b"x\\n")

told = os.dup(1)
printed.redirect()
with printed:
    mark = printed.mark()
    threads = [threading.Thread(target=write) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.write(told, str(printed.since(mark).count("x")).encode())
"""


def test_of_what_two_threads_print_at_once_nothing_is_lost() -> None:
    command = [sys.executable, "-c", TWO_THREADS]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stdout == str(2 * LINES)
