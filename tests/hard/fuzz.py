"""What reads bytes that somebody else has written, each as a function of those bytes.

Hypothesis calls them in `test_fuzz.py`, with every `make test`; `.venv/bin/python tests/hard fuzz`
has atheris look for inputs that reach new lines of the code, for minutes, each in a process of its
own whose memory and whose time for one input are limited. A target returns or raises what its
module says that it raises; anything else is a finding.

    .venv/bin/python tests/hard/fuzz.py TARGET SECONDS FOLDER    # its corpus goes to FOLDER
"""

from __future__ import annotations

import functools
import io
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
sys.path.append("/usr/lib/python3/dist-packages")  # bcc, for the agent's modules

MEMORY_MIB = 2048
INPUT_SECONDS = 10
INPUT_BYTES = 8192


def agent_reads(data: bytes) -> None:
    """As root: the frames of a notebook, up to requests and their answers."""
    from ebpflab.agent import session
    from ebpflab.protocol import framing

    served = _served(session)
    try:
        for kind, payload in framing.read_frames(io.BytesIO(data)):
            if kind != framing.CONTROL:
                raise framing.BadFrame("as `session.main` does")
            served.submit(payload)
            request = served._requests.get()[0]
            op = str(request.get("op"))
            if op in _HARMLESS or op not in served._operations._methods:
                served.respond(request)
    except framing.BadFrame:
        pass
    served._submitted_bytes = served._taken_bytes = 0


# Requests that only look, and those for a program, of which there is none here.
_HARMLESS = {
    *("attach", "detach", "close", "table", "clear", "update", "delete", "pop", "stats", "stacks"),
    *("put_program", "attach_again", "wait", "tracepoint_format", "syscall_name", "symbols"),
    *("usdt_probes", "usdt_check", "read_elf"),
}


@functools.cache
def _served(session: Any) -> Any:
    class Quiet(session.Session):  # type: ignore[misc]
        """Without threads, and without a notebook."""

        def _answer(self, answer: dict[str, Any]) -> None:
            from ebpflab.protocol import framing

            framing.parse_control(b"".join(framing.control(answer)[1:]))

    return Quiet(-1, end=lambda status: None)


def agent_notes(data: bytes) -> None:
    """As root: the ELF file of a program that is traced."""
    from ebpflab.agent.faults import Fault
    from ebpflab.agent.processes import notes

    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        try:
            for found in notes.read(file.name)[1]:
                notes.Places(file.name).offset(found.address)
        except Fault:
            pass
        try:
            notes.check_machine(file.name)
        except Fault:
            pass


def agent_perf_map(data: bytes) -> None:
    """As root: what a traced program says of code that it made."""
    from ebpflab.agent.processes import symbols

    path = Path(f"/tmp/perf-{os.getpid()}.map")
    path.write_bytes(data)
    try:
        functions = symbols._Functions(symbols._perf_map(os.getpid()))
        functions.at(0x1000)
    finally:
        path.unlink()


def notebook_reads(data: bytes) -> None:
    """The frames of an agent, with somebody waiting and somebody listening."""
    from concurrent.futures import Future

    from ebpflab import errors
    from ebpflab.protocol import framing
    from ebpflab.transport import connection

    talk = object.__new__(connection.Connection)  # without its threads
    talk._waiting = {number: Future() for number in range(1, 4)}
    talk._blobs, talk._sinks, talk._early, talk._early_bytes = {}, {}, {}, 0
    talk._sinks_lock, talk._hello, talk._lost = threading.RLock(), Future(), None
    talk._sinks[1] = (lambda lost, records: notebook_records(records),)
    try:
        for kind, payload in framing.read_frames(io.BytesIO(data)):
            talk._dispatch(kind, payload)
    except framing.BadFrame:
        pass
    for future in talk._waiting.values():
        if future.done() and future.exception() is None:
            fault = future.result().get("fault")
            if fault is not None:
                assert isinstance(errors.from_fault(fault, "int f;\n"), errors.EbpflabError)


