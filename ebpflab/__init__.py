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

from pathlib import Path
from typing import TYPE_CHECKING

from ebpflab.binaries.golang import GoRuntime
from ebpflab.fleet import Fleet
from ebpflab.lab import Completed, Lab, Workload
from ebpflab.perf_events import PerfHWConfig, PerfSWConfig, PerfType
from ebpflab.program import Program
from ebpflab.stacks import Frame, StackTable
from ebpflab.streams import Messages, Stream
from ebpflab.tables import Table
from ebpflab.usdt import USDT

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from ebpflab.recordings import Recording

__all__ = [
    "USDT",
    "Completed",
    "Fleet",
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
    "open_recording",
]


def open_recording(path: str | Path) -> "Recording":
    """A file that `Stream.record` has written, for reading; cut off, it reads up to the cut.

    Raises RecordingError when there is none, or when it is something else.

    >>> ebpflab.open_recording("reads.arrows").frame()                # doctest: +SKIP
    """
    from ebpflab.recordings import Recording  # Arrow takes a while to import

    return Recording(path)


def load_ipython_extension(shell: "InteractiveShell") -> None:
    """``%load_ext ebpflab``: the cell magic ``%%bpf`` and tab completion of probe names."""
    from ebpflab import notebook

    notebook.load(shell)
