"""ebpflab: C probes into a real kernel, their events out as DataFrames.

    notebook kernel                                    beside the traced kernel
    Lab -> Program -> Stream / Table  <== wire ==>  agent -> BCC -> kernel
                 |
                 +-> DataFrame -> plots

``source`` is C with a ring buffer ``starts``; the lab plays a recording (see `Lab`).

>>> lab = Lab("replay:01-kprobes")
Nothing is traced: this is a recording of Linux 6.12...
>>> prog = lab.load(source)
>>> prog.attach_kprobe(event=lab.syscall_name("execve"), fn_name="syscall__execve")
>>> lab.run(["/bin/ls", "-l", "/"]).returncode
0
>>> prog["starts"].frame()[["comm", "filename", "arg1"]]
      comm filename arg1
0  python3  /bin/ls   -l
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
    """Open a file that `Stream.record` has written.

    ``path`` is the file. A file that was cut off reads up to the cut. Returns a `Recording`. Raises
    RecordingError when there is no such file, when it is not a recording, or when it was cut off
    before its first row.

    >>> open_recording("starts.arrows").frame()["filename"].value_counts().head(2)
    filename
    /usr/local/sbin/wc    3
    /usr/local/bin/wc     3
    Name: count, dtype: int64
    """
    from ebpflab.recordings import Recording  # Arrow takes a while to import

    return Recording(path)


def load_ipython_extension(shell: "InteractiveShell") -> None:
    """``%load_ext ebpflab``: the cell magic ``%%bpf`` and tab completion of probe names."""
    from ebpflab import notebook

    notebook.load(shell)
