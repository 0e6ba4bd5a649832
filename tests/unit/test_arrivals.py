"""What is kept of what arrives, without a kernel: `tests/contract/test_keep.py` has one."""

from __future__ import annotations

from typing import Any, cast

from ebpflab.connection import Connection
from ebpflab.streams import Messages


class Silent:
    """A connection on which nothing comes but what a test puts in."""

    lost = None

    def listen(self, *_: Any) -> None: ...
    def request(self, *_: Any, **__: Any) -> None: ...


def test_messages_are_kept_line_by_line() -> None:
    messages = Messages(cast(Connection, Silent()), 1, {})
    messages.keep(rows=3)
    line = "          target-501     [001] d...1   12.5: bpf_trace_printk: call {}\n"
    text = "".join(line.format(n) + "no line of trace_pipe\n" for n in range(11))
    for at in range(0, len(text), 100):  # lines arrive in pieces
        messages._receive(0, text[at : at + 100].encode())
    assert list(messages.frame()["message"]) == ["call 8", "call 9", "call 10"]
    assert (messages.dropped, messages.arrived) == (8, 11)
    assert "3 rows, 0 lost, 8 dropped" in repr(messages)
