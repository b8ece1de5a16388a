"""Deadlines of many calls on one coarse wheel. No I/O: time is passed in.

Almost every call ends long before its deadline, so what must be cheap is adding and removing: a dictionary entry
in the bucket of the deadline's tick. Times are seconds of the event loop's clock. A deadline is reported at the
end of its tick: up to `TICK` late, never early.
"""

from __future__ import annotations

import heapq
from typing import Generic, TypeVar

TICK = 0.01
_SWEEP = 1024  # buckets below which nobody minds the empty ones

T = TypeVar("T")


def end_of_tick(deadline: float) -> float:
    """When a deadline is reported."""
    return (int(deadline / TICK) + 1) * TICK


class DeadlineWheel(Generic[T]):
    """Things by deadline. Holds one entry per thing, and at most twice as many buckets as are in use, plus 1,024."""

    __slots__ = ("_buckets", "_sweep_at", "_ticks")

    def __init__(self) -> None:
        self._buckets: dict[int, dict[T, None]] = {}
        self._ticks: list[int] = []  # a heap of the buckets there are, emptied ones included
        self._sweep_at = _SWEEP  # so many buckets, and the empty ones go

    def __len__(self) -> int:
        return sum(map(len, self._buckets.values()))

    def add(self, thing: T, deadline: float) -> int:
        """Note *thing*; returns the tick to give to `remove`."""
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
        """Forget *thing*, if it is still noted."""
        bucket = self._buckets.get(tick)
        if bucket is not None:
            bucket.pop(thing, None)

    def expired(self, now: float) -> list[T]:
        """Take out everything whose deadline has passed, oldest first."""
        due: list[T] = []
        while self._ticks and self._ticks[0] * TICK <= now:
            due += self._buckets.pop(heapq.heappop(self._ticks))
        return due

    def next_at(self) -> float | None:
        """When to call `expired` next; None when nothing is noted."""
        while self._ticks and not self._buckets[self._ticks[0]]:
            del self._buckets[heapq.heappop(self._ticks)]
        return self._ticks[0] * TICK if self._ticks else None

    def _sweep(self) -> None:
        """Drop the empty buckets: with deadlines far away their time would come far too late."""
        self._buckets = {tick: bucket for tick, bucket in self._buckets.items() if bucket}
        self._ticks = sorted(self._buckets)
        self._sweep_at = 2 * len(self._ticks) + _SWEEP
