"""A session: one notebook's requests, answered in order, while its streams flow.

The reading thread puts requests in a queue; one worker answers them, so that a load of several
seconds does not keep the end of input from being seen. Waiting for a workload has a thread of
its own and answers whenever the workload ends.
"""

import itertools
import json
import os
import platform
import queue
import sys
import threading
import time
import traceback
from typing import Any, Callable, Dict, List, Tuple

from ebpflab.agent.faults import Fault
from ebpflab.agent.kernel import features, headers, maps, names
from ebpflab.agent.probes import usdt
from ebpflab.agent.processes import elf, notes
from ebpflab.agent.processes.mappings import Mappings
from ebpflab.agent.processes.symbols import Symbols, name_stacks, of_file
from ebpflab.agent.processes.workloads import Workloads
from ebpflab.agent.programs.cache import Programs
from ebpflab.agent.streams.drain import Drain
from ebpflab.agent.streams.trace_pipe import Messages, prints
from ebpflab.protocol import framing

Reply = Dict[str, Any]
_MAX_WAITING_BYTES = 64 << 20


def clock_offset_ns() -> int:
    """What to add to the kernel's monotonic clock to get wall time (bpf_ktime_get_ns -> UTC).

    The monotonic clock is read between two readings of the other; the error is at most half
    the time between those, some microseconds.
    """
    before = time.time_ns()
    monotonic = time.monotonic_ns()
    after = time.time_ns()
    return (before + after) // 2 - monotonic


def _explained(refusal: Fault) -> Fault:
    """Why a program was refused: clang stumbles over the headers of a kernel newer than BCC."""
    if refusal.type != "CompileError" or not headers.are_blamed(refusal.detail["log"]):
        return refusal
    match = features.check_bcc_version(features.Machine())
    if match.status == features.YES:
        return refusal
    return Fault(
        "HeadersError",
        f"BCC cannot compile this for this kernel: {match.reason}. What helps: {match.fix}.",
        log=refusal.detail["log"],
    )


