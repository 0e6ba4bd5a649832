"""The agent: all of ebpflab that runs as root, beside the kernel that is traced.

Run as a directory, ``python3 -I -B ebpflab/agent``, or as a zip of it; speaks the wire of
``wire.py`` on its standard input and output, and ends, with every probe detached, when its
input ends. Standard library and bcc alone, Python 3.9 to 3.13; modules import one another by
their plain names because this directory is all that a guest or another host ever gets.
"""

import os
import signal
import sys


def _serve() -> None:
    # fds 0 and 1 are the wire; what BCC, clang and children print must not get into it.
    reader, writer = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the notebook's to handle
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    try:
        import bcc  # noqa: F401
    except ImportError as error:
        _give_up(
            writer,
            "BccMissing",
            f"The system's {sys.executable} cannot import bcc ({error}). Install it there, beside"
            " the kernel that is traced: sudo apt-get install python3-bpfcc",
        )
    from faults import printed
    from session import main

    printed.redirect()
    # Not sys.exit: a compilation in another thread must not delay the end.
    main(reader, writer, end=os._exit)


def _give_up(writer: int, type_: str, message: str) -> None:
    import wire

    fault = {"type": type_, "message": message, "detail": {}}
    wire.write_frame(writer, wire.control({"fault": fault}))
    os._exit(1)


_serve()
