"""Imported by the kernel before a submission's first cell: what it prints cannot spoil its grade.

nbgrader scores a test 0 when its cell writes to stderr, be it a warning of a library; so both
streams are one here. And what is printed is kept in memory by who grades, so it has a limit.
"""

import sys

from IPython import get_ipython

MAX_CHARACTERS = 1_000_000
"""That a cell may print."""


def limit_output(*_):
    """Give the cell that begins its budget, whichever thread or process prints.

    For each cell anew: IPython puts a function of its own in the place of `write` while a cell
    runs, and the one of before back at its end.
    """
    left = MAX_CHARACTERS

    def limited(write):
        def write_within_limit(text):
            nonlocal left
            left -= len(text)
            if left < 0:
                raise RuntimeError(
                    f"This cell has printed more than {MAX_CHARACTERS:,} characters."
                )
            return write(text)

        write_within_limit.unlimited = write
        return write_within_limit

    for stream in (sys.stdout, sys.stderr):
        stream.write = limited(getattr(stream.write, "unlimited", stream.write))


sys.stderr.name = "stdout"
get_ipython().events.register("pre_run_cell", limit_output)
