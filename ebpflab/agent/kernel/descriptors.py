"""Room for open files: each probe holds one, and the lab needs some for its own work.

A process may open as many files as its limit says (RLIMIT_NOFILE, getrlimit(2)). An agent that
has spent them all on probes could neither start a workload nor load a program, nor say so in
words. So a probe is refused while there is still room for that.
"""

import os
import resource

from ebpflab.agent.faults import Fault

_KEPT = 64


def leave_room(wanted: int) -> None:
    """Raise AttachError when ``wanted`` more open files would leave too few."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    held = len(os.listdir("/proc/self/fd"))
    if held + wanted + _KEPT > limit:
        raise Fault(
            "AttachError",
            f"These are too many probes: each keeps a file open, and the agent has {held} of the"
            f" {limit} that it may have (RLIMIT_NOFILE), {_KEPT} of which are for the lab's own"
            " work. Take some away with prog.detach() or prog.close(), or probe fewer places.",
        )
