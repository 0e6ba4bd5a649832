"""Maps that ebpflab adds to a program, beside the map of the reader whose name they begin with."""

LOST_SUFFIX = "__lost"
LAYOUT_SUFFIX = "__layout"
RINGS_SUFFIX = "__rings"
HIDDEN = (LOST_SUFFIX, LAYOUT_SUFFIX, RINGS_SUFFIX)
