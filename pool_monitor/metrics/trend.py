"""How a pool's calls went second by second: the chart behind a window."""

from __future__ import annotations

import numpy as np

from pool_monitor.metrics.columns import FAILED, OUTCOMES, by_session_kind
from pool_monitor.metrics.histogram import Ints
from pool_monitor.metrics.window import SECOND_NS, Window
from pool_monitor.snapshot import Trend

LENGTH = 4096
"""Seconds kept: the longest window's 3600, its open step, and what makes a round number."""
_NONE = np.iinfo(np.int64).min
"""No second: those before the machine was started are negative."""


class TrendRing:
    """Calls of *pools* pools per second of the collector's clock: those that ended well, failed, or were refused.

    A second was measured when `add` was called with it. The first counts as a whole second too, though only its end was
    measured: a rate over a hundredth of a second would be a spike that did not happen. Always holds `bytes_for` its
    pools.
    """

    def __init__(self, pools: int) -> None:
        self._counts = np.zeros((LENGTH, pools, 3), np.int64)
        self._seconds = np.full(LENGTH, _NONE)
        """Which second each entry holds."""

    @staticmethod
    def bytes_for(pools: int) -> int:
        return LENGTH * (3 * pools + 1) * 8

    @property
    def nbytes(self) -> int:
        return self._counts.nbytes + self._seconds.nbytes

    def add(self, second: int, pool_sums: Ints) -> None:
        """Take in the sums of a second that has closed (`pool_monitor.metrics.columns`), shape (pools, POOL_SUMS)."""
        outcomes = by_session_kind(pool_sums).sum(axis=1)
        at = second % LENGTH
        if self._seconds[at] != second:  # else it was closed early, and this is the rest of it
            self._seconds[at], self._counts[at] = second, 0
        self._counts[at, :, 0] += outcomes[:, 0]
        self._counts[at, :, 1] += outcomes[:, FAILED].sum(axis=1)
        self._counts[at, :, 2] += outcomes[:, OUTCOMES.index("rejected")]

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
        sums = counts.reshape(-1, step, 3).sum(axis=1)
        rates = [
            tuple(count / length for count in counts) if length else (None, None, None)
            for counts, length in zip(sums.tolist(), lengths.tolist(), strict=True)
        ]
        ok, errors, rejected = zip(*rates, strict=True)
        return Trend(step=float(step), end=float(end), ok=ok, errors=errors, rejected=rejected)
