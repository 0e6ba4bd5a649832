"""What can this machine trace, and which target follows from that?

The checks themselves are the agent's (`agent/kernel/features.py`), because the machine that
is asked about may be a guest. Here their rows become a DataFrame, and a choice:

    rows = own_features()     [{"feature", "status", "reason", "fix"}, ...]
    features_frame(rows)              what ``lab.features()`` shows
    can_trace_kernel(rows)            (True, why local works) or (False, what stands against it)

The standard library is enough to import this file: `make lab` reads it before there is a
`.venv` to hold pandas.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from ebpflab.protocol.messages import Feature


COLUMNS = ("feature", "status", "reason", "fix")

NEEDED = (
    "kprobes",
    "tracepoints",
    "ring buffer",
    "tracefs",
    "no lockdown",
    "BCC",
    "BCC for this kernel",
    "kernel headers",
    "root or sudo",
)
"""What the chapters need of a machine; first what can be mended least."""

HOSTING = frozenset({"KVM", "qemu", "mmdebstrap"})
"""What a machine needs to run the guest: of no interest in the guest itself."""

MAY_BE_UNKNOWN = frozenset({"no lockdown", "BCC for this kernel"})
"""Where "unknown" does not stand against a try: most machines that cannot tell are fine."""


def features_frame(rows: Iterable[Feature]) -> pd.DataFrame:
    """The rows as a DataFrame with the columns feature, status, reason, fix.

    ``status`` is a categorical of "yes", "no", "unknown".
    """
    import pandas as pd

    frame = pd.DataFrame(list(rows), columns=list(COLUMNS))
    frame["status"] = pd.Categorical(frame["status"], categories=["yes", "no", "unknown"])
    return frame


def can_trace_kernel(rows: Iterable[Feature]) -> tuple[bool, str]:
    """Whether the chapters work on this machine's own kernel, and one line that says why.

    >>> can_trace_kernel([{"feature": "kprobes", "status": "no", "reason": "not built in"}])
    (False, 'kprobes: not built in')
    """
    found = {row["feature"]: row for row in rows}
    for feature in NEEDED:
        row = found.get(feature)
        if row is None:
            return False, f"{feature}: not checked"
        if row["status"] == "no" or (row["status"] == "unknown" and feature not in MAY_BE_UNKNOWN):
            return False, f"{feature}: {row['reason']}"
    return True, f"this kernel can be traced ({found['root or sudo']['reason']})"
