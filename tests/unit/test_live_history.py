"""What a live view counts, keeps and draws, without a kernel."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise

import ipywidgets
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebpflab.decode import frames, spans
from ebpflab.decode.btf import Column
from ebpflab.decode.records import RecordType, RecordTypes
from ebpflab.errors import ConnectionLost, ProgramError, TableError
from ebpflab.live import Live, snapshot
from ebpflab.live.history import MOST_POINTS, History
from ebpflab.live.sources import Look, StreamSource, TableSource, log2_counts, log2_label, numeric
from ebpflab.protocol.framing import stride

LAYOUT = frames.layout_of(
    [
        Column("time_ns", 0, np.dtype("u8")),
        Column("latency_ns", 8, np.dtype("u8")),
        Column("pid", 16, np.dtype("u4")),
        Column("comm", 20, np.dtype("S4"), "text"),
        Column("flag", 24, np.dtype("u4"), bits=(0, 3)),
        Column("state", 28, np.dtype("u4"), enumerators={1: "RUNNING"}),
    ],
    32,
    "data",
)
RECORD = LAYOUT.dtype


def batch(latencies: list[int]) -> tuple[int, bytes]:
    """Records as they come over the wire."""
    step = stride(RECORD.itemsize)
    framed = np.zeros(
        len(latencies),
        np.dtype(
            {"names": ["n", "r"], "formats": ["u4", RECORD], "offsets": [0, 8], "itemsize": step}
        ),
    )
    framed["n"] = RECORD.itemsize
    framed["r"]["latency_ns"] = latencies
    framed["r"]["comm"] = b"work"
    return len(latencies), framed.tobytes()


class Arrived:
    """A stream to which the test hands its batches."""

    name, lost = "calls", 0
    _known = RecordTypes((RecordType("struct call", LAYOUT, LAYOUT.dtype.itemsize),))

    def __init__(self) -> None:
        self.batches: list[tuple[int, bytes]] = []

    def _since(self, row: int) -> tuple[int, list[tuple[int, bytes]]]:
        ends = np.cumsum([0, *(rows for rows, _ in self.batches)])
        new = [each for each, begins in zip(self.batches, ends, strict=False) if begins >= row]
        return int(ends[-1]), new

    def _decode(self, batches: list[bytes], skip: int) -> pd.DataFrame:
        data, _ = spans.records(b"".join(batches), RECORD, skip)
        return pd.DataFrame(frames.columns([data], LAYOUT))


class Traced:
    """A program, as far as a live view cares."""

    def __init__(self) -> None:
        self.attached, self.closed, self.log = ["uprobe work"], False, list[str]()
        self._died: ConnectionLost | None = None

    def attach_again(self) -> None:
        self.log.append("attach")
        self.attached = ["uprobe work"]

    def detach(self) -> None:
        self.log.append("detach")
        self.attached = []


@pytest.fixture
def live() -> Iterator[Live]:
    live = Live(StreamSource(Arrived(), None), Traced())
    yield live
    live.close()
    assert not [t for t in threading.enumerate() if t.name == "ebpflab live"]


@given(st.lists(st.integers(0, 2**64 - 1), max_size=50))
def test_buckets_are_bccs_log2(values: list[int]) -> None:
    counts = log2_counts(np.array(values, np.uint64))
    slots = [max(value.bit_length(), 1) for value in values]  # bpf_log2l, 1 for both 0 and 1
    assert list(counts) == [slots.count(slot) for slot in range(65)]


def test_negative_and_fractional_values_have_buckets() -> None:
    assert log2_counts(np.array([-7, 5], np.int32))[[0, 3]].tolist() == [1, 1]
    assert log2_counts(np.array([-0.5, 4.9]))[[0, 3]].tolist() == [1, 1]
    assert log2_counts(np.array([np.nan, 5.0, np.inf]))[[3, 63]].tolist() == [1, 1]
    assert log2_counts(np.array([np.nan])).sum() == 0
    assert [log2_label(bucket, "") for bucket in (0, 1, 3)] == ["< 0", "0", "4"]


def test_columns_that_can_be_counted_by_size() -> None:
    assert numeric(LAYOUT) == ["time_ns", "latency_ns", "pid"]
    assert numeric(frames.layout_of([], 16, "data")) == []


def test_a_look_counts_what_is_new_and_takes_nothing() -> None:
    stream = Arrived()
    stream.batches.append(batch([1] * 7))
    source = StreamSource(stream, None)  # what was there before is not new
    assert source.column == "latency_ns"
    stream.batches += [batch([5, 5, 1000]), batch([2**40])]
    stream.lost = 3
    look = source.look()
    assert (look.events, look.lost) == (4, 3)
    assert {n: int(count) for n, count in enumerate(look.counts) if count} == {3: 2, 10: 1, 41: 1}
    assert source.look().events == 0
    assert len(stream.batches) == 3
    assert list(source.newest()["latency_ns"]) == [2**40, 1000, 5, 5]


def test_the_last_ten_rows_of_many() -> None:
    stream = Arrived()
    source = StreamSource(stream, None)
    stream.batches += [batch([*range(1000)]), batch([1000, 1001])]
    source.look()
    assert list(source.newest()["latency_ns"]) == [*range(1001, 991, -1)]


class Counting:
    """A table whose counts the test sets: a histogram, or counts by process."""

    name = "dist"
    _layouts = (
        frames.layout_of([Column("key", 0, np.dtype("i4"))], 4, "key"),
        frames.layout_of([Column("value", 0, np.dtype("u8"))], 8, "value"),
    )

    def __init__(self) -> None:
        self.counts = {0: 1, 3: 5}

    def _read(self) -> tuple[np.ndarray, np.ndarray, None]:
        key, value = (layout.dtype for layout in self._layouts)
        keys, values = np.zeros(len(self.counts), key), np.zeros(len(self.counts), value)
        keys["key"], values["value"] = [*self.counts], [*self.counts.values()]
        return keys, values, None


def test_a_histogram_table_is_the_difference_of_two_looks() -> None:
    table = Counting()
    source = TableSource(table, "log2", "ns")
    table.counts = {0: 2, 1: 4, 3: 12}
    look = source.look()
    assert look.events == 12 and look.counts[[1, 3]].tolist() == [5, 7]
    assert source.label(4) == "8 ns" and source.newest().empty
    assert source.subject == table.name


@pytest.mark.parametrize("scale", ["log2", "linear"])
def test_a_key_that_is_no_slot_is_said_in_the_view(scale: str) -> None:
    """A map of return values, say: -2 is no bucket from the end, and 2**30 not the last one."""
    table = Counting()
    with closing(Live(TableSource(table, scale, ""), Traced())) as live:
        for bad, words in ((-2, "key -2,"), (2**30, "key 1,073,741,824,")):
            table.counts = {bad: 7, 3: 6}
            live._tick()
            assert words in live._said and live._history.frame(30).counts.sum() == 0
        assert live._thread.is_alive()
    with pytest.raises(TableError, match=words):
        TableSource(table, scale, "")


def test_an_array_is_as_long_as_it_is() -> None:
    table = Counting()
    table.counts = dict.fromkeys(range(-1, 100), 0) | {64: 3}
    assert TableSource(table, "log2", "")._counts[64] == 3


def test_the_last_bucket_of_values_is_of_all_above_it() -> None:
    table = Counting()
    source = TableSource(table, "linear", "ns")
    table.counts |= {255: 2, 1000: 4}
    assert source.look().counts[[3, 255]].tolist() == [0, 6]
    assert [source.label(bucket) for bucket in (3, 254, 255)] == ["3 ns", "254 ns", "≥ 255 ns"]


def test_another_table_shows_its_largest_entries() -> None:
    table = Counting()
    source = TableSource(table, None, "")
    table.counts = {pid: pid * 10 for pid in range(100, 120)}
    source.look()
    assert list(source.newest()["key"]) == [*range(119, 109, -1)]


def test_counts_are_as_large_as_the_kernels() -> None:
    """A map may hold nanoseconds or bytes, or -1 as a u64."""
    table = Counting()
    source = TableSource(table, None, "")
    assert source.totals[0] == 6
    table.counts = {1: 2**64 - 1, 2: 2**63 - 1, 3: 5}
    look = source.look()
    assert list(source.newest()["key"]) == [1, 2, 3]
    assert look.events == 2 * (2**63 - 1) + 5 - 6
    history = History(1)
    history.add(0.1, 0.1, look._replace(counts=np.array([2**33])))
    assert history.rate() == pytest.approx(look.events * 10)
    assert history.frame(10).counts.sum() == 2**33


def test_history_is_bounded_and_adds_up() -> None:
    history = History(65)
    size = sum(value.nbytes for value in vars(history).values() if isinstance(value, np.ndarray))
    for n in range(3001):
        counts = np.zeros(65, np.int64)
        counts[10 + n % 3] = 7
        history.add(n / 10, 0.1, Look(7, 0, counts))
    kept = sum(value.nbytes for value in vars(history).values() if isinstance(value, np.ndarray))
    assert size == kept < 1_000_000
    for window_s in (10, 30, 120):
        frame = history.frame(window_s)
        assert len(frame.ends_s) <= MOST_POINTS + 1
        assert frame.counts.sum() == window_s * 10 * 7 and frame.first == 10
        assert frame.events_per_s == pytest.approx(70)
        points, buckets = frame.counts.shape
        assert len(frame.pack()) == points * 24 + points * buckets * 4
    assert history.rate() == pytest.approx(70)


def test_a_bar_keeps_its_height_while_time_goes_on() -> None:
    history, ends = History(1), []
    for n in range(600):
        history.add(n / 10, 0.1, Look(n % 7, 0, np.zeros(1)))
        ends.append(set(np.round(history.frame(120).ends_s + n / 10, 3)[:-1]))
    assert ends[-2] <= ends[-1]


def test_stop_detaches_and_start_attaches(live: Live) -> None:
    program = live._program
    live.stop()
    assert program.attached == [] and live.start_button.disabled is False
    assert "stopped" in repr(live)
    live.start_button.click()
    assert program.attached and program.log == ["attach", "detach", "attach"]
    live.close()
    live.close()
    assert program.log[3:] == ["detach"] and "ended" in repr(live)
    for action in (live.start, live.stop):
        with pytest.raises(ProgramError, match="This view has ended"):
            action()


def test_two_views_of_one_program_end_one_after_the_other(live: Live) -> None:
    program = live._program
    other = Live(StreamSource(Arrived(), None), program)
    other.close()
    assert program.attached
    live.close()
    assert not program.attached


def test_a_view_that_has_ended_keeps_nothing() -> None:
    """ipywidgets keeps a box, and all that is in it, as long as nobody closes it."""
    before = set(ipywidgets.widgets.widget._instances)
    live = Live(StreamSource(Arrived(), None), Traced())
    box = ipywidgets.HBox([live])
    live.window.value = live.rate.value = 10  # moved while it runs
    kept = [weakref.ref(each) for each in (live._source, live._program, live._history)]
    live.close()
    live.window.value = 30
    gc.collect()
    assert [each() for each in kept] == [None] * 3
    assert live in box.children and live.events == 0
    layout = box.layout
    for widget in (box, layout):
        widget.close()
    assert set(ipywidgets.widgets.widget._instances) == before


class SlowPicture:
    """A picture that is drawn when the test says so."""

    def __init__(self) -> None:
        self.begun, self.go, self.log = threading.Event(), threading.Event(), list[str]()

    def show(self, *_: object) -> None:
        self.begun.set()
        self.go.wait(60)
        self.log.append("drawn")

    def close_view(self) -> None:
        self.log.append("view closed")


def test_who_closes_waits_for_the_thread_that_closes_already(live: Live) -> None:
    live._picture = picture = SlowPicture()
    live._listen_to_cells = picture.log.append  # a cell that ends asks who listens
    live._program.closed = True  # the thread sees that
    assert picture.begun.wait(60)
    threading.Timer(0.2, picture.go.set).start()
    live.close()  # as at the end of the cell that has closed the program
    assert picture.log == ["drawn", "view closed", "unregister"]


@pytest.mark.parametrize("where", ["look", "newest"])
def test_what_nobody_foresaw_is_said_in_the_view(live: Live, where: str) -> None:
    """A thread's traceback is seen by nobody, and a picture that stands still tells nothing."""
    looking, failing = getattr(live._source, where), threading.Event()

    def fail() -> None:
        failing.set()
        raise ZeroDivisionError("no such bucket")

    sent: list[dict[str, object]] = []
    live._busy, live.view.send = True, lambda words, *_: sent.append(words)
    setattr(live._source, where, fail)
    assert failing.wait(60)
    live._thread.join(60)
    assert "stopped" in repr(live) and live._program.attached == []
    assert "ZeroDivisionError: no such bucket" in str(sent[-1]["said"])
    assert sent[-1]["runs"] is False
    assert (live.start_button.disabled, live.stop_button.disabled) == (False, True)
    setattr(live._source, where, looking)
    live.start_button.click()
    assert live._thread.is_alive() and live._said == ""


