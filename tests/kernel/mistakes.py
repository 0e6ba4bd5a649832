"""Every mistake, in the order of the page."""

from __future__ import annotations

from mistakes_in_c import COMPILER, VERIFIER
from mistakes_in_calls import COMMANDS, ROWS
from mistakes_in_places import KERNEL, PROGRAMS, USDT

GROUPS = {
    "The compiler refuses": COMPILER,
    "The verifier refuses": VERIFIER,
    "Places in the kernel": KERNEL,
    "Places in programs": PROGRAMS,
    "USDT probes": USDT,
    "Maps and rows": ROWS,
    "Commands and machines": COMMANDS,
}