class Session:
    """Everything that one notebook has on this machine."""

    def __init__(self, writer: int, end: Callable[[int], None]) -> None:
        self._writer, self._end = writer, end
        self._write_lock = threading.Lock()
        self._requests: "queue.SimpleQueue[Tuple[framing.Message, int]]" = queue.SimpleQueue()
        self._submitted_bytes = self._taken_bytes = 0  # each is counted by one thread
        idents = itertools.count(1)
        self._drain = Drain(self._send_batch, self._broken)
        self._programs = Programs(self._drain, idents)
        self._workloads = Workloads()
        self._mappings = Mappings()
        self._symbols = Symbols(self._mappings)
        self._idents = idents
        self._messages = Messages(self._drain, idents)

    def begin(self) -> None:
        self._drain.start()
        threading.Thread(target=self._work, name="worker", daemon=True).start()
        self._write(framing.control({"hello": self._hello()}))

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
        """Detach everything. The kernel would do so when this process ends; workloads not."""
        self._workloads.close()
        self._programs.end()

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
        answer: Dict[str, Any] = {"id": request.get("id")}
        try:
            handler = getattr(self, f"op_{request.get('op')}", None)
            if handler is None:
                raise Fault("AgentFault", f"the agent knows no request {request.get('op')!r}")
            result = handler(request)
            if result is None:  # answered later
                return
            answer["ok"] = result
        except Fault as fault:
            answer["fault"] = fault.as_message()
        except (Exception, SystemExit) as error:  # BCC calls sys.exit: the worker must live on
            where = traceback.format_exc()
            answer["fault"] = Fault(
                "AgentFault", f"{type(error).__name__}: {error}", traceback=where
            ).as_message()
        self._answer(answer)

    def _answer(self, answer: Dict[str, Any]) -> None:
        try:
            frame = framing.control(answer)
        except framing.BadFrame:
            fault = Fault("AgentFault", "The answer is too long to send. Ask for less.")
            frame = framing.control({"id": answer["id"], "fault": fault.as_message()})
        try:
            self._write(frame)
        except OSError:
            self._end(0)

    def _hello(self) -> Reply:
        import bcc

        return {
            "protocol": framing.PROTOCOL,
            "kernel": os.uname().release,
            "arch": platform.machine(),
            "hostname": os.uname().nodename,
            "bcc": bcc.__version__,
            "python": platform.python_version(),
            "pid": os.getpid(),
            "root": os.geteuid() == 0,
            "clock_offset_ns": clock_offset_ns(),
        }

    def op_set_clock(self, request: framing.Message) -> Reply:
        """Set this machine's wall clock; only asked of a guest that was resumed."""
        now = request["realtime_ns"]
        if abs(time.time_ns() - now) > 1_000_000:
            time.clock_settime_ns(time.CLOCK_REALTIME, now)
        return {"clock_offset_ns": clock_offset_ns()}

    def op_load(self, request: framing.Message) -> Reply:
        if prints(request["source"]):
            self._messages.listen(request["program"])
        try:
            loaded = self._programs.load(
                request["program"],
                request["source"],
                request["cflags"],
                request.get("headers"),
                request.get("usdt_contexts", ()),
            )
        except BaseException as error:
            self._messages.forget(request["program"])
            if isinstance(error, Fault):
                raise _explained(error) from None
            raise
        loaded["messages"] = self._messages.stream
        if any(table["type"] == maps.STACK_TRACE for table in loaded["maps"]):
            self._mappings.watch()
            for pid in self._workloads.pids:
                self._mappings.remember(pid)
        self._send_blob(request["id"], self._programs[request["program"]].types)
        return loaded

    def op_attach(self, request: framing.Message) -> Reply:
        program = self._programs[request["program"]]
        attachment = program.attach(request["kind"], request["fn_name"], request["where"])
        return {"attachment": attachment.ident}

    def op_stats(self, request: framing.Message) -> Reply:
        return self._programs[request["program"]].stats()

    def op_attach_again(self, request: framing.Message) -> Reply:
        return self._programs.attach_again(request["program"], request["usdt_contexts"])

    def op_detach(self, request: framing.Message) -> Reply:
        self._programs[request["program"]].detach(request.get("attachment"))
        return {}

    def op_close(self, request: framing.Message) -> Reply:
        stats = self._programs.close(request["program"])
        self._messages.forget(request["program"])
        return {"stats": stats}

    def op_sync(self, request: framing.Message) -> Reply:
        self._drain.sync(request["streams"])
        return {}

    def op_table(self, request: framing.Message) -> Reply:
        table = self._programs[request["program"]].maps[request["name"]]
        keys, values = maps.read(table)
        self._send_blob(request["id"], keys + values)
        return {"entries": len(keys) // table.key_size, "stride": table.stride}

    def op_stacks(self, request: framing.Message) -> Reply:
        """Stacks of a table with the names of their functions, as JSON in a blob."""
        table = self._programs[request["program"]].maps[request["name"]]
        named = name_stacks(self._symbols, table, request["kernel"], request["user"])
        self._send_blob(request["id"], json.dumps(named).encode())
        return {}

    def op_clear(self, request: framing.Message) -> Reply:
        maps.clear(self._programs[request["program"]].maps[request["name"]])
        return {}

    def op_update(self, request: framing.Message) -> Reply:
        table = self._programs[request["program"]].maps[request["name"]]
        maps.update(table, bytes.fromhex(request["key"]), bytes.fromhex(request["value"]))
        return {}

    def op_delete(self, request: framing.Message) -> Reply:
        table = self._programs[request["program"]].maps[request["name"]]
        maps.delete(table, bytes.fromhex(request["key"]))
        return {}

    def op_put_program(self, request: framing.Message) -> Reply:
        program = self._programs[request["program"]]
        program.put_program(request["name"], bytes.fromhex(request["key"]), request["fn_name"])
        return {}

    def op_pop(self, request: framing.Message) -> Reply:
        table = self._programs[request["program"]].maps[request["name"]]
        self._send_blob(request["id"], maps.pop(table, request["most"]))
        return {}

    def op_start(self, request: framing.Message) -> Reply:
        self._mappings.drain()
        return {"pid": self._workloads.start(request)}

    def op_wait(self, request: framing.Message) -> None:
        def answer(result: Dict[str, Any], output: bytes) -> None:
            self._send_blob(request["id"], output)
            self._answer({"id": request["id"], "ok": result})

        self._workloads.wait(request["pid"], answer)

    def op_stop(self, request: framing.Message) -> Reply:
        self._workloads.stop(request["pid"], request["signal"])
        return {}

    def op_features(self, _: framing.Message) -> Reply:
        return {"features": features.probe()}

    def op_kernel_functions(self, request: framing.Message) -> Reply:
        return {"names": names.kernel_functions(request["pattern"])}

    def op_tracepoints(self, request: framing.Message) -> Reply:
        return {"names": names.tracepoints(request["pattern"])}

    def op_tracepoint_format(self, request: framing.Message) -> Reply:
        return {"format": names.tracepoint_format(request["tp"])}

    def op_syscall_name(self, request: framing.Message) -> Reply:
        return {"name": names.syscall_name(request["name"])}

    def op_symbols(self, request: framing.Message) -> Reply:
        return {"symbols": of_file(request["path"], request["pattern"])}

    def op_usdt_probes(self, request: framing.Message) -> Reply:
        return {"probes": notes.describe(request["path"])}

    def op_usdt_check(self, request: framing.Message) -> Reply:
        path, probe = usdt.check(request["path"], request["pid"], request["probe"])
        return {"path": path, "probe": probe}

    def op_read_elf(self, request: framing.Message) -> Reply:
        facts, data = elf.read_elf(request["name"], request["offset"], request["size_bytes"])
        self._send_blob(request["id"], data)
        return facts


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
