"""Recordings: the rows of a stream in a file, as they arrive.

A recording is an Arrow IPC *stream*: a schema, then batches, each whole in itself. Where it is cut
off, by a full disk or the death of the notebook kernel, everything before the cut can be read; a
Parquet file without its footer would be lost. Kernel, target, clock and start are in the schema's
metadata; each batch carries how many events had been lost until then.

Batches are written by the thread that receives them. A slow disk therefore slows the reading,
fills the ring buffer, and makes losses that the kernel counts: memory does not grow.

Source: the Arrow columnar format, "IPC Streaming Format".
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pyarrow.ipc

from ebpflab.decode.arrays import Values
from ebpflab.display.progress import notice
from ebpflab.errors import RecordingError
from ebpflab.transport.closing import Closing

_OURS = b"ebpflab"
_TEXT = pa.dictionary(pa.int32(), pa.string())


class Recorder(Closing):
    """A recording in the making; made by `Stream.record`. Also a context manager.

    ``rows`` is how many are in the file. When the file cannot be written any more, recording
    ends with a notice, what is in the file stays, and the stream goes on.
    """

    def __init__(
        self,
        path: str | Path,
        attrs: dict[str, object],
        sync: Callable[[], None],
        detach: Callable[[Recorder], None],
    ) -> None:
        self.path = Path(path)
        self.rows = self.lost = 0
        self.error: OSError | None = None
        self._attrs, self._sync, self._detach = attrs, sync, detach
        self._writer: pa.ipc.RecordBatchStreamWriter | None = None
        self._writing = threading.Lock()  # rows may be on their way while the file is closed
        try:
            self._file = pa.OSFile(str(self.path), "wb")
        except OSError as error:
            why = error.strerror or error
            raise RecordingError(f"Cannot write a recording to {str(path)!r}: {why}.") from None

    def write(self, frame: pd.DataFrame, lost: int) -> bool:
        """Add rows. Called for each batch that arrives. False when they could not be written."""
        with self._writing:
            if self.error is None and not self._file.closed:
                self._write(frame, lost)
            return self.error is None and not self._file.closed

    def _write(self, frame: pd.DataFrame, lost: int) -> None:
        self.lost = lost
        try:
            arrays = [_arrow(frame[name]) for name in frame]
            if self._writer is None:
                self._begin(frame, arrays)
            assert self._writer is not None
            if list(frame.columns) != self._schema.names:
                raise OSError("records of another type have arrived, with other columns")
            batch = pa.RecordBatch.from_arrays(
                [array.cast(field.type) for array, field in zip(arrays, self._schema, strict=True)],
                schema=self._schema,
            )
            self._writer.write_batch(batch, custom_metadata={"lost": str(lost)})
            self.rows += len(frame)
        except OSError as error:
            self.error = error
            notice(
                f"Recording to {str(self.path)!r} has ended: {error}. The {self.rows:,} rows until"
                " then are in it."
            )

    def _begin(self, frame: pd.DataFrame, arrays: list[Any]) -> None:
        metadata = {_OURS: json.dumps(self._attrs, default=str).encode()}
        named = zip(frame.columns, arrays, strict=True)
        self._schema = pa.schema([(name, array.type) for name, array in named], metadata)
        self._writer = pa.ipc.new_stream(self._file, self._schema)

    def close(self) -> None:
        """Take in everything until this moment, and end the file. May be called twice."""
        if self._file.closed:
            return
        self._sync()
        self._detach(self)
        # The last batch says how many were lost in the end; after an error nothing more goes in.
        with self._writing, contextlib.suppress(OSError):
            if self._writer is not None and self.error is None:
                nothing = pa.RecordBatch.from_pylist([], schema=self._schema)
                self._writer.write_batch(nothing, custom_metadata={"lost": str(self.lost)})
                self._writer.close()
            self._file.close()

    def __repr__(self) -> str:
        state = "recorded" if self._file.closed else "recording"
        return f"<Recorder {str(self.path)!r}: {self.rows:,} rows {state}, {self.lost:,} lost>"


class Recording:
    """A file that `Stream.record` has written, whole or cut off. See `ebpflab.open_recording`.

    ``attrs`` is what `Lab.attrs` was, with stream (its name) and start (a time, as text);
    ``schema`` is Arrow's.

    >>> recording = open_recording("starts.arrows")
    >>> recording.attrs["stream"], recording.attrs["kernel"]
    ('starts', '6.12.118+deb13-cloud-amd64')
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        with self._reader() as reader:
            self.schema: pa.Schema = reader.schema
        told = (self.schema.metadata or {}).get(_OURS)
        if told is None:
            raise RecordingError(f"{str(path)!r} is an Arrow stream, but no recording of ebpflab.")
        self.attrs: dict[str, object] = json.loads(told)
        self.lost = 0
        """Events lost in the kernel until the last batch that has been read."""
        self.whole: bool | None = None
        """Whether the file has its end; False when it is cut off, None until it has been read."""

    @contextlib.contextmanager
    def _reader(self) -> Iterator[pa.ipc.RecordBatchStreamReader]:
        try:
            with pa.memory_map(str(self.path)) as file, pa.ipc.open_stream(file) as reader:
                yield reader
        except FileNotFoundError:
            raise RecordingError(f"There is no recording {str(self.path)!r}.") from None
        except (pa.ArrowInvalid, OSError) as error:
            raise RecordingError(
                f"{str(self.path)!r} is not a recording of ebpflab, or was cut off before its"
                f" first row: {error}."
            ) from None

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows as Arrow record batches: as much memory as one batch.

        Sets ``lost``, the number of events that were lost in the kernel, and, at the end,
        ``whole``: False when the file was cut off. Raises RecordingError when the file has gone.

        >>> recording = open_recording("starts.arrows")
        >>> sum(batch.num_rows for batch in recording.batches()), recording.lost, recording.whole
        (18, 0, True)
        """
        self.lost, self.whole = 0, None
        with self._reader() as reader:
            while True:
                try:
                    batch, metadata = reader.read_next_batch_with_custom_metadata()
                except StopIteration:
                    self.whole = self._has_end()
                    return
                except (pa.ArrowInvalid, OSError):
                    self.whole = False
                    return
                self.lost = int((metadata or {}).get(b"lost", self.lost))
                yield batch

    def _has_end(self) -> bool:
        """Whether the file ends with Arrow's end-of-stream marker."""
        with self.path.open("rb") as file:
            file.seek(-8, 2)
            return file.read() == b"\xff\xff\xff\xff\0\0\0\0"

    def reader(self) -> pa.RecordBatchReader:
        """Return the rows for a library that reads Arrow in batches, such as DuckDB.

        >>> import duckdb
        >>> rows = open_recording("starts.arrows").reader()
        >>> duckdb.sql("SELECT comm, count(*) FROM rows GROUP BY comm ORDER BY comm").fetchall()
        [('find', 12), ('python3', 1), ('sh', 5)]
        """
        return pa.RecordBatchReader.from_batches(self.schema, self.batches())

    def frame(self) -> pd.DataFrame:
        """Return all rows as a DataFrame.

        Columns are those of the stream; text is a categorical. ``attrs`` is that of the recording,
        with lost and whole. Raises RecordingError when the file has gone.

        >>> open_recording("starts.arrows").frame()[["comm", "filename"]].head(2)
              comm     filename
        0  python3      /bin/sh
        1       sh  /usr/bin/ls
        """
        table = pa.Table.from_batches(self.batches(), self.schema).unify_dictionaries()
        frame: pd.DataFrame = table.to_pandas()
        frame.attrs.update(self.attrs, lost=self.lost, whole=self.whole)
        return frame

    def to_parquet(self, folder: str | Path) -> Path:
        """Copy the rows into a Parquet dataset, ``folder/host=.../date=.../NAME-0.parquet``.

        ``host`` is the target and ``date`` the day (UTC) on which recording began. Other recordings
        in ``folder`` stay. Memory is that of a few batches. ``attrs`` of `frame`, with lost and
        whole, are in each file's metadata, as JSON under the key "ebpflab". Returns ``folder``.
        Raises RecordingError when the recording has gone.

        >>> folder = open_recording("starts.arrows").to_parquet("starts")
        >>> [path] = folder.rglob("*.parquet")
        >>> path.name
        'starts-0.parquet'
        >>> len(pd.read_parquet(path))
        18
        """
        host = str(self.attrs["target"]).removeprefix("ssh://").replace("/", "_")
        constant = {"host": host, "date": str(self.attrs["start"])[:10]}
        for _ in self.batches():  # a Parquet file tells at its head what was lost until its end
            pass
        told = {**self.attrs, "lost": self.lost, "whole": self.whole}
        schema = self.schema.with_metadata({_OURS: json.dumps(told).encode()})
        for name in constant:
            schema = schema.append(pa.field(name, pa.string()))
        columns = (
            [*batch.columns, *(pa.repeat(text, len(batch)) for text in constant.values())]
            for batch in self.batches()
        )
        parts = pyarrow.dataset.partitioning(
            pa.schema([(name, pa.string()) for name in constant]), flavor="hive"
        )
        pyarrow.dataset.write_dataset(
            (pa.RecordBatch.from_arrays(each, schema=schema) for each in columns),
            folder,
            basename_template=f"{self.path.stem}-{{i}}.parquet",
            format="parquet",
            schema=schema,
            partitioning=parts,
            existing_data_behavior="overwrite_or_ignore",
        )
        return Path(folder)

    def __repr__(self) -> str:
        return (
            f"<Recording {str(self.path)!r} of {self.attrs['stream']!r} on {self.attrs['target']},"
            f" Linux {self.attrs['kernel']}, {str(self.attrs['start'])[:19]}>"
        )


def _arrow(column: Values) -> Any:
    """A column as Arrow keeps it; texts are written once a batch, and rows refer to them."""
    if isinstance(column.dtype, pd.CategoricalDtype | pd.StringDtype):
        texts = pa.array(column.astype(object), pa.string())
        return texts.dictionary_encode().cast(_TEXT)
    if column.dtype != object:
        return pa.array(column.to_numpy())
    first = column.iloc[0] if len(column) else b""
    if isinstance(first, bytes):
        return pa.array(column, pa.binary())
    if hasattr(first, "__len__"):
        return pa.array(column.tolist())
    return pa.array(column.astype(str), pa.string()).dictionary_encode().cast(_TEXT)
