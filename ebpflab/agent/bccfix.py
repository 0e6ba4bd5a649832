"""What is wrong in BCC and can be put right from here. Import before using BCC."""

import os
from typing import Any, Dict, Tuple

import bcc

_attach_uprobe = bcc.lib.bpf_attach_uprobe
_usdt_new, _usdt_close = bcc.lib.bcc_usdt_new_frompid, bcc.lib.bcc_usdt_close
_spares: Dict[int, Tuple[int, int]] = {}  # of each USDT context: a descriptor and its inode


def _attach_with_semaphore(*arguments: Any) -> int:
    """BCC's Python leaves out the seventh argument of this C function, a semaphore's place.

    The function then takes what lies on the stack for it: 6, in practice, so that the kernel
    looks in every process for a counter at byte 6 of the file, and counts there where that part
    of the file happens to be mapped writable. Seen with BCC 0.26 and 0.31.
    """
    if len(arguments) < 7:
        arguments = (*arguments, 0)
    return int(_attach_uprobe(*arguments))


def _new_with_spare(pid: int, path: bytes) -> Any:
    """A USDT context of a process, and a descriptor for libbcc to close in error.

    libbcc opens /proc/PID/root while it makes the context, closes it, and closes the same number
    again with the context: by then it is somebody else's, a loaded function or a probe. So the
    number, the lowest that was free, is given to a file that nobody needs. Seen with BCC 0.26.
    """
    number = os.memfd_create("ebpflab-spare")
    os.close(number)
    context = _usdt_new(pid, path)
    if context and not _inode(number):
        spare = os.memfd_create("ebpflab-spare")
        if spare != number:
            os.dup2(spare, number)
            os.close(spare)
        _spares[context] = number, _inode(number)
    return context


def _close_with_spare(context: int) -> None:
    _usdt_close(context)
    number, inode = _spares.pop(context, (-1, 0))
    if inode and _inode(number) == inode:
        os.close(number)


def _inode(fd: int) -> int:
    """The inode behind a descriptor; 0 where there is none."""
    try:
        return os.fstat(fd).st_ino
    except OSError:
        return 0


bcc.lib.bpf_attach_uprobe = _attach_with_semaphore
bcc.lib.bcc_usdt_new_frompid = _new_with_spare
bcc.lib.bcc_usdt_close = _close_with_spare
