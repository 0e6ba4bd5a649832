"""The widget: controls, a view, and the thread between the kernel's events and the page.

The thread looks at its source as often as `rate` says and sends the page one message a look: a
few words of JSON, and one buffer of numbers for the whole window, so that a page that comes
late, or loses a message, has all of it with the next one. Whether it runs is the program's
state, not the widget's: *stop* detaches the program, and every view of it stands still.

The page tells when its last view of this widget has gone, and now and then that there is one. So
the thread ends when the output is cleared, and sends nothing while nobody is connected, which
the server would keep for whoever connects next. Beside the view stands a picture (`snapshot`),
which the page hides while it has a view: what a saved notebook shows.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import anywidget
import ipywidgets
import traitlets

from ebpflab import errors
from ebpflab.display import cells
from ebpflab.display.progress import in_notebook
from ebpflab.live import snapshot
from ebpflab.live.history import History
from ebpflab.live.sources import Source, StreamSource

_HERE = Path(__file__).parent
_UPLOT = _HERE / "vendor" / "uPlot-1.6.32"
_PICTURE_SECONDS = 5.0
_GONE_SECONDS = 2.0  # a cell that is moved takes its view away and brings it back
_SILENT_SECONDS = 15.0  # a page that has a view says so every 5 s
_CLOSING_SECONDS = 30.0  # its picture is drawn once more, which takes a while on a busy machine
WINDOWS_S = {"10 s": 10, "30 s": 30, "2 min": 120}
RATES_HZ = {"10 a second": 10, "5 a second": 5, "2 a second": 2, "1 a second": 1}


class Traced(Protocol):
    """What a live view needs of a `Program`."""

    @property
    def attached(self) -> list[str]: ...
    @property
    def closed(self) -> bool: ...
    @property
    def _died(self) -> errors.TargetError | None: ...
    def attach_again(self) -> None: ...
    def detach(self) -> None: ...


class View(anywidget.AnyWidget):
    """The picture in the page."""

    # uPlot defines a global; in one module with ours it is a variable of that module.
    _esm = Path(f"{_UPLOT}.iife.min.js").read_text() + (_HERE / "live.js").read_text()
    _css = Path(f"{_UPLOT}.min.css").read_text() + (_HERE / "live.css").read_text()
    key = traitlets.Unicode().tag(sync=True)


class Live(ipywidgets.VBox):  # type: ignore[misc]  # ipywidgets has no types
    """A live view of a stream or a table, with its controls. Made by `Stream.live`, `Table.live`.

    ``start``, ``stop`` and ``close`` do what the buttons do; ``window``, ``rate``, ``column`` and
    ``picture`` are ipywidgets, whose ``value`` may be set. It can be put into any box.
    """

    _alive: weakref.WeakSet[Live] = weakref.WeakSet()

    def __init__(
        self, source: Source, program: Traced, sync: Callable[[], None] = lambda: None
    ) -> None:
        cells.retire()
        program.attach_again()  # what an earlier view detached, for instance of this cell
        self._source, self._program, self._sync = source, program, sync
        self._name, self._totals = source.name, source.totals
        self._history = History(source.buckets)
        self._over, self._lock, self._ended = threading.Event(), threading.RLock(), False
        self._closing = False
        self._over.set()  # no thread yet
        self._drawing = threading.Lock()
        self._looked_s = self._drawn_s = self._seen_s = time.monotonic()
        self._gone_s: float | None = None
        self._busy, self._moved, self._ran, self._said = in_notebook(), True, False, ""
        self.view = View()
        self.view.key = self.view.model_id
        self.view.on_msg(self._hear)
        if self.view.comm is not None:
            self.view.comm.on_close(lambda _: self._leave())
        super().__init__([self._make_controls(), self.view])
        self._picture: Any = snapshot.Still(self.view.key) if in_notebook() else None
        self._listen_to_cells("register")
        self._begin()
        Live._alive.add(self)
        cells.adopt(self)

    def _make_controls(self) -> ipywidgets.Box:
        small = ipywidgets.Layout(width="auto")
        make = {"layout": small, "style": {"description_width": "initial"}}
        self.start_button = ipywidgets.Button(description="Start", icon="play", layout=small)
        self.stop_button = ipywidgets.Button(description="Stop", icon="stop", layout=small)
        self.start_button.on_click(lambda _: self._pressed(self.start))
        self.stop_button.on_click(lambda _: self._pressed(self.stop))
        self.window = ipywidgets.Dropdown(options=WINDOWS_S, value=30, description="Window", **make)
        self.rate = ipywidgets.Dropdown(options=RATES_HZ, value=10, description="Rate", **make)
        self.picture = ipywidgets.Dropdown(
            options=["histogram", "heatmap"], description="Picture", **make
        )
        self.column = ipywidgets.Dropdown(
            options=self._source.columns, value=self._source.column, description="of", **make
        )
        self.column.observe(self._choose, "value")
        for control in (self.window, self.picture):
            control.observe(lambda _: self._refresh(), "value")
        controls = [self.start_button, self.stop_button, self.window, self.rate]
        if self._source.column is not None:
            controls.append(self.picture)
        if isinstance(self._source, StreamSource) and len(self._source.columns) > 1:
            controls.append(self.column)
        return ipywidgets.HBox(controls, layout=ipywidgets.Layout(flex_flow="row wrap"))

    @property
    def events(self) -> int:
        """How many events it has seen arrive; of a table, the sum of its counts."""
        return self._counted()[0]

    @property
    def lost(self) -> int | None:
        """How many were lost; None of a table, where the kernel counts and sends nothing."""
        return self._counted()[1]

    def _counted(self) -> tuple[int, int | None]:
        with self._lock:  # its own thread may be ending it
            return self._totals if self._ended else self._source.totals

    # -- what the buttons do -----------------------------------------------------------------

    def start(self) -> None:
        """Attach the program again, if it was detached, and go on drawing."""
        self._refuse_if_ended()
        self._said = ""
        self._program.attach_again()
        self._begin()

    def stop(self) -> None:
        """Detach the program. The picture stays as it is at this moment."""
        self._refuse_if_ended()
        self._program.detach()
        self._sync()
        self._tick()
        self._draw()

    def close(self) -> None:
        """End for good: detach the program, unless another view watches it; keep the picture.

        Returns when the picture is where the view was, whoever closes it: the thread does so as
        well when it finds the program closed, and what it sends after the cell that closed it has
        ended would reach nobody who executes a notebook.
        """
        with self._lock:
            first, self._closing = not self._closing, True
        if first:
            self._leave()
        if threading.current_thread() is not self._thread:
            self._thread.join(_CLOSING_SECONDS)
        if not first:
            return
        self._tick()
        if self._program._died is not None:
            self._said = str(self._program._died)
        if self._picture is not None:
            self._draw()
            self._picture.close_view()
        Live._alive.discard(self)
        self._close_widgets()
        self._let_go()
        self._listen_to_cells("unregister")  # last, so that a cell that ends meanwhile waits

    def _let_go(self) -> None:
        """Forget what it has drawn: a box may hold this view as long as the notebook lives."""
        with self._drawing, self._lock:
            self._totals, self._moved, self._ended = self._source.totals, False, True
            del self._source, self._program, self._sync, self._history

    def _refuse_if_ended(self) -> None:
        if self._closing:
            raise errors.ProgramError("This view has ended. `.live()` makes a new one.")

    def _close_widgets(self) -> None:
        """ipywidgets keeps each widget, shown or not, and all that it refers to, until its close;
        layouts and styles are widgets of their own."""
        controls = (self.start_button, self.stop_button, self.window, self.rate)
        box = self.children[0]
        for widget in (*controls, self.picture, self.column, box, self.view):
            widget.layout.close()
            widget.close()
        for control in (*controls, self.picture, self.column):
            control.style.close()
        self.layout.close()
        super().close()

    # -- the thread --------------------------------------------------------------------------

    def _begin(self) -> None:
        if self._over.is_set():
            self._over, self._gone_s, self._ran = threading.Event(), None, False
            self._thread = threading.Thread(
                target=self._watch, args=(self._over,), name="ebpflab live", daemon=True
            )
            self._thread.start()

    def _watch(self, over: threading.Event) -> None:
        due_s = time.monotonic()
        while not over.wait(max(due_s - time.monotonic(), 0)):
            now_s = time.monotonic()
            due_s = max(due_s, now_s - 1 / self.rate.value) + 1 / self.rate.value
            if self._program.closed:
                return self.close()
            self._tick()
            if self._gone_s is not None and now_s - self._gone_s > _GONE_SECONDS:
                return self._leave()
            if self._moved and self._in_touch() and now_s - self._drawn_s > _PICTURE_SECONDS:
                # Beside this thread, since a picture takes longer than a frame may.
                threading.Thread(target=self._draw, name="ebpflab picture", daemon=True).start()
                self._drawn_s = now_s

    def _tick(self) -> None:
        """Look, and tell the page."""
        with self._telling(), self._lock:
            runs = bool(self._program.attached)
            if runs and not self._ran:  # the time in which nothing was attached is no look
                self._looked_s = time.monotonic() - 1 / self.rate.value
            if runs or self._ran:
                self._look()
                self._moved = True
                self._send(runs)
            self._ran = runs
            if self.start_button.disabled != runs:
                self.start_button.disabled, self.stop_button.disabled = runs, not runs

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """What nobody foresaw ends the looking and is said in the view: a thread has no cell."""
        try:
            yield
        except Exception as error:
            self._leave()  # asks other views, so without the lock
            with self._lock:
                self._ran, self._said = False, _unforeseen(error)
                self.start_button.disabled, self.stop_button.disabled = False, True
                if self._in_touch():
                    self.view.send({"runs": False, "rate": 0, "said": self._said})

    def _look(self) -> None:
        now_s = time.monotonic()
        try:
            look = self._source.look()
        except errors.EbpflabError as error:
            if not self._program.closed:  # else `close` says why, where nobody asked for it
                self._said = str(error)
            return
        self._history.add(now_s, max(now_s - self._looked_s, 1e-3), look)
        self._looked_s = now_s

    def _send(self, runs: bool) -> None:
        if not self._in_touch():
            return
        frame = self._history.frame(self.window.value)
        events, lost = self._source.totals
        rows = self._source.newest()
        content = {
            "runs": runs,
            "said": self._said,
            "rate": self._history.rate() if runs else 0,
            "events": events,
            "lost": lost,
            "points": len(frame.ends_s),
            "window": self.window.value,
            "picture": self.picture.value,
            "of": self._source.subject,
            "labels": [
                self._source.label(frame.first + i) for i in range(frame.counts.shape[1] + 1)
            ],
            "columns": list(rows.columns),
            "rows": rows.astype(str).to_numpy().tolist(),
        }
        self.view.send(content, [frame.pack()])

    def _in_touch(self) -> bool:
        """Whether a page listens. While a cell runs, what the page says is not heard."""
        return self._busy or time.monotonic() - self._seen_s < _SILENT_SECONDS

    def _refresh(self) -> None:
        """A control was moved: the picture changes even when nothing arrives."""
        with self._telling(), self._lock:
            if self._ended:
                return
            self._moved = True
            self._send(bool(self._program.attached))

    def _choose(self, change: dict[str, Any]) -> None:
        with self._lock:
            if self._ended:
                return
            self._source.column = change["new"]
            self._history.forget_counts()
        self._refresh()

    def _leave(self) -> None:
        """Nobody looks any more: end the thread, and detach unless another view is there."""
        self._over.set()
        others = (each for each in Live._alive if each is not self and not each._over.is_set())
        if self._program.closed or any(each._watches(self._program) for each in others):
            return
        try:
            self._program.detach()
        except errors.EbpflabError:
            pass  # the agent is gone, and with it the probes

    def _watches(self, program: Traced) -> bool:
        with self._lock:
            return not self._ended and self._program is program

    # -- what the page and the notebook say --------------------------------------------------

    def _hear(self, _: object, content: dict[str, object], __: object) -> None:
        self._seen_s = time.monotonic()
        self._gone_s = self._seen_s if content.get("say") == "gone" else None
        if content.get("say") == "here" and not self._closing:
            self._begin()
            self._refresh()

    def _pressed(self, action: Callable[[], None]) -> None:
        try:
            action()
        except errors.EbpflabError as error:
            self._said = str(error)
        self._refresh()

    def _listen_to_cells(self, verb: str) -> None:
        if in_notebook():
            from IPython.core.getipython import get_ipython

            events = get_ipython().events  # type: ignore[union-attr]
            getattr(events, verb)("pre_run_cell", self._cell_begins)
            getattr(events, verb)("post_run_cell", self._cell_ends)

    def _cell_begins(self, _: object) -> None:
        self._busy = True

    def _cell_ends(self, _: object) -> None:
        """Comes before the cell is done, so that whoever executes it gets the picture."""
        self._seen_s, self._busy = time.monotonic(), False
        if self._closing or self._program.closed:
            self.close()
        else:
            self._draw()

    # -- what stays --------------------------------------------------------------------------

    def _draw(self) -> None:
        """Renew the picture that is saved with the notebook, if it is not the newest."""
        if self._picture is None:
            return
        # One at a time: an older picture must not come after a newer one, nor after the cell.
        with self._telling(), self._drawing:
            with self._lock:
                if not self._moved:
                    return
                self._moved, self._drawn_s = False, time.monotonic()
                frame = self._history.frame(self.window.value)
                rows = self._source.newest()
            how = self.picture.value, self.window.value, self._said
            self._picture.show(self._source, frame, rows, *how)

    def _ipython_display_(self) -> None:
        if self._picture is None:
            print(repr(self))
        else:
            self._picture.show_view(self.model_id, repr(self))

    def __repr__(self) -> str:
        state = "ended" if self._closing else "running" if self._program.attached else "stopped"
        return f"<Live view of {self._name!r}: {state}>"


def _unforeseen(error: Exception) -> str:
    return (
        f"This view has stopped, and its program is detached: {type(error).__name__}: {error}."
        " That should not happen: please report it. Start tries again."
    )
