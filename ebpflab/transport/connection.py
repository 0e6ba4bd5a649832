"""The notebook's end of the wire: requests out; answers, records and losses in.

One daemon thread reads everything the agent sends. An answer wakes whoever waits for it; a batch
of records goes to the stream that listens for it. When the agent ends, every waiting request and
every later one raises `ConnectionLost` with the transport's account of why.

Another thread writes. So "interrupt kernel", which raises in the main thread, cannot cut a frame
in two, and a finalizer may send at any moment: ``SimpleQueue.put`` is safe in destructors.
"""

from __future__ import annotations

import itertools
import os
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass
from functools import partial
from typing import Generic, cast

from ebpflab import errors
from ebpflab.protocol import framing
from ebpflab.protocol.messages import FaultMessage, Hello, Operation, Request, Response
from ebpflab.transport.base import Transport

Sink = Callable[[int, bytes], None]
"""Called with (records lost so far, record bytes) from the reading thread."""

# In 30 s, 13 of 22 guests that were started at once on two cores had answered, without KVM.
_HELLO_SECONDS = 180.0
# An agent is no more trusted than the machine it is on: it may not fill this process's memory.
_MAX_EARLY_BYTES = 256 << 20
_MAX_BLOB_BYTES = 1 << 30
_PARTS = {"id": int, "hello": dict, "ok": dict, "fault": dict, "broken": str}


@dataclass(frozen=True)
class Answer(Generic[Response]):
    """A response, and the bytes that came with it."""

    ok: Response
    blob: bytes


@dataclass(frozen=True)
class _Came:
    """What came back for a request."""

    message: framing.Message
    blob: bytes


