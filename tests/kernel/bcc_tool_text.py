"""Runs inside the guest, under its system's Python: what C does a tool of bpfcc-tools load?

    bcc_tool_text.py capture '{"tool": ["argument", ...], ...}'     JSON: tool -> text, cflags
    bcc_tool_text.py load < '{"text": ..., "cflags": [...]}'        status 0 when plain BCC loads it

Each tool is run as it is installed, in a process of its own, up to the place where it would
compile: there its text is taken and the tool ends. So the text is what the tool makes for this
kernel, and nothing of a tool is kept in our repository.
"""

import json
import os
import runpy
import signal
import sys
from pathlib import Path

import bcc

_SECONDS = 60


def _capture(tool, arguments):
    """The text and flags that a tool gives to bcc.BPF, or why there are none."""
    path = f"/usr/sbin/{tool}-bpfcc"
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        signal.alarm(_SECONDS)

        def taken(self, src_file=b"", hdr_file=b"", text=None, debug=0, cflags=(), **_):
            if text is None:
                text = Path(os.fsdecode(src_file)).read_bytes()
            text = text.decode() if isinstance(text, bytes) else text
            os.write(writer, json.dumps({"text": text, "cflags": list(cflags)}).encode())
            os._exit(0)

        bcc.BPF.__init__ = taken
        sys.argv = [path, *arguments]
        try:
            runpy.run_path(path, run_name="__main__")
            why = "it ended before it had loaded anything"
        except BaseException as error:
            why = f"{type(error).__name__}: {error}"
        os.write(writer, json.dumps({"why": why}).encode())
        os._exit(1)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        answer = file.read()
    os.waitpid(child, 0)
    return json.loads(answer or b'{"why": "it was killed, or crashed"}')


if sys.argv[1] == "capture":
    wanted = json.loads(sys.argv[2])
    print(json.dumps({tool: _capture(tool, arguments) for tool, arguments in wanted.items()}))
else:
    program = json.load(sys.stdin)
    bcc.BPF(text=program["text"].encode(), cflags=program["cflags"])
