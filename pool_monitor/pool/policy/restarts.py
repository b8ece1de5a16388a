"""When to try again. No I/O, no clock: decisions as values."""

from __future__ import annotations

import random
from collections import deque


class RestartIntensity:
    """How many restarts within how many seconds are too many, counted as OTP's supervisors count.

    Keeps at most *limit* + 1 times: whether there were more makes no difference.
    """

    __slots__ = ("_times", "limit", "period")

    def __init__(self, limit: int, period: float) -> None:
        self.limit, self.period = limit, period
        self._times: deque[float] = deque(maxlen=limit + 1)

    def record(self, now: float) -> bool:
        """Count a restart. False when it is one too many; one exactly *period* seconds ago still counts."""
        while self._times and self._times[0] < now - self.period:
            self._times.popleft()
        self._times.append(now)
        return len(self._times) <= self.limit


class Backoff:
    """Pauses between failing starts: decorrelated jitter between two bounds (seconds).

    Each pause is drawn from ``minimum`` to three times the one before, so that workers that failed together do not
    try together (M. Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015).
    """

    __slots__ = ("_last", "_random", "maximum", "minimum")

    def __init__(self, minimum: float, maximum: float, rng: random.Random | None = None) -> None:
        self.minimum, self.maximum = minimum, maximum
        self._random = rng or random.Random()  # noqa: S311 - jitter, no secret
        self._last = minimum

    def next(self) -> float:
        """The pause before the next try."""
        self._last = min(self.maximum, self._random.uniform(self.minimum, self._last * 3))
        return self._last

    def reset(self) -> None:
        """A start went well."""
        self._last = self.minimum
