"""The notebook's end of the wire, against agents that misbehave."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ebpflab import agent, errors
from ebpflab.protocol import framing
from ebpflab.protocol.messages import Operation
from ebpflab.transport import connection as connection_module
from ebpflab.transport.base import Transport
from ebpflab.transport.connection import Connection

# What is asked for does not matter here, nor what it is asked with.
LOAD: Operation[Any, Any] = Operation("load")
TABLE: Operation[Any, Any] = Operation("table")
SYNC: Operation[Any, Any] = Operation("sync")


class FakeTransport(Transport):
    """A socket whose other end is played by a function."""

    def __init__(self, agent: Callable[[socket.socket], None]) -> None:
        self._ours, self._theirs = socket.socketpair()
        self.reader = self.writer = self._ours.fileno()
        threading.Thread(target=self._play, args=(agent,), daemon=True).start()

    def _play(self, agent: Callable[[socket.socket], None]) -> None:
        agent(self._theirs)
        self._theirs.close()

    def close(self) -> None:
        self._ours.shutdown(socket.SHUT_RDWR)

    def post_mortem(self) -> str:
        return "The agent was eaten."


def _say(end: socket.socket, message: framing.Message) -> None:
    framing.write_frame(end.fileno(), framing.control(message))


def _requests(end: socket.socket) -> Iterator[framing.Message]:
    with end.makefile("rb") as file:
        for _, payload in framing.read_frames(file):
            yield framing.parse_control(payload)


def test_another_protocol_version_is_refused() -> None:
    def agent(end: socket.socket) -> None:
        _say(end, {"hello": {"protocol": 99}})
        end.recv(1)

    connection = Connection(FakeTransport(agent))
    with pytest.raises(errors.WireError, match=f"version 99.*version {framing.PROTOCOL}"):
        connection.hello()
    connection.close()


def test_garbage_is_named() -> None:
    def agent(end: socket.socket) -> None:
        end.sendall(b"Permission denied, please try again\n")
        end.recv(1)

    connection = Connection(FakeTransport(agent))
    with pytest.raises(errors.WireError, match="not our protocol"):
        connection.hello()


def test_a_request_under_way_learns_of_the_end() -> None:
    def agent(end: socket.socket) -> None:
        _say(end, {"hello": {"protocol": framing.PROTOCOL}})
        next(_requests(end))

    connection = Connection(FakeTransport(agent))
    connection.hello()
    depths = []
    for _ in range(5):  # the request that was waiting, and every later one
        with pytest.raises(errors.ConnectionLost, match="eaten") as raised:
            connection.request(LOAD, {})
        depths.append(len(raised.traceback))
    assert len(set(depths[1:])) == 1, "one error is raised each time, and must not grow"


def test_blobs_and_batches_reach_whoever_waits_for_them() -> None:
    def agent(end: socket.socket) -> None:
        _say(end, {"hello": {"protocol": framing.PROTOCOL}})
        for request in _requests(end):
            framing.write_frame(
                end.fileno(),
                framing.encode(framing.BATCH, framing.BATCH_HEADER.pack(7, 3), b"records"),
            )
            for part in (b"one ", b"two"):
                framing.write_frame(
                    end.fileno(),
                    framing.encode(framing.BLOB, framing.BLOB_HEADER.pack(request["id"]), part),
                )
            _say(end, {"id": request["id"], "ok": {"echo": request["op"]}})

    got: list[tuple[int, bytes]] = []
    connection = Connection(FakeTransport(agent))
    connection.listen(7, lambda lost, data: got.append((lost, data)))
    answer = connection.request(TABLE, {})
    assert (answer.ok, answer.blob) == ({"echo": "table"}, b"one two")
    assert got == [(3, b"records")]
    connection.close()
    with pytest.raises(errors.ConnectionLost, match="closed"):
        connection.request(TABLE, {})


def test_what_came_before_anybody_listened_comes_first() -> None:
    """What attaches itself while it is loaded sends before its streams are known here."""

    def agent(end: socket.socket) -> None:
        _say(end, {"hello": {"protocol": framing.PROTOCOL}})
        for number, request in enumerate(_requests(end)):
            records = b"batch %d" % number
            batch = framing.encode(framing.BATCH, framing.BATCH_HEADER.pack(7, number), records)
            framing.write_frame(end.fileno(), batch)
            _say(end, {"id": request["id"], "ok": {}})

    got: list[tuple[int, bytes]] = []

    def sink(lost: int, records: bytes) -> None:
        got.append((lost, records))

    connection = Connection(FakeTransport(agent))
    for _ in range(2):
        connection.request(LOAD, {})
    assert got == []
    connection.listen(7, sink)
    assert got == [(0, b"batch 0"), (1, b"batch 1")]
    connection.request(SYNC, {})
    assert got[2:] == [(2, b"batch 2")]
    connection.ignore(7, sink)
    connection.request(SYNC, {})
    connection.listen(7, sink)
    assert len(got) == 3
    connection.close()


def test_every_fault_of_the_agent_has_its_exception() -> None:
    """Each type that the agent's code names is a class of the tree."""
    import re
    from pathlib import Path

    folder = Path(agent.__file__).parent
    named = {
        name
        for path in folder.rglob("*.py")
        for name in re.findall(r"""(?:Fault\(|_give_up\(\s*writer,)\s*"(\w+)\"""", path.read_text())
    }
    assert {"CompileError", "AgentFault", "BccMissing", "UnknownEvent"} <= named
    for name in named:
        error = errors.from_fault({"type": name, "message": "m", "detail": {"log": ""}})
        assert type(error).__name__ == name


def test_a_fault_of_an_unknown_kind_is_still_an_error() -> None:
    error = errors.from_fault({"type": "Nonsense", "message": "m"})
    assert type(error) is errors.AgentFault and str(error) == "m"


@pytest.mark.parametrize(
    "frame",
    [
        framing.encode(framing.BATCH, b"short"),
        framing.encode(framing.BLOB, b""),
        framing.control({"hello": "who?"}),
        framing.control({"id": [1], "ok": {}}),
        framing.control({"id": 1, "ok": 5}),
        framing.control({"fault": "a fault"}),
    ],
)
def test_a_frame_that_means_nothing_is_named(frame: list[framing.Buffer]) -> None:
    def agent(end: socket.socket) -> None:
        _say(end, {"hello": {"protocol": framing.PROTOCOL}})
        next(_requests(end))
        framing.write_frame(end.fileno(), frame)
        end.recv(1)

    connection = Connection(FakeTransport(agent))
    with pytest.raises(errors.WireError, match="not our protocol"):
        connection.request(LOAD, {})


def test_what_nobody_listens_to_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A load that was interrupted leaves its streams behind, and they go first."""
    monkeypatch.setattr(connection_module, "_MAX_EARLY_BYTES", 100)

    def agent(end: socket.socket) -> None:
        for request, stream in zip(_requests(end), (1, 2, 2, 2), strict=False):
            header = framing.BATCH_HEADER.pack(stream, 0)
            framing.write_frame(end.fileno(), framing.encode(framing.BATCH, header, bytes(48)))
            _say(end, {"id": request["id"], "ok": {}})

    connection = Connection(FakeTransport(agent))
    for _ in range(3):
        connection.request(LOAD, {})
    assert list(connection._early) == [2] and connection._early_bytes == 96
    with pytest.raises(errors.WireError, match="nobody listens to stream 2"):
        connection.request(LOAD, {})
