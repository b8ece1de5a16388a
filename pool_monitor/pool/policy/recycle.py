"""When a worker process has done enough. No I/O, no clock."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from pool_monitor.config import PoolConfig


class RecycleLimits(NamedTuple):
    """The limits of one process: calls, seconds, bytes of resident memory. None: there is none."""

    calls: int | None
    """With so many calls its successor is started."""
    age: float | None
    rss: int | None
    most_calls: int | None = None
    """And so many are handed to it at most."""

    @classmethod
    def draw(cls, config: PoolConfig, rng: random.Random) -> RecycleLimits:
        """Limits of its own for a process: within ``recycle_jitter`` of the configured ones, and never more calls than
        configured, so that processes that began together do not end together.
        """
        jitter = config.recycle_jitter
        age, calls = config.recycle_age, config.recycle_calls
        return cls(
            None if calls is None else rng.randint(min(calls, math.ceil(calls * (1 - jitter))), calls),
            None if age is None else age * rng.uniform(1 - jitter, 1 + jitter),
            _near(config.recycle_rss, jitter, rng),
            calls,
        )

    def reason(self, calls: int, age: float, rss: int | None) -> Literal["calls", "age", "rss"] | None:
        """Which limit a process has reached, if any; *rss* None: not known."""
        if self.calls is not None and calls >= self.calls:
            return "calls"
        if self.age is not None and age >= self.age:
            return "age"
        if self.rss is not None and rss is not None and rss > self.rss:
            return "rss"
        return None


def _near(value: int | None, jitter: float, rng: random.Random) -> int | None:
    if value is None:
        return None
    return rng.randint(min(value, math.ceil(value * (1 - jitter))), max(value, math.floor(value * (1 + jitter))))
