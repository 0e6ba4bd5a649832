"""The looks of the last two minutes, and one frame of a picture from them.

Everything has a fixed size: a look overwrites the oldest one, and a frame has at most
`MOST_POINTS` points of time, and a first one that is cut short, however long its window is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ebpflab.live.sources import Look

LONGEST_SECONDS = 120
MOST_POINTS = 240
_LOOKS = LONGEST_SECONDS * 10 + 60

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Window:
    """A window of time: points from the oldest to the newest, buckets from the smallest."""

    ends_s: Floats
    """When each point ends, in seconds before the newest one: -29.9 ... 0."""
    events_per_s: Floats
    lost_per_s: Floats
    first: int
    """The number of the first bucket that is in use."""
    counts: npt.NDArray[np.int64]
    """Points x buckets, from ``first`` on."""

    def pack(self) -> bytes:
        """One message: the three series as float64, then the counts as float32."""
        series = np.concatenate([self.ends_s, self.events_per_s, self.lost_per_s])
        return series.astype("<f8").tobytes() + self.counts.astype("<f4").tobytes()


class History:
    """Looks at something whose events fall into ``buckets`` buckets."""

    def __init__(self, buckets: int) -> None:
        self._ends_s, self._lasted_s = np.zeros(_LOOKS), np.zeros(_LOOKS)
        # Floats: a table may add up bytes or nanoseconds, billions of them in one look.
        self._events, self._lost = np.zeros(_LOOKS), np.zeros(_LOOKS, np.int64)
        self._counts = np.zeros((_LOOKS, buckets), np.int64)
        self._taken = 0

    def add(self, ends_s: float, lasted_s: float, look: Look) -> None:
        """A look that took in ``lasted_s`` seconds, until ``ends_s`` (of a monotonic clock)."""
        place = self._taken % _LOOKS
        self._ends_s[place], self._lasted_s[place] = ends_s, lasted_s
        self._events[place], self._lost[place] = look.events, look.lost
        self._counts[place] = look.counts
        self._taken += 1

    def forget_counts(self) -> None:
        """Another column was chosen: what was counted is of the old one."""
        self._counts[:] = 0

    def rate(self, seconds: float = 1.0) -> float:
        """Events per second, over the last ``seconds``."""
        places = self._places(seconds)
        lasted = self._lasted_s[places].sum()
        return float(self._events[places].sum() / lasted) if lasted else 0.0

    def frame(self, window_s: float) -> Window:
        """The last ``window_s`` seconds."""
        places = self._places(window_s)
        if not len(places):
            nothing = np.zeros(0)
            return Window(nothing, nothing, nothing, 0, np.zeros((0, 0), np.int64))
        # Groups begin at fixed looks, so that a bar does not change when the window moves on.
        size = -(-len(places) // MOST_POINTS)
        number = np.arange(self._taken - len(places), self._taken) // size
        starts = np.flatnonzero(np.diff(number, prepend=-1))
        lasted = np.add.reduceat(self._lasted_s[places], starts)
        counts = np.add.reduceat(self._counts[places], starts)
        used = np.flatnonzero(counts.any(axis=0))
        first, last = (int(used[0]), int(used[-1])) if len(used) else (0, -1)
        ends = self._ends_s[places][np.append(starts[1:], len(places)) - 1]
        return Window(
            ends - ends[-1],
            np.add.reduceat(self._events[places], starts) / lasted,
            np.add.reduceat(self._lost[places], starts) / lasted,
            first,
            counts[:, first : last + 1],
        )

    def _places(self, seconds: float) -> npt.NDArray[np.int64]:
        """Where the looks of the last ``seconds`` are, from the oldest to the newest."""
        if not self._taken:
            return np.zeros(0, np.int64)
        places = np.arange(max(self._taken - _LOOKS, 0), self._taken) % _LOOKS
        ends = self._ends_s[places]
        kept: npt.NDArray[np.int64] = places[ends > ends[-1] - seconds + 1e-6]
        return kept