def notebook_records(data: bytes) -> None:
    """A batch of records."""
    import numpy as np
    import pandas as pd

    from ebpflab.decode import frames, records, spans
    from ebpflab.decode.btf import Bits, Column
    from ebpflab.protocol.framing import BadFrame

    columns = [
        Column("n", 0, np.dtype("u8")),
        Column("name", 8, np.dtype("S8"), "text"),
        Column("bits", 0, np.dtype("i4"), bits=Bits(3, 7)),
        Column("address", 0, np.dtype("V16"), "ipv6"),
    ]
    layout = frames.layout_of(columns, 16, "data")
    try:
        count = spans.count_records(data)
        found, words = spans.records(data, layout.dtype)
        assert len(found) == len(words) == count == len(spans.raw_records(data))
        assert len(pd.DataFrame(frames.columns([found], layout))) == count
        kinds = [records.RecordType(str(size), layout, size) for size in (16, 24)]
        for known in (records.RecordTypes(tuple(kinds[:1])), records.RecordTypes(tuple(kinds))):
            assert len(records.decode([data], count // 3, known, True)[0]) == count - count // 3
        assert spans.count_records(data[: spans.end_of(data, count // 2)]) == count // 2
    except BadFrame:
        pass


def notebook_types(data: bytes) -> None:
    """The table of a program's types, and the columns that are made of it."""
    from ebpflab.decode import btf, frames, records

    try:
        types = btf.Types(data)
    except ValueError:
        return
    for number, type_ in enumerate(types._types[:100]):
        try:
            size_bytes = types.size_of(number)
            columns = types.columns_of(number, "data")
            assert len(columns) < 100_000
            frames.layout_of(columns, size_bytes, "data")
        except (btf.NoSuchType, ValueError, TypeError):
            pass
        if type_.name.startswith("____btf_map_"):
            name = type_.name.removeprefix("____btf_map_")
            try:
                frames.layout_in(types, name, "value", 8)
                records.sent(types, name, per_cpu=True)
            except (ValueError, TypeError):
                pass


def notebook_messages(data: bytes) -> None:
    """Lines of trace_pipe, into which every program of the machine may write."""
    from ebpflab.streams import Messages

    messages = object.__new__(Messages)
    assert len(messages._decode([data], 0)) == messages._count(data)


TARGETS: dict[str, Callable[[bytes], None]] = {
    each.__name__: each
    for each in (
        agent_reads,
        agent_notes,
        agent_perf_map,
        notebook_reads,
        notebook_records,
        notebook_types,
        notebook_messages,
    )
}


def seeds(target: str) -> list[bytes]:
    """Whole inputs to begin with."""
    import struct

    from ebpflab.protocol import framing

    def joined(*frames: list[Any]) -> bytes:
        return b"".join(bytes(part) for frame in frames for part in frame)

    span = b"".join(struct.pack("<IIQ8s", 16, 1, n, b"name\0\0\0\0") for n in range(3))
    mixed = span + struct.pack("<II8s", 5 | framing.DISCARD, 0, b"gone!") + span
    data = REPOSITORY / "tests" / "data" / "btf"
    return {
        "agent_reads": [
            joined(
                framing.control({"id": 1, "op": op, "program": 1, "name": "c", "path": "/bin/ls"})
            )
            for op in sorted(_HARMLESS)
        ]
        + [
            joined(
                framing.control({"id": 2, "op": "tracepoint_format", "tp": "sched:sched_switch"})
            )
        ],
        "agent_notes": [Path("/usr/bin/true").read_bytes()[:INPUT_BYTES], _probe_elf()],
        "agent_perf_map": [b"1000 20 work\n0x2000 8 other name\n"],
        "notebook_reads": [
            joined(
                framing.control({"hello": {"protocol": 1}}),
                framing.encode(framing.BATCH, framing.BATCH_HEADER.pack(1, 0), span),
                framing.encode(framing.BATCH, framing.BATCH_HEADER.pack(2, 3), mixed),
                framing.encode(framing.BLOB, framing.BLOB_HEADER.pack(1), b"blob"),
                framing.control({"id": 1, "ok": {"n": 1}}),
            ),
            joined(
                framing.control(
                    {"id": 2, "fault": {"type": "VerifierError", "detail": {"log": "l"}}}
                ),
                framing.control({"id": 3, "fault": {"type": "CompileError", "message": "m"}}),
            ),
        ],
        "notebook_records": [span, mixed],
        "notebook_types": [path.read_bytes()[:INPUT_BYTES] for path in data.glob("*.btf")],
        "notebook_messages": [
            b"          cat-1234    [001] d..31  5678.123456: bpf_trace_printk: hello\n"
        ],
    }[target]


def _probe_elf(arguments: bytes = b"-4@%edi") -> bytes:
    """A small program file with one USDT probe, `p:n`."""
    import struct

    described = struct.pack("<QQQ", 0x1000, 0, 0) + b"p\0n\0" + arguments + b"\0"
    note = struct.pack("<III8s", 8, len(described), 3, b"stapsdt\0") + described
    note += bytes(-len(note) % 4)
    names = b"\0.note.stapsdt\0.shstrtab\0"
    at = 64 + len(note) + len(names)
    header = b"\x7fELF\2\1\1" + bytes(9) + struct.pack("<HHIQQQ", 2, 62, 1, 0, 0, at)
    header += struct.pack("<I6H", 0, 64, 56, 0, 64, 3, 2)
    rows = [(0, 0, 0, 0), (1, 7, 64, len(note)), (15, 3, 64 + len(note), len(names))]
    table = b"".join(
        struct.pack("<IIQQQQIIQQ", name, kind, 0, 0, offset, size, 0, 0, 1, 0)
        for name, kind, offset, size in rows
    )
    return header + note + names + table


def fuzz(target: str, seconds: int, folder: Path) -> dict[str, Any]:
    """Let atheris fuzz one target in a process of its own; what came of it."""
    command = [sys.executable, __file__, target, str(seconds), str(folder)]
    done = subprocess.run(
        command, capture_output=True, text=True, errors="replace", timeout=seconds + 300
    )
    (folder / f"{target}.log").write_text(done.stdout + done.stderr)
    runs = re.findall(r"^stat::number_of_executed_units:\s+(\d+)", done.stderr, re.MULTILINE)
    peak = re.findall(r"^stat::peak_rss_mb:\s+(\d+)", done.stderr, re.MULTILINE)
    covered = re.findall(r"cov: (\d+)", done.stderr)
    return {
        "target": target,
        "seconds": seconds,
        "status": done.returncode,
        "runs": int(runs[-1]) if runs else 0,
        "peak_mib": int(peak[-1]) if peak else 0,
        "covered": int(covered[-1]) if covered else 0,
        "said": "" if done.returncode == 0 else (done.stdout + done.stderr)[-3000:],
    }


def main(target: str, seconds: str, folder: str) -> None:
    import atheris

    with atheris.instrument_imports(include=["ebpflab"]):
        for each in seeds(target):
            TARGETS[target](each)  # imports all there is to import
    corpus = Path(folder) / target
    corpus.mkdir(parents=True, exist_ok=True)
    for number, each in enumerate(seeds(target)):
        (corpus / f"seed-{number}").write_bytes(each)
    options = [
        f"-max_total_time={seconds}",
        f"-rss_limit_mb={MEMORY_MIB}",
        f"-timeout={INPUT_SECONDS}",
        f"-max_len={INPUT_BYTES}",
        f"-artifact_prefix={corpus}/found-",
        "-print_final_stats=1",
        str(corpus),
    ]
    atheris.Setup([sys.argv[0], *options], TARGETS[target])
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
