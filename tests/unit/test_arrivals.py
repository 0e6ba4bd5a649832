"""What is kept of what arrives, without a kernel: `tests/contract/test_keep.py` has one."""

from __future__ import annotations

from typing import Any, cast

import pytest

from ebpflab.streams import Messages
from ebpflab.transport.connection import Connection

LINE = "          target-501     [001] d...1   12.5: bpf_trace_printk: call {}\n"


class Silent:
    """A connection on which nothing comes but what a test puts in."""

    lost, recorded = None, False

    def listen(self, *_: Any) -> None: ...
    def request(self, *_: Any, **__: Any) -> None: ...


def test_messages_are_kept_line_by_line() -> None:
    messages = Messages(cast(Connection, Silent()), 1, {})
    messages.keep(rows=3)
    text = "".join(LINE.format(n) + "no line of trace_pipe\n" for n in range(11))
    for at in range(0, len(text), 100):  # lines arrive in pieces
        messages._receive(0, text[at : at + 100].encode())
    assert list(messages.frame()["message"]) == ["call 8", "call 9", "call 10"]
    assert (messages.dropped, messages.arrived) == (8, 11)
    assert "3 rows, 0 lost, 8 dropped" in repr(messages)


def arrive(messages: Messages, numbers: range) -> None:
    messages._receive(0, "".join(map(LINE.format, numbers)).encode())


@pytest.mark.timeout(60)
def test_rows_that_were_let_go_are_waited_for_no_more(capsys: pytest.CaptureFixture[str]) -> None:
    """More rows are asked for than are kept: so many never are there at once."""
    messages = Messages(cast(Connection, Silent()), 1, {})
    messages.keep(rows=10)
    arrive(messages, range(5))
    arrive(messages, range(5, 50))
    assert messages.waiting == 50
    found = messages.collect(rows=20)
    assert list(found["message"]) == [f"call {n}" for n in range(40, 50)]
    said = "messages: 10 rows instead of 20, because no more are kept: 40 before them are gone."
    assert f"{said} Keep more of them: .keep(rows=20)." in capsys.readouterr().out
    assert messages.waiting == 0 and messages.collect(rows=20, seconds=0).empty
    assert capsys.readouterr().out == "", "nothing is gone since then"

    arrive(messages, range(12))
    assert list(messages.collect(rows=3)["message"]) == ["call 2", "call 3", "call 4"]
    assert messages.waiting == 7, "those behind them are still to be had"
    arrive(messages, range(5))
    assert len(messages.collect(rows=10)) == 10 and capsys.readouterr().out == ""