def test_a_picture_that_fails_is_said_in_the_view(live: Live) -> None:
    live._picture = picture = SlowPicture()
    picture.go.set()
    live.stop()
    picture.show = lambda *_: 1 / 0  # type: ignore[method-assign]
    live.window.value = 10
    live._draw()
    assert "ZeroDivisionError" in live._said
    live._picture = None


@pytest.mark.parametrize("died", [None, ConnectionLost("The agent was killed.")])
def test_why_a_view_has_ended_stays_with_its_picture(died: ConnectionLost | None) -> None:
    said: list[str] = []

    class Kept(SlowPicture):
        def show(self, *how: object) -> None:
            said.append(str(how[-1]))

    program, table = Traced(), Counting()
    live = Live(TableSource(table, None, ""), program)

    def gone() -> None:
        raise ConnectionLost("This lab is closed.")

    with live._lock:
        live._picture, table.read = Kept(), gone  # type: ignore[method-assign,assignment]
        live._moved, program._died, program.closed = True, died, True
    live.close()
    assert said[-1:] == [str(died) if died else ""]


def test_an_error_is_said_in_the_view(live: Live) -> None:
    def fail() -> None:
        raise ConnectionLost("The agent is gone.")

    live._program.attach_again = fail
    live.start_button.click()
    assert live._said == "The agent is gone."


