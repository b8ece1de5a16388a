"""The outcomes of a pool's calls, second by second: the chart of a window."""

from __future__ import annotations

import numpy as np

from pool_monitor.metrics.columns import FAILED, OUTCOMES, by_session_kind
from pool_monitor.metrics.histogram import Ints
from pool_monitor.metrics.window import SECOND_NS, Window
from pool_monitor.snapshot import Trend

LENGTH = 4096
"""Seconds kept: the 3600 of the longest window and its open step, rounded up to a power of two."""
_NONE = np.iinfo(np.int64).min
"""The second of an unused entry. Not -1: a second may be negative."""


class TrendRing:
    """Calls of *pools* pools per second of the collector's clock: calls that ended well, failed, or were refused.

    A second counts as measured when `add` was called for it. The first second counts as a whole one, although only its
    end was measured: a rate over a hundredth of a second would show a spike that never happened. The ring always takes
    `bytes_for` bytes.
    """

    def __init__(self, pools: int) -> None:
        self._counts = np.zeros((LENGTH, pools, 3), np.int64)
        self._seconds = np.full(LENGTH, _NONE)
        """The second that each entry holds."""

    @staticmethod
    def bytes_for(pools: int) -> int:
        return LENGTH * (3 * pools + 1) * 8

    @property
    def nbytes(self) -> int:
        return self._counts.nbytes + self._seconds.nbytes

    def add(self, second: int, pool_sums: Ints) -> None:
        """Add the sums of a closed second (`pool_monitor.metrics.columns`), shape (pools, POOL_SUMS)."""
        outcomes = by_session_kind(pool_sums).sum(axis=1)
        at = second % LENGTH
        if self._seconds[at] != second:  # else the second was closed early, and these sums are the rest of it
            self._seconds[at], self._counts[at] = second, 0
        self._counts[at, :, 0] += outcomes[:, 0]
        self._counts[at, :, 1] += outcomes[:, FAILED].sum(axis=1)
        self._counts[at, :, 2] += outcomes[:, OUTCOMES.index("rejected")]

    def trend(self, pool: int, window: Window, now_ns: int, wall_ns: int) -> Trend:
        """The steps that were complete at *now_ns*. They begin at multiples of a step on the wall clock.

        *wall_ns* is the time of the wall clock at *now_ns*.
        """
        # Whole seconds are enough: a shift of the chart by less than a second cannot be seen.
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
