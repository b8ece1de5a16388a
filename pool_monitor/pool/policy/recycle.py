"""Decides when a worker process must be replaced because of its calls, age or memory. No I/O, no clock."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from pool_monitor.config import PoolConfig
    from pool_monitor.pool.policy.jitter import Jitter


class RecycleLimits(NamedTuple):
    """The limits of one process: calls, seconds, bytes of resident memory. None: no limit."""

    calls: int | None
    """The number of calls handed to the process at which its successor is started."""
    age: float | None
    rss: int | None
    most_calls: int | None = None
    """The number of calls after which the process is handed no more, even if the successor is not ready."""

    @classmethod
    def draw(cls, config: PoolConfig, rng: Jitter) -> RecycleLimits:
        """Draw the limits of one process: within ``recycle_jitter`` of the configured limits, and never more calls than
        configured. They are random so that processes that began together do not end together.
        """
        jitter = config.recycle_jitter
        age, calls = config.recycle_age, config.recycle_calls
        return cls(
            None if calls is None else rng.randint(min(calls, math.ceil(calls * (1 - jitter))), calls),
            None if age is None else age * rng.uniform(1 - jitter, 1 + jitter),
            _jittered(config.recycle_rss, jitter, rng),
            calls,
        )

    def changed(self, before: PoolConfig, after: PoolConfig) -> RecycleLimits:
        """Return the limits with the age and memory of *after*. What was drawn for *before* keeps its place."""
        age, rss = self.age, self.rss
        if age is not None and before.recycle_age and after.recycle_age:
            age *= after.recycle_age / before.recycle_age
        if rss is not None and before.recycle_rss and after.recycle_rss:
            rss = round(rss * after.recycle_rss / before.recycle_rss)
        return self._replace(age=age, rss=rss)

    def reason(self, calls: int, age: float, rss: int | None) -> Literal["calls", "age", "rss"] | None:
        """Return the limit that a process has reached, or None. *rss* is None while it is not known."""
        if self.calls is not None and calls >= self.calls:
            return "calls"
        if self.age is not None and age >= self.age:
            return "age"
        if self.rss is not None and rss is not None and rss > self.rss:
            return "rss"
        return None


def _jittered(value: int | None, jitter: float, rng: Jitter) -> int | None:
    if value is None:
        return None
    return rng.randint(min(value, math.ceil(value * (1 - jitter))), max(value, math.floor(value * (1 + jitter))))
