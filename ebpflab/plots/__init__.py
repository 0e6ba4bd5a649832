"""Plots: a DataFrame in, matplotlib Axes out. No input or output, one file a picture.

    DataFrame -> counts         how often each value occurs
              -> histogram      the buckets of ``prog["dist"].histogram()``
              -> process_tree   who started what, over time

Each draws on a white sheet of its own, so that it reads the same in a light and in a dark
JupyterLab, or on the ``ax`` that it is given. Each returns the Axes, for changes to taste:
end a notebook's line with ``;`` to see the picture alone.

>>> from ebpflab import plots
>>> plots.counts(pd.DataFrame({"comm": ["sh", "find", "sh"]}), by="comm");    # doctest: +SKIP
"""

from ebpflab.plots.counts import counts
from ebpflab.plots.histogram import histogram
from ebpflab.plots.process_tree import process_tree

__all__ = ["counts", "histogram", "process_tree"]
