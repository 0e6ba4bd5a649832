"""Runs a notebook in a JupyterLab that is somewhere else, through the server's own API.

Kernels are made by REST and spoken to on a websocket, as a browser does it. Sources: "The REST
API" of Jupyter Server's documentation, and "Messaging in Jupyter" of jupyter_client's.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit
from urllib.request import Request, urlopen

import websocket

CELL_SECONDS = 600  # an emulated guest, whose cells compile


@dataclass
class Ran:
    """What a cell showed: its text, and the error that ended it."""

    text: str = ""
    error: str = ""


@dataclass
class Server:
    """``address`` is what JupyterLab prints: http://127.0.0.1:8888/lab?token=..."""

    address: str
    base: str = field(init=False)
    token: str = field(init=False)

    def __post_init__(self) -> None:
        parts = urlsplit(self.address)
        self.base, (self.token,) = (
            f"{parts.scheme}://{parts.netloc}",
            parse_qs(parts.query)["token"],
        )

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """One request of the REST API; its answer, as JSON."""
        request = Request(
            f"{self.base}/api/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"token {self.token}"},
        )
        with urlopen(request, timeout=CELL_SECONDS) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def page(self) -> str:
        """JupyterLab's page itself."""
        with urlopen(self.address, timeout=CELL_SECONDS) as answer:
            return str(answer.read().decode())

    def run(self, notebook: str) -> dict[str, Ran]:
        """Run a notebook from top to bottom; what each cell of code showed, by its name."""
        cells = self.ask("GET", f"contents/{notebook}?content=1")["content"]["cells"]
        with self._kernel(notebook) as channels:
            return {
                cell["metadata"]["name"]: _execute(channels, _text(cell["source"]))
                for cell in cells
                if cell["cell_type"] == "code"
            }

    @contextmanager
    def _kernel(self, notebook: str) -> Iterator[websocket.WebSocket]:
        """The channels of a new kernel, which ends with the block."""
        asked = {
            "path": notebook,
            "type": "notebook",
            "name": notebook,
            "kernel": {"name": "python3"},
        }
        session = self.ask("POST", "sessions", asked)
        try:
            channels = websocket.create_connection(
                f"ws{self.base[4:]}/api/kernels/{session['kernel']['id']}/channels",
                header=[f"Authorization: token {self.token}"],
                timeout=CELL_SECONDS,
            )
            yield channels
            channels.close()
        finally:
            self.ask("DELETE", f"sessions/{session['id']}")


def _execute(channels: websocket.WebSocket, code: str) -> Ran:
    ident, ran = uuid.uuid4().hex, Ran()
    header = {"msg_id": ident, "msg_type": "execute_request", "username": "", "session": ident}
    message = {
        "channel": "shell",
        "header": {**header, "version": "5.3"},
        "parent_header": {},
        "metadata": {},
        "content": {"code": code, "silent": False, "allow_stdin": False, "stop_on_error": True},
    }
    channels.send(json.dumps(message))
    deadline = time.monotonic() + CELL_SECONDS
    while True:
        # The socket's own time-out never comes: the server pings.
        if time.monotonic() > deadline:
            raise TimeoutError(f"A cell did not end within {CELL_SECONDS} s: {code}")
        got = channels.recv()
        if isinstance(got, bytes):  # a widget's buffers
            continue
        answer = json.loads(got)
        if answer["content"].get("execution_state") in ("restarting", "dead"):
            raise RuntimeError(f"The kernel died of this cell: {code}")
        if answer["parent_header"].get("msg_id") != ident:
            continue
        content = answer["content"]
        if answer["msg_type"] == "error":
            ran.error = f"{content['ename']}: {content['evalue']}"
        ran.text += content.get("text", "") if answer["msg_type"] == "stream" else ""
        ran.text += content.get("data", {}).get("text/plain", "")
        if answer["msg_type"] == "status" and content["execution_state"] == "idle":
            return ran


def _text(source: str | list[str]) -> str:
    return source if isinstance(source, str) else "".join(source)
