"""Decides whether a worker may be restarted once more, and how long to wait first. No I/O: time is passed in."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pool_monitor.pool.policy.jitter import Jitter


class RestartIntensity:
    """At most *limit* restarts within *period* seconds, counted as the supervisors of Erlang/OTP count.

    Keeps at most *limit* + 1 times: older times make no difference.
    """

    __slots__ = ("_times", "limit", "period")

    def __init__(self, limit: int, period: float) -> None:
        self.limit, self.period = limit, period
        self._times: deque[float] = deque(maxlen=limit + 1)

    def record(self, now: float) -> bool:
        """Count a restart. Returns whether the limit is kept; a restart exactly *period* seconds ago still counts."""
        while self._times and self._times[0] < now - self.period:
            self._times.popleft()
        self._times.append(now)
        return len(self._times) <= self.limit


class Backoff:
    """Pauses between failing starts: decorrelated jitter between two bounds (seconds).

    Each pause is drawn by *rng* between ``minimum`` and three times the previous pause, so that workers that failed
    together are not restarted together (M. Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015).
    """

    __slots__ = ("_last", "_random", "maximum", "minimum")

    def __init__(self, minimum: float, maximum: float, rng: Jitter) -> None:
        self.minimum, self.maximum = minimum, maximum
        self._random = rng
        self._last = minimum

    def change(self, minimum: float) -> None:
        """Change the shortest pause."""
        self.minimum, self._last = minimum, max(minimum, self._last)

    def next(self) -> float:
        """Return the pause before the next start."""
        self._last = min(self.maximum, self._random.uniform(self.minimum, self._last * 3))
        return self._last

    def reset(self) -> None:
        """Make the next pause short again, after a start has succeeded."""
        self._last = self.minimum
