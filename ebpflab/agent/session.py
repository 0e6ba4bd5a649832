"""A session: one notebook's requests, answered in order, while its streams flow.

The reading thread puts requests in a queue; one worker answers them, so that a load of several
seconds does not keep the end of input from being seen. Waiting for a workload has a thread of
its own and answers whenever the workload ends.
"""

import itertools
import queue
import sys
import threading
import traceback
from typing import Callable, List, Mapping, Tuple, cast

from ebpflab.agent.faults import Fault
from ebpflab.agent.operations import Operations, hello
from ebpflab.agent.streams.drain import Drain
from ebpflab.protocol import framing

_MAX_WAITING_BYTES = 64 << 20


class Session:
    """Everything that one notebook has on this machine."""

    def __init__(self, writer: int, end: Callable[[int], None]) -> None:
        self._writer, self._end = writer, end
        self._write_lock = threading.Lock()
        self._requests: "queue.SimpleQueue[Tuple[framing.Message, int]]" = queue.SimpleQueue()
        self._submitted_bytes = self._taken_bytes = 0  # each is counted by one thread
        self._drain = Drain(self._send_batch, self._broken)
        self._operations = Operations(self._drain, itertools.count(1))

    def begin(self) -> None:
        self._drain.start()
        threading.Thread(target=self._work, name="worker", daemon=True).start()
        self._write(framing.control({"hello": hello()}))

    def submit(self, payload: bytes) -> None:
        """Have a request answered, in its turn. Raises BadFrame for what is none, and when more
        wait than a notebook could mean: whoever floods the agent must not fill its memory."""
        self._submitted_bytes += len(payload)
        if self._submitted_bytes - self._taken_bytes > _MAX_WAITING_BYTES:
            raise framing.BadFrame(
                f"over {_MAX_WAITING_BYTES:,} bytes of requests wait for an answer"
            )
        self._requests.put((framing.parse_control(payload), len(payload)))

    def close(self) -> None:
        """Detach everything."""
        self._operations.close()

    # -- writing -----------------------------------------------------------------------------

    def _write(self, frame: List[framing.Buffer]) -> None:
        with self._write_lock:
            framing.write_frame(self._writer, frame)

    def _send_batch(self, stream: int, lost: int, data: framing.Buffer) -> None:
        self._write(framing.encode(framing.BATCH, framing.BATCH_HEADER.pack(stream, lost), data))

    def _send_blob(self, request: int, data: bytes) -> None:
        for start in range(0, len(data), framing.CHUNK_BYTES):
            part = memoryview(data)[start : start + framing.CHUNK_BYTES]
            self._write(framing.encode(framing.BLOB, framing.BLOB_HEADER.pack(request), part))

    def _broken(self, error: BaseException) -> None:
        """The drain thread ended: without it nothing would ever arrive, so end the session."""
        text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        try:
            self._write(framing.control({"broken": text}))
        except OSError:
            pass
        self._end(1)

    # -- answering ---------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            request, size_bytes = self._requests.get()
            self._taken_bytes += size_bytes
            self.respond(request)

    def respond(self, request: framing.Message) -> None:
        """Do what a request asks for and answer it, whatever it is and whatever comes of it."""
        ident = request.get("id")

        def then(response: Mapping[str, object], blob: bytes) -> None:
            if blob:
                self._send_blob(cast(int, ident), blob)
            self._answer({"id": ident, "ok": response})

        try:
            self._operations(request, then)
        except Fault as fault:
            self._answer({"id": ident, "fault": fault.as_message()})
        except (Exception, SystemExit) as error:  # BCC calls sys.exit: the worker must live on
            where = traceback.format_exc()
            bug = Fault("AgentFault", f"{type(error).__name__}: {error}", traceback=where)
            self._answer({"id": ident, "fault": bug.as_message()})

    def _answer(self, answer: framing.Message) -> None:
        try:
            frame = framing.control(answer)
        except framing.BadFrame:
            fault = Fault("AgentFault", "The answer is too long to send. Ask for less.")
            frame = framing.control({"id": answer["id"], "fault": fault.as_message()})
        try:
            self._write(frame)
        except OSError:
            self._end(0)


def main(reader: int, writer: int, end: Callable[[int], None]) -> None:
    """Serve one notebook until its end of the wire closes."""
    session = Session(writer, end)
    try:
        session.begin()
        with open(reader, "rb", closefd=False) as file:
            for kind, payload in framing.read_frames(file):
                if kind != framing.CONTROL:
                    raise framing.BadFrame(f"a notebook sends control frames only, not kind {kind}")
                session.submit(payload)
    except (OSError, framing.BadFrame) as error:
        print(f"ebpflab agent: {error}", file=sys.stderr)
    finally:
        session.close()
        end(0)
