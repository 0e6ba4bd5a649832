"""Stack tables: from the addresses that ``BPF_STACK_TRACE`` keeps to the names of functions.

``stacks.get_stackid(ctx, flags)`` puts a stack into the table and gives its number, which goes
into the key of another map. The number is a hash of the stack, so equal stacks share an entry.
Where two different stacks fall on one number, the second is refused with -17 (EEXIST) and lost; it
is shown as one frame, ``[lost]``:

    on a CPU, again and again                              in the notebook, once
    get_stackid -> BPF_STACK_TRACE: number -> addresses    Program.stacks: addresses -> names
                -> BPF_HASH: {pid, numbers} -> value                       (the agent's symbols.py)
"""

from __future__ import annotations

import json
from typing import NamedTuple

import numpy as np
import pandas as pd

from ebpflab.errors import ProgramError
from ebpflab.protocol import messages
from ebpflab.tables import Table
from ebpflab.transport.connection import Connection

UNKNOWN, LOST = "[unknown]", "[lost]"
_NONE = -14  # EFAULT: there is no such stack; the code ran in the kernel alone, or outside of it


class Frame(NamedTuple):
    """A function in a stack.

    ``module`` is the file that it is in; ``kind`` is "user", "kernel", "go", "python", or "jit" for
    other code that a program made while it ran.

    >>> prog.stacks().loc[0, "stack"][0]
    Frame(name='common_startup_64', kind='kernel', module='kernel')
    """

    name: str
    kind: str
    module: str


class StackTable(Table):
    """A ``BPF_STACK_TRACE`` of a program. `Program.stacks` gives the names of the functions.

    >>> prog["stacks"]
    <Table 'stacks'>
    """

    def frame(self) -> pd.DataFrame:
        """Return one row a stack.

        Columns: stack_id (int32), the number that ``get_stackid`` gave; addresses, a tuple of whole
        numbers that begins where the code was.

        >>> stacks = prog["stacks"].frame()
        >>> list(stacks), stacks.loc[0, "stack_id"].item()
        (['stack_id', 'addresses'], 657)
        """
        keys, values, _ = self._read()
        addresses = values.view("u8").reshape(len(keys), -1) if len(keys) else np.empty((0, 1))
        rows = [tuple(int(address) for address in row if address) for row in addresses]
        return self._labelled(
            pd.DataFrame({"stack_id": keys["key"].astype("i4"), "addresses": rows})
        )


def named_stacks(
    connection: Connection, program: int, counts: Table, stacks: StackTable, pid: int | None
) -> pd.DataFrame:
    """What `Program.stacks` returns."""
    frame = counts.frame()
    user, kernel = _stack_columns(frame, counts.name)
    if "pid" not in frame:
        frame.insert(0, "pid", -1 if pid is None else pid)
    if user and pid is None and (frame["pid"] == -1).any():
        raise ProgramError(
            f"The keys of {counts.name!r} do not say which process a stack is of, so its user"
            " addresses cannot be named. Add `u32 pid` to the key"
            " (bpf_get_current_pid_tgid() >> 32), or give the process: prog.stacks(pid=...)."
        )
    # Numbers are signed, whatever C type holds them.
    ids = {name: frame[name].astype("i8").astype("i4") for name in (user, kernel) if name}
    none = pd.Series(_NONE, index=frame.index)
    of_user, of_kernel = ids.get(user, none), ids.get(kernel, none)
    pairs = list(zip(frame["pid"].tolist(), of_user.tolist(), strict=True))
    asked_user = sorted({pair for pair in pairs if pair[1] >= 0})
    asked_kernel = sorted({each for each in of_kernel.tolist() if each >= 0})
    answer = connection.request(
        messages.STACKS,
        messages.Stacks(program=program, name=stacks.name, kernel=asked_kernel, user=asked_user),
    )
    named: messages.NamedStacks = json.loads(answer.blob)
    symbols = [Frame(name, kind, module) for name, module, kind in named["symbols"]]
    user_stacks = dict(zip(asked_user, named["user"], strict=True))
    kernel_stacks = dict(zip(asked_kernel, named["kernel"], strict=True))
    rows = [
        _frames(pair[1], user_stacks.get(pair), symbols, "user")
        + _frames(number, kernel_stacks.get(number), symbols, "kernel")
        for pair, number in zip(pairs, of_kernel.tolist(), strict=True)
    ]
    found = frame.drop(columns=list(ids))
    found["stack"] = pd.Series(rows, index=frame.index, dtype=object)
    found.attrs.update(_told(found, of_user))
    return found.sort_values("value", ascending=False, ignore_index=True)


def _stack_columns(frame: pd.DataFrame, name: str) -> tuple[str, str]:
    """The columns with the numbers of user and of kernel stacks; "" where there is none."""
    having = [column for column in frame.columns if "stack" in column] or (
        ["key"] if "key" in frame else []
    )
    kernel = [column for column in having if "kern" in column]
    user = [column for column in having if column not in kernel]
    if len(user) > 1 or len(kernel) > 1 or not having or "value" not in frame:
        raise ProgramError(
            f"The map {name!r} has the columns {', '.join(frame.columns)}, and it is not clear"
            " which hold numbers of stacks. A key with the fields `int user_stack_id` and"
            " `int kernel_stack_id`, and a value of one number, is understood."
        )
    return (user or [""])[0], (kernel or [""])[0]


def _frames(
    number: int, places: list[int] | None, symbols: list[Frame], kind: str
) -> tuple[Frame, ...]:
    """A stack by its number. One that the table does not have is one frame, so that it is seen."""
    if number == _NONE:
        return ()
    if places is None:
        return (Frame(LOST, kind, ""),)
    return tuple(symbols[place] for place in places)


def _told(frame: pd.DataFrame, user: pd.Series[int]) -> dict[str, object]:
    """How much of it is known, in the unit of the values."""
    value = frame["value"].astype("i8")
    nameless = [{each for each in stack if each.name == UNKNOWN} for stack in frame["stack"]]
    lost = [any(each.name == LOST for each in stack) for stack in frame["stack"]]
    return {
        "total": int(value.sum()),
        "lost": int(value[lost].sum()),
        "no_user_stack": int(value[user == _NONE].sum()),
        "unknown": int(value[[bool(each) for each in nameless]].sum()),
        "unknown_modules": sorted({each.module for found in nameless for each in found}),
    }
