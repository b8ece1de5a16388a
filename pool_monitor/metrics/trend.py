"""How a pool's calls went second by second: the chart behind a window."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pool_monitor.metrics.histogram import Ints
from pool_monitor.metrics.window import SECOND_NS, SILENCE, Window
from pool_monitor.snapshot import Trend

LENGTH = 4096
"""Seconds kept: the longest window's 3600, its open step, and what makes a round number."""
_NONE = np.iinfo(np.int64).min
"""No second: those before the machine was started are negative."""


class TrendRing:
    """Calls that ended well and that failed, per second of the collector's clock, for each of *pools* pools.

    A second counts as measured when it is the one of the start or a later one, and the ring was advanced in it, or to
    within three seconds of it. The first counts as a whole second too, though only its end was measured: a rate over
    a hundredth of a second would be a spike nobody saw. Holds `bytes_for` its pools, always.
    """

    def __init__(self, now_ns: int, pools: int) -> None:
        self._counts = np.zeros((LENGTH, pools, 2), np.int64)
        self._seconds = np.full(LENGTH, _NONE)
        """Which second each entry holds."""
        self._latest = now_ns // SECOND_NS
        self._open_entries(self._latest, self._latest)

    @staticmethod
    def bytes_for(pools: int) -> int:
        return LENGTH * (2 * pools + 1) * 8

    @property
    def nbytes(self) -> int:
        return self._counts.nbytes + self._seconds.nbytes

    def advance(self, now_ns: int) -> None:
        second = now_ns // SECOND_NS
        if second > self._latest:
            gap = second - self._latest > SILENCE
            self._open_entries(second if gap else self._latest + 1, second)
            self._latest = second

    def add(self, now_ns: int, pools: NDArray[np.intp], ok: Ints, errors: Ints) -> None:
        """Count calls at *now_ns*, given per row with each row's pool."""
        self.advance(now_ns)
        counts = self._counts[self._latest % LENGTH]
        np.add.at(counts, pools, np.stack((ok, errors), axis=-1))

    def trend(self, pool: int, window: Window, now_ns: int, wall_ns: int) -> Trend:
        """The steps that were complete at *now_ns*, cut where the wall clock, *wall_ns* then, is a multiple of one."""
        # Whole seconds between the clocks: a chart shifted by less than one is as good.
        offset = (wall_ns - now_ns) // SECOND_NS
        step = window.trend_step
        end = (now_ns // SECOND_NS + offset) // step * step
        seconds = np.arange(end - offset - int(window.seconds), end - offset)
        measured = self._seconds[seconds % LENGTH] == seconds
        counts = np.where(measured[:, None], self._counts[seconds % LENGTH, pool], 0)
        lengths = measured.reshape(-1, step).sum(axis=1)
        sums = counts.reshape(-1, step, 2).sum(axis=1)
        rates = [
            (ok / length, errors / length) if length else (None, None)
            for (ok, errors), length in zip(sums.tolist(), lengths.tolist(), strict=True)
        ]
        ok, errors = zip(*rates, strict=True)
        return Trend(step=float(step), end=float(end), ok=ok, errors=errors)

    def _open_entries(self, first: int, last: int) -> None:
        seconds = np.arange(first, last + 1)
        self._seconds[seconds % LENGTH] = seconds
        self._counts[seconds % LENGTH] = 0
