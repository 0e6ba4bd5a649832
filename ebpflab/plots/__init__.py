"""Plots: a DataFrame in, a picture out. No input or output, one file a picture.

    DataFrame -> counts          how often each value occurs
              -> histogram       how values are spread; text_histogram is its form for terminals
              -> heatmap         when they were large, and how many
              -> timeline        who ran, called or waited, and when
              -> process_tree    who started what, over time
              -> flame_graph     where the time goes, by stacks; interactive, and on paper
              -> linked          any of these, with the rows of what is clicked

Each draws with matplotlib on a white sheet of its own, so that it reads the same in a light and in
a dark JupyterLab, or on the ``ax`` that it is given. Each returns the Axes, for changes to taste:
end a notebook's line with ``;`` to see the picture alone. Below it stands what it says in one
sentence (`reading`), and bars, cells and spans show their numbers when pointed at.

>>> from ebpflab import plots
>>> plots.counts(pd.DataFrame({"comm": ["sh", "find", "sh"]}), by="comm")
<Axes: xlabel='number of rows'>
"""

from ebpflab.plots.canvas import reading
from ebpflab.plots.counts import counts
from ebpflab.plots.flame_graph import FlameGraph, flame_graph
from ebpflab.plots.heatmap import heatmap
from ebpflab.plots.histogram import histogram
from ebpflab.plots.linked import linked
from ebpflab.plots.process_tree import process_tree
from ebpflab.plots.text import text_histogram
from ebpflab.plots.timeline import timeline

__all__ = [
    "FlameGraph",
    "counts",
    "flame_graph",
    "heatmap",
    "histogram",
    "linked",
    "process_tree",
    "reading",
    "text_histogram",
    "timeline",
]
