"""The few words of QMP, spoken with a QEMU that stands still."""

from __future__ import annotations

import json
import socket
import threading

import pytest

from ebpflab.vm import qmp


def _agree_to_all(monitor: socket.socket) -> None:
    """Answer each command, and read nothing from the sockets that come with them."""
    monitor.sendall(b'{"QMP": {}}\n')
    kept = []
    while True:
        request, descriptors, _, _ = socket.recv_fds(monitor, 1 << 16, 1)
        if not request:
            return
        kept += [socket.socket(fileno=each) for each in descriptors]
        monitor.sendall(json.dumps({"return": {}}).encode() + b"\n")


def test_a_qemu_that_does_not_read_its_state_blocks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qmp, "_STATE_SECONDS", 0.1)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        threading.Thread(target=_agree_to_all, args=[theirs], daemon=True).start()
        monitor = qmp.Monitor(ours)
        monitor.resume(bytes(4 << 20))  # more than a socket holds
        assert monitor.execute("query-status") == {}
        monitor.close()
