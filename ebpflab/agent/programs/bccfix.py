"""What is wrong in BCC and can be put right from here. Import before using BCC."""

import bcc

_attach_uprobe = bcc.lib.bpf_attach_uprobe


def _attach_with_semaphore(*arguments: object) -> int:
    """BCC's Python leaves out the seventh argument of this C function, a semaphore's place.

    The function then takes what lies on the stack for it: 6, in practice, so that the kernel
    looks in every process for a counter at byte 6 of the file, and counts there where that part
    of the file happens to be mapped writable. Seen with BCC 0.26 and 0.31.
    """
    if len(arguments) < 7:
        arguments = (*arguments, 0)
    return int(_attach_uprobe(*arguments))


bcc.lib.bpf_attach_uprobe = _attach_with_semaphore
