"""What the advisor remembers of the machine and of the event loop, for all pools together."""

from __future__ import annotations

import bisect
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pool_monitor.advisor.bucket_ring import BucketRing
from pool_monitor.advisor.history import BUCKET_S, BUCKETS

LAGS = 2000
"""Samples of the loop's lag that are kept of one bucket; one more leaves out the sample."""
READING_S = 30.0
"""For how long a reading of a process counts, if no new one comes."""
POOL_READING_S = 60.0
"""And for how long what a pool uses."""
PROCESSES = 1024
"""Processes whose share of the processors is kept."""

_MEANS = ("throttled_ratio", "host_cpu_ratio", "host_cpus", "pressure_cpu", "own_cpus")
_COLUMNS = (*_MEANS, *(f"{name}_n" for name in _MEANS), "lag_samples", "lag_p99", "blocked")


class _Reading(NamedTuple):
    until: float
    cpus: float


class HostJournal:
    """The figures of the host in buckets of 10 s, for 9 hours: less than 500 kB. Used from one thread."""

    def __init__(self) -> None:
        self.buckets = BucketRing(_COLUMNS, BUCKET_S, BUCKETS)
        self.cpus: float | None = None
        self.memory_free: float | None = None
        """Bytes, by the latest sample."""
        self.ready_then: dict[str, int] = {}
        """By pool: the workers that were ready at that sample, so their memory is counted in it."""
        self.throttled_known = False
        self._lags: list[float] = []  # of one bucket, sorted
        self._lag_bucket: int | None = None
        self._pools: dict[str, _Reading] = {}
        self._own: dict[object, _Reading] = {}
        self._own_total = 0.0
        self._own_until = -math.inf  # when the total has to be computed again

    @property
    def nbytes(self) -> int:
        return self.buckets.nbytes + len(self._lags) * 32 + len(self._own) * 300

    def note(self, at: float, **figures: float) -> None:
        """Take figures of one sample, by the name of their column."""
        self.buckets.add(at, **figures, **{f"{name}_n": 1.0 for name in figures})

    def note_lag(self, at: float, seconds: float) -> None:
        """Take how late the event loop ran a callback."""
        bucket = self.buckets.number(at)
        if bucket != self._lag_bucket:
            self._close_lags()
            self._lag_bucket = bucket
        if len(self._lags) < LAGS:
            bisect.insort(self._lags, seconds)

    def note_block(self, at: float, seconds: float) -> None:
        """Take for how long the event loop was blocked."""
        self.buckets.add(at, blocked=seconds)

    def note_own(self, at: float, process: object, cpus: float) -> None:
        """Take how many processors one of our processes uses."""
        if process in self._own or len(self._own) < PROCESSES:
            self._own[process] = _Reading(at + READING_S, cpus)
            self._own_until = -math.inf

    def note_pool(self, at: float, pool: str, cpus: float) -> None:
        """Take how many processors the workers of *pool* use on the average of some time."""
        self._pools[pool] = _Reading(at + POOL_READING_S, cpus)

    def cpus_left(self, now: float, pool: str) -> float | None:
        """The processors that *pool* may use: those that no other pool uses, but at least an equal part of all. So
        pools that each could use all of them come to an equal part each. None: it is not known how many there are.
        """
        if self.cpus is None:
            return None
        self._pools = {name: reading for name, reading in self._pools.items() if reading.until > now}
        others = [reading.cpus for name, reading in self._pools.items() if name != pool]
        return max(self.cpus - sum(others), self.cpus / (1 + len(others)))

    def tick(self, now: float) -> None:
        """Sum up what our processes use."""
        if now >= self._own_until:
            self._own = {process: reading for process, reading in self._own.items() if reading.until > now}
            self._own_total = sum(reading.cpus for reading in self._own.values())
            self._own_until = min((reading.until for reading in self._own.values()), default=math.inf)
        if self._own:
            self.buckets.add(now, own_cpus=self._own_total, own_cpus_n=1.0)

    def columns(self, now: float) -> tuple[NDArray[np.int64], dict[str, NDArray[np.float64]]]:
        """The rows of 10 s that are over: their numbers and columns. NaN: not measured."""
        if self._lag_bucket is not None and self._lag_bucket < self.buckets.number(now):
            self._close_lags()
        numbers, columns = self.buckets.before(now)
        for name in _MEANS:
            count = columns.pop(f"{name}_n")
            values = columns[name]
            columns[name] = np.divide(values, count, out=np.full(len(values), np.nan), where=count > 0)
        unmeasured = columns["lag_samples"] == 0
        columns["lag_p99"][unmeasured] = np.nan
        columns["blocked"][unmeasured & (columns["blocked"] == 0)] = np.nan
        return numbers, columns

    def _close_lags(self) -> None:
        row = None if self._lag_bucket is None or not self._lags else self.buckets.row(self._lag_bucket)
        if row is not None:
            row[_COLUMNS.index("lag_samples")] = len(self._lags)
            row[_COLUMNS.index("lag_p99")] = self._lags[int(0.99 * (len(self._lags) - 1))]
        self._lags = []
        self._lag_bucket = None
