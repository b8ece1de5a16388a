"""Durations of unsuccessful calls: histograms by operation and outcome, since the collector was attached.

A call is unsuccessful when its outcome is any except ``ok``. The windows keep the durations of successful calls only,
because a mean or a percentile over both kinds describes neither. These histograms are for exporters; no window and no
history has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pool_monitor.metrics.columns import OUTCOMES
from pool_monitor.metrics.fold import UnsuccessfulCalls
from pool_monitor.metrics.histogram import BUCKETS, bucket_of
from pool_monitor.metrics.histogram_pages import reserved
from pool_monitor.metrics.series import OTHER, RowKey

LIMIT = 512
"""Most histograms, not counting those of `OTHER`. Above it, calls count there."""
_BYTES = (BUCKETS + 1) * 8 + 512
"""Bytes of one histogram and its key."""
_OUTCOMES = len(OUTCOMES) - 1  # all except ok

FailureKey: TypeAlias = tuple[str, str, str]
"""Pool, operation, outcome."""


class FailureDurations(NamedTuple):
    """Durations of unsuccessful calls, from the call to its end."""

    keys: tuple[FailureKey, ...] = ()
    counts: NDArray[np.int64] = np.zeros((0, BUCKETS), np.int64)
    """Shape (keys, BUCKETS)."""
    sums: NDArray[np.int64] = np.zeros(0, np.int64)
    """In ns."""
    born: NDArray[np.float64] = np.zeros(0)
    """When each histogram began to count, seconds since the epoch."""


class FailureHistograms:
    """Histograms of *pools* pools: at most *limit*, and never more than `LIMIT`, not counting those of `OTHER`."""

    def __init__(self, pools: int, limit: int) -> None:
        self._limit = min(limit, LIMIT)
        capacity = self._limit + pools * _OUTCOMES
        self._counts: NDArray[np.int64] = reserved((capacity, BUCKETS), np.int64)
        self._sums = np.zeros(capacity, np.int64)
        self._born_ns = np.zeros(capacity, np.int64)
        self._places: dict[FailureKey, int] = {}
        self._named = 0
        self._free: list[int] = []

    @staticmethod
    def most_bytes(pools: int, limit: int) -> int:
        """Bytes held when all histograms are in use."""
        return (min(limit, LIMIT) + pools * _OUTCOMES) * _BYTES

    @property
    def nbytes(self) -> int:
        """Bytes held now. The memory of a histogram that was once in use stays allocated."""
        return (len(self._places) + len(self._free)) * _BYTES

    def add(self, unsuccessful: UnsuccessfulCalls, keys: Sequence[RowKey], now_ns: int) -> None:
        """Count calls. *keys* has the key of every row."""
        codes = unsuccessful.rows * len(OUTCOMES) + unsuccessful.outcomes
        distinct, which = np.unique(codes, return_inverse=True)
        rows, outcomes = np.divmod(distinct, len(OUTCOMES))
        places = np.array(
            [
                self._place(keys[row][0], keys[row][1], OUTCOMES[outcome], now_ns)
                for row, outcome in zip(rows.tolist(), outcomes.tolist(), strict=True)
            ]
        )[which]
        np.add.at(self._counts, (places, bucket_of(unsuccessful.durations)), unsuccessful.weight)
        np.add.at(self._sums, places, unsuccessful.durations * unsuccessful.weight)

    def keep(self, keys: Sequence[RowKey]) -> None:
        """Forget all operations except those of *keys* and `OTHER`."""
        alive = {key[:2] for key in keys}
        for key in [key for key in self._places if key[1] != OTHER and key[:2] not in alive]:
            place = self._places.pop(key)
            self._counts[place] = 0
            self._sums[place] = 0
            self._named -= 1
            self._free.append(place)

    def totals(self, since_s: float, drift_s: float) -> FailureDurations:
        """Everything counted since *since_s*. *drift_s* is how far the wall clock is ahead of the collector's."""
        keys = sorted(self._places)
        places = np.array([self._places[key] for key in keys], np.intp)
        born = np.maximum(self._born_ns[places] / 1e9 + drift_s, since_s)
        return FailureDurations(tuple(keys), self._counts[places], self._sums[places], born)

    def _place(self, pool: str, operation: str, outcome: str, now_ns: int) -> int:
        key = (pool, operation, outcome)
        place = self._places.get(key)
        if place is None:
            if operation != OTHER:
                if self._named >= self._limit:
                    return self._place(pool, OTHER, outcome, now_ns)
                self._named += 1
            place = self._free.pop() if self._free else len(self._places)
            self._places[key] = place
            self._born_ns[place] = now_ns
        return place
