"""The latest calls of a pool that have ended, as columns."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pool_monitor.advisor.history import CALLS, Calls

_FIRST = 1024
_TIMES = 3
_CODES = 4
BYTES = CALLS * (_TIMES * 8 + _CODES * 4)
"""Most bytes of a ring."""


class CallRing:
    """Keeps the latest `CALLS` calls, in the order in which they were added. It grows as it is needed."""

    def __init__(self) -> None:
        self._times = np.zeros((_TIMES, _FIRST))
        self._codes = np.zeros((_CODES, _FIRST), np.int32)
        self.total = 0
        """Calls that were ever added."""

    @property
    def nbytes(self) -> int:
        return int(self._times.nbytes + self._codes.nbytes)

    def add(self, times: NDArray[np.float64], codes: NDArray[np.int32]) -> None:
        """Add calls: rows (arrived, started, ended), in seconds, and (operation, worker, outcome, error)."""
        times, codes = times[:, -CALLS:], codes[:, -CALLS:]
        count = times.shape[1]
        capacity = self._times.shape[1]
        if capacity < CALLS and self.total + count > capacity:
            capacity = min(CALLS, max(2 * capacity, self.total + count))
            # Not full until now, so the oldest call is still in the first place.
            self._times = np.concatenate((self._times, np.zeros((_TIMES, capacity - self._times.shape[1]))), axis=1)
            more = np.zeros((_CODES, capacity - self._codes.shape[1]), np.int32)
            self._codes = np.concatenate((self._codes, more), axis=1)
        place = self.total % capacity
        before_end = min(count, capacity - place)
        for ring, block in ((self._times, times), (self._codes, codes)):
            ring[:, place : place + before_end] = block[:, :before_end]
            ring[:, : count - before_end] = block[:, before_end:]
        self.total += count

    def latest(self, count: int) -> Calls:
        """Copies of the latest *count* calls, or of as many as there are."""
        capacity = self._times.shape[1]
        count = min(count, self.total, capacity)
        end = self.total % capacity if self.total >= capacity else self.total
        if end >= count:
            times, codes = self._times[:, end - count : end].copy(), self._codes[:, end - count : end].copy()
        else:
            first = capacity - (count - end)
            times = np.concatenate((self._times[:, first:], self._times[:, :end]), axis=1)
            codes = np.concatenate((self._codes[:, first:], self._codes[:, :end]), axis=1)
        return Calls(*times, *codes)