@pytest.mark.parametrize("kind", ["histogram", "heatmap"])
@pytest.mark.parametrize("looks", [0, 1, 50])
def test_the_picture_that_stays(kind: str, looks: int) -> None:
    source, history = StreamSource(Arrived(), None), History(65)
    for n in range(looks):
        history.add(n / 10, 0.1, Look(3, n % 2, log2_counts(np.array([n, 5, 900]))))
    assert snapshot.draw(source, history.frame(30), kind, 30).startswith(b"\x89PNG")
    assert snapshot.headline(source) == "calls: 0 events, 0 lost"
    told = snapshot.in_words(source, history.frame(30), 30)
    most = "latency_ns in these 30 seconds: the most, 54, from 4 ns to 8 ns."
    assert told == f"calls: 0 events, 0 lost. {most}" if looks == 50 else told


def test_labels_of_a_live_picture_do_not_touch() -> None:
    """Of all buckets there are; a difference below zero, as a u64, is in the last one."""
    source, history = StreamSource(Arrived(), None), History(65)
    for n in range(300):
        history.add(n / 10, 0.1, Look(65, 1, np.ones(65, np.int64)))
    frame = history.frame(30)
    for unit in ("", "ns", "bytes"):
        source.label = lambda bucket, unit=unit: log2_label(bucket, unit)  # type: ignore[method-assign]
        figure = snapshot.figure_of(source, frame, "histogram", 30)
        figure.draw_without_rendering()
        boxes = [each.get_window_extent() for each in figure.axes[1].get_xticklabels()]
        assert len(boxes) > 5
        assert all(a.x1 + 2 < b.x0 for a, b in pairwise(boxes)), unit
    legend, line = figure.axes[0].get_legend(), figure.axes[0].lines[0]
    assert legend is not None
    assert legend.get_window_extent().y0 > line.get_window_extent().y1
