"""Decides which calls are past their deadlines, with one coarse timing wheel. No I/O: time is passed in.

Almost every call ends long before its deadline, so adding and removing must be cheap: each is one dictionary entry in
the bucket of the deadline's tick. Times are seconds of the event loop's clock. A deadline is reported at the end of
its tick: up to `TICK` late, never early.
"""

from __future__ import annotations

import heapq
from typing import Generic, TypeVar

TICK = 0.01
_SWEEP = 1024  # below this number of buckets, empty buckets are kept

T = TypeVar("T")


def end_of_tick(deadline: float) -> float:
    """Return the time at which *deadline* is reported."""
    return (int(deadline / TICK) + 1) * TICK


class DeadlineWheel(Generic[T]):
    """Things by deadline. Holds one entry per thing, and at most twice as many buckets as are in use, plus 1,024."""

    __slots__ = ("_buckets", "_sweep_at", "_ticks")

    def __init__(self) -> None:
        self._buckets: dict[int, dict[T, None]] = {}
        self._ticks: list[int] = []  # a heap of the ticks of all buckets, also of empty ones
        self._sweep_at = _SWEEP  # the number of buckets at which empty ones are dropped

    def __len__(self) -> int:
        return sum(map(len, self._buckets.values()))

    def add(self, thing: T, deadline: float) -> int:
        """Add *thing*. Returns the tick to pass to `remove`."""
        tick = int(deadline / TICK) + 1
        bucket = self._buckets.get(tick)
        if bucket is None:
            if len(self._ticks) >= self._sweep_at:
                self._sweep()
            bucket = self._buckets[tick] = {}
            heapq.heappush(self._ticks, tick)
        bucket[thing] = None
        return tick

    def remove(self, thing: T, tick: int) -> None:
        """Remove *thing*, if it is still there."""
        bucket = self._buckets.get(tick)
        if bucket is not None:
            bucket.pop(thing, None)

    def expired(self, now: float) -> list[T]:
        """Remove and return everything whose deadline has passed, oldest first."""
        due: list[T] = []
        while self._ticks and self._ticks[0] * TICK <= now:
            due += self._buckets.pop(heapq.heappop(self._ticks))
        return due

    def next_at(self) -> float | None:
        """Return when to call `expired` next; None if the wheel is empty."""
        while self._ticks and not self._buckets[self._ticks[0]]:
            del self._buckets[heapq.heappop(self._ticks)]
        return self._ticks[0] * TICK if self._ticks else None

    def _sweep(self) -> None:
        """Drop the empty buckets. If deadlines are far away, dropping them only at their ticks would be too late."""
        self._buckets = {tick: bucket for tick, bucket in self._buckets.items() if bucket}
        self._ticks = sorted(self._buckets)
        self._sweep_at = 2 * len(self._ticks) + _SWEEP
