"""Live: what arrives, drawn while it arrives.

    Stream.live() / Table.live()
        -> sources    what is new since the last look, counted by bucket
        -> history    the looks of the last two minutes, as one frame of a picture
        -> widget     a thread that looks ten times a second, the controls, one message a frame
        -> live.js    the picture in the page (uPlot, in vendor/, and a canvas)
        -> snapshot   the same picture as PNG and HTML, for a saved notebook

A look reads the bytes that a stream keeps anyway. It takes no row that `collect` would hand out,
makes no DataFrame of more than ten rows, and its history has a fixed size.

>>> live = prog["calls"].live()
>>> live.stop()
>>> live.close()
"""

from ebpflab.live.widget import Live

__all__ = ["Live"]
