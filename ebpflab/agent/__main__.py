"""The agent: all of ebpflab that runs as root, beside the kernel that is traced.

Run from a zip (``transport/archive.py``), ``python3 -I -B agent.zip``; speaks the wire of
``protocol/framing.py`` on its standard input and output, and ends, with every probe detached, when
its input ends. Standard library, bcc and `ebpflab.protocol` alone, Python 3.9 to 3.13.
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
    from ebpflab.agent.faults import printed
    from ebpflab.agent.session import main

    printed.redirect()
    # Not sys.exit: a compilation in another thread must not delay the end.
    main(reader, writer, end=os._exit)


def _give_up(writer: int, type_: str, message: str) -> None:
    from ebpflab.protocol import framing

    fault = {"type": type_, "message": message, "detail": {}}
    framing.write_frame(writer, framing.control({"fault": fault}))
    os._exit(1)


_serve()
