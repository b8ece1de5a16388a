"""How late the event loop runs: exact counts of the windows, and everything since the beginning.

Each window has steps on the grid of `pool_monitor.metrics.window`. The open step is a dense histogram; a closed step
keeps only the buckets in use. A reader adds up the steps: for a single series, running sums are not worth it.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pool_monitor.metrics.histogram import BUCKETS, bucket_of, quantiles
from pool_monitor.metrics.window import SECOND_NS, WINDOWS, Window
from pool_monitor.snapshot import Distribution

SHARES = (0.5, 0.9, 0.95, 0.99, 0.999)
_NONE: int = np.iinfo(np.int64).min
"""The number of an unused step."""


class LagTotals(NamedTuple):
    """Every measurement since the monitor was entered."""

    counts: NDArray[np.int64]
    """Shape (BUCKETS,), as in `pool_monitor.metrics.histogram`."""
    sum_ns: int


class LoopLag:
    """Counts durations in ns. Takes `FIXED_BYTES`, and ``nbytes``: at most 6.5 KB for each step of each window."""

    FIXED_BYTES = len(WINDOWS) * BUCKETS * 4 + BUCKETS * 8

    def __init__(self) -> None:
        self._windows = {window: _LagWindow(window) for window in WINDOWS.values()}
        self._counts = np.zeros(BUCKETS, np.int64)
        self._sum_ns = 0

    @property
    def nbytes(self) -> int:
        """Bytes of the closed steps."""
        return sum(window.nbytes for window in self._windows.values())

    def add(self, durations_ns: list[int], now_ns: int) -> None:
        """Count *durations_ns*, all at the time *now_ns* of the collector's clock."""
        durations = np.array(durations_ns, np.int64)
        buckets = bucket_of(durations)
        longest, total = int(durations.max()), sum(durations_ns)
        np.add.at(self._counts, buckets, 1)
        self._sum_ns += total
        for window in self._windows.values():
            window.add(buckets, total, longest, now_ns)

    def distribution(self, window: Window, now_ns: int) -> Distribution:
        """The durations of *window*, which ends at *now_ns*."""
        return self._windows[window].distribution(now_ns)

    def totals(self) -> LagTotals:
        """Everything that was counted."""
        return LagTotals(self._counts.copy(), self._sum_ns)


class _Step(NamedTuple):
    """A closed step."""

    number: int
    buckets: NDArray[np.uint16]
    counts: NDArray[np.int32]
    sum_ns: float
    """A float is exact up to 104 days, and never overflows."""
    longest_ns: int


def _step_bytes(step: _Step) -> int:
    """Upper estimate of the memory of *step*."""
    return 400 + 6 * len(step.buckets)


class _LagWindow:
    """The steps of one window."""

    def __init__(self, window: Window) -> None:
        self._window, self._step_ns = window, window.step * SECOND_NS
        self._closed: deque[_Step] = deque()
        """At most as many as the window has steps."""
        self.nbytes = 0
        """Bytes of the closed steps. Asked for every second, so it is not added up each time."""
        self._number = _NONE
        self._counts = np.zeros(BUCKETS, np.int32)
        self._sum_ns, self._longest_ns = 0.0, 0

    def add(self, buckets: NDArray[np.intp], total_ns: int, longest_ns: int, now_ns: int) -> None:
        number = now_ns // self._step_ns
        if number != self._number:
            self._close()
            self._number = number
        np.add.at(self._counts, buckets, np.int32(1))
        self._sum_ns += total_ns
        self._longest_ns = max(self._longest_ns, longest_ns)

    def _close(self) -> None:
        used = np.flatnonzero(self._counts)
        if len(used):
            counts = self._counts[used]
            step = _Step(self._number, used.astype(np.uint16), counts, self._sum_ns, self._longest_ns)
            if len(self._closed) == self._window.steps:
                self.nbytes -= _step_bytes(self._closed.popleft())
            self._closed.append(step)
            self.nbytes += _step_bytes(step)
            self._counts[:] = 0
            self._sum_ns, self._longest_ns = 0.0, 0

    def distribution(self, now_ns: int) -> Distribution:
        newest = now_ns // self._step_ns
        oldest = newest - self._window.steps + 1
        inside = [step for step in self._closed if oldest <= step.number <= newest]
        counts, sum_ns, longest_ns = np.zeros(BUCKETS, np.int64), 0.0, 0
        if oldest <= self._number <= newest:
            counts += self._counts
            sum_ns, longest_ns = self._sum_ns, self._longest_ns
        for step in inside:
            counts[step.buckets] += step.counts
            sum_ns += step.sum_ns
            longest_ns = max(longest_ns, step.longest_ns)
        count = int(counts.sum())
        if not count:
            return Distribution()
        # An estimate may exceed the longest duration, which is known exactly.
        p50, p90, p95, p99, p999 = np.minimum(quantiles(counts, SHARES), longest_ns / 1e9).tolist()
        mean, longest = sum_ns / count / 1e9, longest_ns / 1e9
        return Distribution(count=count, mean=mean, max=longest, p50=p50, p90=p90, p95=p95, p99=p99, p999=p999)


class Peaks:
    """The highest value of each second of the longest window: a ring of `SECONDS` entries."""

    SECONDS = 4096
    NBYTES = SECONDS * 16

    def __init__(self) -> None:
        self._values = np.zeros(self.SECONDS)
        self._seconds = np.full(self.SECONDS, _NONE)

    def add(self, value: float, now_ns: int) -> None:
        second = now_ns // SECOND_NS
        at = second % self.SECONDS
        self._values[at] = max(value, self._values[at]) if self._seconds[at] == second else value
        self._seconds[at] = second

    def highest(self, window: Window, now_ns: int) -> float | None:
        """The highest value in *window*; None when it has none."""
        newest = now_ns // SECOND_NS
        seconds = np.arange(newest - int(window.seconds) + 1, newest + 1)
        at = seconds % self.SECONDS
        found = self._values[at][self._seconds[at] == seconds]
        return float(found.max()) if len(found) else None
