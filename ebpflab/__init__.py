"""ebpflab: C probes into a real kernel, their events out as DataFrames.

    notebook kernel                                    beside the traced kernel
    Lab -> Program -> Stream / Table  <== wire ==>  agent -> BCC -> kernel
                 |
                 +-> DataFrame -> plots

>>> from ebpflab import Lab
>>> lab = Lab()                                                       # doctest: +SKIP
>>> prog = lab.load(source)                                           # doctest: +SKIP
>>> prog.attach_kprobe(event=lab.syscall_name("execve"), fn_name="trace")  # doctest: +SKIP
>>> lab.run(["/bin/ls", "/"])                                         # doctest: +SKIP
>>> prog["events"].frame()                                            # doctest: +SKIP
"""

from typing import TYPE_CHECKING

from ebpflab.golang import GoRuntime
from ebpflab.lab import Completed, Lab, Workload
from ebpflab.perf import PerfHWConfig, PerfSWConfig, PerfType
from ebpflab.program import Program
from ebpflab.stacks import Frame, StackTable
from ebpflab.streams import Messages, Stream
from ebpflab.tables import Table
from ebpflab.usdt import USDT

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = [
    "USDT",
    "Completed",
    "Frame",
    "GoRuntime",
    "Lab",
    "Messages",
    "PerfHWConfig",
    "PerfSWConfig",
    "PerfType",
    "Program",
    "StackTable",
    "Stream",
    "Table",
    "Workload",
]


def load_ipython_extension(shell: "InteractiveShell") -> None:
    """``%load_ext ebpflab``: the cell magic ``%%bpf`` and tab completion of probe names."""
    from ebpflab import notebook

    notebook.load(shell)
