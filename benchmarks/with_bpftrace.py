"""Contender: bpftrace prints, pandas reads.

Until Ctrl-C; then bpftrace prints what is left, and its file is read. Tables are printed as
JSON, which is the form that it offers to programs.
"""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pandas as pd
from contender import End, finish, task
from programs import COLUMNS, bpftrace_source

_LOST = re.compile(rb"^Lost (\d+) events.*\n", re.MULTILINE)


def main() -> None:
    asked = task()
    end = End()
    with tempfile.TemporaryDirectory() as folder:
        printed, said, attached = (Path(folder) / name for name in ("printed", "said", "attached"))
        form = "json" if asked.output == "table" else "text"
        command = ["bpftrace", "-o", str(printed), "-f", form, "--unsafe", "-e"]
        source = bpftrace_source(asked.probe, asked.output, asked.pids, asked.program, attached)
        with said.open("wb") as errors:
            tracing = subprocess.Popen(
                [*command, source],
                env={**os.environ, "BPFTRACE_MAP_KEYS_MAX": str(max(asked.entries, 4096))},
                stdout=errors,
                stderr=errors,
                start_new_session=True,
            )
        while not attached.exists():
            if tracing.poll() is not None:
                raise SystemExit(f"bpftrace ended: {said.read_text()}")
            time.sleep(0.1)
        end.wait()
        tracing.send_signal(signal.SIGINT)
        tracing.wait()
        if asked.output == "table":
            finish(_table(printed), end)
        else:
            data = printed.read_bytes()
            lost = [int(many) for many in _LOST.findall(data)]
            if lost:  # told between the lines
                data = _LOST.sub(b"", data)
            # Instead of a header there is "Attaching 2 probes...".
            frame = pd.read_csv(io.BytesIO(data), header=0, names=COLUMNS, comment="@")
            finish(frame, end, lost=sum(lost))


def _table(printed: Path) -> pd.DataFrame:
    for line in printed.read_text().splitlines():
        told = json.loads(line)
        if told["type"] == "map":
            counts = told["data"]["@counts"]
            return pd.DataFrame({"key": map(int, counts), "value": counts.values()})
    raise SystemExit("bpftrace has printed no table")


main()
