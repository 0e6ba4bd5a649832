"""Stack tables: the addresses that ``BPF_STACK_TRACE`` keeps.

``stacks.get_stackid(ctx, flags)`` puts a stack into the table and gives its number, which goes
into the key of another map. The number is a hash of the stack, so equal stacks share an entry.
Where two different stacks fall on one number, the second is refused with -17 (EEXIST) and lost.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from ebpflab.tables import Table


class StackTable(Table):
    """A ``BPF_STACK_TRACE`` of a program. `Program.stacks` gives the names of the functions."""

    def frame(self) -> pd.DataFrame:
        """One row a stack: ``stack_id``, and ``addresses``, a tuple that begins where it was.

        >>> prog["stacks"].frame()                                    # doctest: +SKIP
        """
        keys, values, _ = self._read()
        addresses = values.view("u8").reshape(len(keys), -1) if len(keys) else np.empty((0, 1))
        rows = [tuple(int(address) for address in row if address) for row in addresses]
        return self._labelled(
            pd.DataFrame({"stack_id": keys["key"].astype("i4"), "addresses": rows})
        )
