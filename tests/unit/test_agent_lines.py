"""trace_pipe, into which others may print as fast as the agent reads."""

from __future__ import annotations

from pathlib import Path

from ebpflab.agent.streams import drain, trace_pipe

LINES = b"".join(b"%d\n" % number for number in range(500_009))  # 3.4 MB


class Sent:
    """What was sent of a stream that never ends, unless it is too much."""

    def __init__(self) -> None:
        self.data = bytearray()

    def __call__(self, stream: int, lost: int, data: bytes) -> None:
        self.data += data
        assert len(self.data) <= 4 << 20, "it would go on for ever"


def test_one_look_at_lines_that_never_end_does_end() -> None:
    lines, sent = trace_pipe.LinesStream(1, "/dev/zero"), Sent()
    lines.drain(sent)
    assert len(sent.data) == lines.size_bytes
    assert lines.crowded and lines.behind(lines.mark())
    lines.close()


def test_what_is_there_at_a_sync_is_sent_however_many_looks_it_takes(tmp_path: Path) -> None:
    (tmp_path / "trace_pipe").write_bytes(LINES)
    lines, sent = trace_pipe.LinesStream(1, str(tmp_path / "trace_pipe")), Sent()
    drainer = drain.Drain(sent, lambda error: None)
    drainer._streams[1] = lines  # not by add(): a file of the disk cannot be waited for
    drainer.call = lambda function: function()
    drainer.sync([1])
    assert sent.data == LINES
    assert not lines.crowded
    lines.close()


def test_what_is_older_than_a_program_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "trace_pipe").write_bytes(LINES)
    lines, sent = trace_pipe.LinesStream(1, str(tmp_path / "trace_pipe")), Sent()
    lines.reset()
    with (tmp_path / "trace_pipe").open("ab") as file:
        file.write(b"new\n")
    lines.drain(sent)
    assert sent.data == b"new\n"
    lines.close()
