"""Imported by the kernel before a submission's first cell: what it prints cannot spoil its grade.

nbgrader scores a test 0 when its cell writes to stderr, be it a warning of a library; so both
streams are one here. And what is printed is kept in memory by who grades, so it has a limit.
"""

import sys

from ipykernel.iostream import OutStream
from IPython import get_ipython

MAX_CHARACTERS = 1_000_000
"""That a cell may print."""

_write = OutStream.write
_left = MAX_CHARACTERS


def _write_within_limit(stream, text):
    global _left
    _left -= len(text)
    if _left < 0:
        raise RuntimeError(f"This cell has printed more than {MAX_CHARACTERS:,} characters.")
    return _write(stream, text)


def _renew(*_):
    global _left
    _left = MAX_CHARACTERS


OutStream.write = _write_within_limit
sys.stderr.name = "stdout"
get_ipython().events.register("pre_run_cell", _renew)
