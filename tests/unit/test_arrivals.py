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
    text = "".join(LINE.format(n) + "and more\nof it\n" for n in range(11))
    for at in range(0, len(text), 100):  # lines arrive in pieces
        messages._receive(0, text[at : at + 100].encode())
    assert list(messages.frame()["message"]) == [f"call {n}\nand more\nof it" for n in (8, 9, 10)]
    assert (messages.dropped, messages.arrived) == (8, 11)
    assert "3 rows, 0 lost, 8 dropped" in repr(messages)


def test_a_line_feed_in_a_name_or_a_message_loses_no_row() -> None:
    """As trace_pipe prints them: the name is filled up to 16 characters, on the left."""
    messages = Messages(cast(Connection, Silent()), 1, {})
    messages._receive(
        0,
        b"            bash-123     [000] d..21  1.000000: bpf_trace_printk: one\n\n"
        b"            bash-123     [000] d..21  1.500000: bpf_trace_printk: two\nlines\n"
        b"             a\nb-77      [001] d..21  2.000000: bpf_trace_printk: x\n"
        b"CPU:1 [LOST 3 EVENTS]\n"
        b"       kworker-b-5       [001] ...21  3.000000: bpf_trace_printk: y\n",
    )
    frame = messages.frame()
    assert list(frame["message"]) == ["one", "two\nlines", "x", "y"]
    assert list(frame["task"]) == ["bash", "bash", "a\nb", "kworker-b"]
    assert list(frame["tid"]) == [123, 123, 77, 5] and messages.lost == 3


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