class Connection:
    """A conversation with one agent. Thread-safe."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._ids = itertools.count(1)
        self._outgoing: queue.SimpleQueue[list[framing.Buffer] | None] = queue.SimpleQueue()
        self._waiting: dict[int, Future[_Came]] = {}
        self._blobs: dict[int, bytearray] = {}
        self._sinks: dict[int, tuple[Sink, ...]] = {}
        # What attaches itself sends before the answer to `load` has named its streams.
        self._early: dict[int, list[tuple[int, bytes]]] = {}
        self._early_bytes = 0
        self._sinks_lock = threading.RLock()  # a finalizer may come in between, and ignore
        self._hello: Future[Hello] = Future()
        self._lost: errors.TargetError | None = None
        self._asked, self._owner = False, os.getpid()
        # Descriptors of the threads' own, which nobody closes under them.
        self._reader, self._writer = os.dup(transport.reader), os.dup(transport.writer)
        for work, name in ((self._read, "ebpflab reader"), (self._write, "ebpflab writer")):
            threading.Thread(target=work, name=name, daemon=True).start()

    def hello(self) -> Hello:
        """What the agent said of itself. Raises WireError for another protocol version."""
        try:
            hello = self._hello.result(timeout=_HELLO_SECONDS)
        except TimeoutError:
            raise errors.ConnectionLost(
                f"The agent did not answer within {_HELLO_SECONDS:.0f} seconds."
                f" {self._transport.post_mortem()}"
            ) from None
        if hello.get("protocol") != framing.PROTOCOL:
            raise errors.WireError(
                f"The agent speaks version {hello.get('protocol')} of the wire and this notebook"
                f" version {framing.PROTOCOL}. Both sides must come from one ebpflab: restart the"
                " notebook kernel, or install the same version on both machines."
            )
        return hello

    def listen(self, stream: int, sink: Sink) -> None:
        """Send the records of ``stream`` to ``sink`` from now on.

        The first to listen also gets what had come before. Numbers of streams are not used twice.
        """
        with self._sinks_lock:
            for lost, records in self._forget_early(stream):
                sink(lost, records)
            self._sinks[stream] = (*self._sinks.get(stream, ()), sink)

    def ignore(self, stream: int, sink: Sink) -> None:
        """Stop sending the records of ``stream`` to ``sink``."""
        with self._sinks_lock:
            self._sinks[stream] = tuple(s for s in self._sinks.get(stream, ()) if s != sink)

    @property
    def recorded(self) -> bool:
        """Whether nothing comes by itself: a recording is played."""
        return self._transport.recorded

    @property
    def lost(self) -> errors.TargetError | None:
        """Why the agent is gone, or None while it is there."""
        return self._lost

    @property
    def died(self) -> errors.TargetError | None:
        """`lost`, unless by `close`."""
        return None if self._asked else self._lost

    def gone(self) -> errors.TargetError:
        """`lost`, to be raised once more: else each time would add its frames to the error, which
        lives as long as the lab."""
        assert self._lost is not None
        return self._lost.with_traceback(None)

    def request(
        self,
        operation: Operation[Request, Response],
        fields: Request,
        *,
        c_source: str = "",
        undo: Callable[[Response], None] | None = None,
    ) -> Answer[Response]:
        """Ask, and wait for the answer. ``c_source`` is what a fault may point into.

        Interrupted, the agent does what it was asked for all the same: then ``undo`` gets the
        response, once it is there, in the reading thread. Raises the exception for the fault that
        came back, or ConnectionLost.
        """
        if self._is_of_another_process():
            raise errors.TargetError(
                f"This lab belongs to process {self._owner}, which opened it, and this is its child"
                f" {os.getpid()}: the agent answers there alone. Open a lab here: lab = Lab()."
            )
        ident, future = next(self._ids), Future[_Came]()
        frame = framing.control({"id": ident, "op": operation.name, **fields})
        self._waiting[ident] = future
        kept = False
        try:
            # Looked at after the future can be found, so that whoever gives up finds it or we
            # find that they did.
            if self._lost is not None:
                raise self.gone()
            self._transport.asking(ident)
            self._outgoing.put(frame)
            came = future.result()
        except KeyboardInterrupt:
            if undo is not None:
                kept = True
                future.add_done_callback(partial(_undone, undo))
            raise
        finally:
            if not kept:
                self._waiting.pop(ident, None)
        if "fault" in came.message:
            raise errors.from_fault(cast(FaultMessage, came.message["fault"]), c_source)
        return Answer(cast(Response, came.message.get("ok", {})), came.blob)

    def tell(self, operation: Operation[Request, Response], fields: Request) -> None:
        """Ask for something whose answer does not matter. Safe in finalizers; never waits."""
        asked = {"id": next(self._ids), "op": operation.name, **fields}
        self._outgoing.put(framing.control(asked))

    def close(self) -> None:
        """End the agent. May be called twice, and from any thread."""
        if self._is_of_another_process():
            return  # a child that ends leaves the agent to its parent
        self._asked = self._asked or self._lost is None
        self._give_up(errors.ConnectionLost("This lab is closed. Make a new one with Lab()."))
        self._outgoing.put(None)
        self._transport.close()

    def _is_of_another_process(self) -> bool:
        """Whether this is a copy, in a forked child: it has none of the threads."""
        return os.getpid() != self._owner

    # -- the two threads ---------------------------------------------------------------------

    def _write(self) -> None:
        try:
            while (frame := self._outgoing.get()) is not None:
                framing.write_frame(self._writer, frame)
        except OSError:
            pass  # the agent is gone; the reading thread knows why
        finally:
            os.close(self._writer)

    def _read(self) -> None:
        try:
            with open(self._reader, "rb", closefd=False) as file:
                for kind, payload in framing.read_frames(file):
                    self._dispatch(kind, payload)
        except OSError:
            pass
        except framing.BadFrame as error:
            self._transport.close()
            self._give_up(errors.WireError(f"The agent sent what is not our protocol: {error}."))
        except Exception as error:  # a bug of ours must not leave everyone waiting
            self._give_up(errors.ConnectionLost(f"Reading from the agent failed: {error!r}"))
            raise
        finally:
            os.close(self._reader)
            self._outgoing.put(None)
        if self._lost is None:
            self._give_up(errors.ConnectionLost(self._transport.post_mortem()))

    def _dispatch(self, kind: int, payload: bytes) -> None:
        if kind == framing.CONTROL:
            self._control(framing.parse_control(payload))
            return
        header = framing.BATCH_HEADER if kind == framing.BATCH else framing.BLOB_HEADER
        if len(payload) < header.size:
            raise framing.BadFrame(f"a frame of kind {kind} has {len(payload)} bytes")
        number, *rest = header.unpack_from(payload)
        data = payload[header.size :]
        if kind == framing.BLOB:
            self._blob(number, data)
        else:
            self._batch(number, rest[0], data)

    def _batch(self, stream: int, lost: int, data: bytes) -> None:
        with self._sinks_lock:
            sinks = self._sinks.get(stream)
            if sinks is None:
                self._keep_early(stream, lost, data)
        for sink in sinks or ():
            sink(lost, data)

    def _blob(self, ident: int, data: bytes) -> None:
        if ident in self._waiting:  # else its caller was interrupted
            kept = self._blobs.setdefault(ident, bytearray())
            kept.extend(data)
            if len(kept) > _MAX_BLOB_BYTES:
                raise framing.BadFrame(f"an answer is longer than {_MAX_BLOB_BYTES:,} bytes")

    def _keep_early(self, stream: int, lost: int, records: bytes) -> None:
        self._early.setdefault(stream, []).append((lost, records))
        self._early_bytes += len(records)
        while self._early_bytes > _MAX_EARLY_BYTES:
            oldest = next(iter(self._early))  # of a load that was interrupted, most likely
            if oldest == stream:
                raise framing.BadFrame(f"nobody listens to stream {stream}, and it does not end")
            self._forget_early(oldest)

    def _forget_early(self, stream: int) -> list[tuple[int, bytes]]:
        early = self._early.pop(stream, [])
        self._early_bytes -= sum(len(records) for _, records in early)
        return early

    def _control(self, message: framing.Message) -> None:
        for name, kind in _PARTS.items():
            if name in message and not isinstance(message[name], kind):
                raise framing.BadFrame(f"{name!r} of a control message is {message[name]!r}")
        if "hello" in message:
            if not self._hello.done():
                self._hello.set_result(cast(Hello, message["hello"]))
        elif "id" in message:
            ident = cast(int, message["id"])
            came = _Came(message, bytes(self._blobs.pop(ident, b"")))
            future = self._waiting.pop(ident, None)
            # Else its caller was interrupted and does not wait any more, or it was answered twice.
            if future is not None and not future.done():
                future.set_result(came)
        elif "fault" in message:
            self._give_up_with(errors.from_fault(cast(FaultMessage, message["fault"])))
        elif "broken" in message:
            self._give_up(errors.ConnectionLost(f"The agent failed:\n{message['broken']}"))

    def _give_up_with(self, error: errors.EbpflabError) -> None:
        self._give_up(
            error if isinstance(error, errors.TargetError) else errors.ConnectionLost(str(error))
        )

    def _give_up(self, error: errors.TargetError) -> None:
        if self._lost is None:
            self._lost = error
        futures: list[Future[Hello] | Future[_Came]] = [self._hello, *self._waiting.values()]
        for future in futures:
            try:
                future.set_exception(self._lost)
            except InvalidStateError:
                pass  # it has its answer


def _undone(undo: Callable[[Response], None], done: Future[_Came]) -> None:
    """Undo what was done when its caller had been interrupted, if it was done."""
    if done.exception() is None and "fault" not in done.result().message:
        undo(cast(Response, done.result().message.get("ok", {})))
