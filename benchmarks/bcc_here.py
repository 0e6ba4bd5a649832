"""BCC in this Python: it belongs to the system's own, and is nothing but Python itself.

Where this kernel has no headers, BCC gets the ones that ebpflab's agent would borrow.
"""

from __future__ import annotations

import sys

sys.path.append("/usr/lib/python3/dist-packages")

from bcc import BPF, __version__

from ebpflab.agent.kernel.headers import Headers

Headers().prepare(None)

__all__ = ["BPF", "__version__"]
