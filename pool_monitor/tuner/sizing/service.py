"""`TimesOnWorker`: how long calls take on a worker; `StartCohorts`: the same by the time at which they started.

Service times from the calls that end are too short just after any change, because short calls end first. A comparison
of before and after therefore takes calls by their start, once all of them have had the time to end.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pool_monitor.tuner.observation import EndedCall

FAST_CALLS = 60
SLOW_CALLS = 600
"""The averages reach over so many calls."""
SPREAD_CALLS = 3000
"""And those of which the spread is taken: a few very long calls must not make it jump."""
DIFFERENT = 0.25
"""The fast average counts if it differs from the slow one by more than this share, and by more than chance."""
LONG = 10.0
"""In the fast average a call counts for at most so many times the larger one: a few very long calls are no change."""
MOST_CV2 = 25.0
COHORTS = 1200
"""Rows of a second that `StartCohorts` keeps. It clears away when it has 300 more."""
_SPARE = 300


class TimesOnWorker:
    """Averages over calls. Constant memory."""

    def __init__(self) -> None:
        self._fast = self._slow = self._long = self._square = math.nan
        self.calls = 0

    def observe(self, seconds: Sequence[float]) -> None:
        """Take the execution times of the calls that ended in an interval."""
        if not seconds:
            return
        count = len(seconds)
        mean = sum(seconds) / count
        most = LONG * max(self._slow, self._fast) if self.calls >= FAST_CALLS else math.inf
        cut = sum(min(value, most) for value in seconds) / count
        square = sum(value * value for value in seconds) / count
        self.calls += count
        self._fast = _moved(self._fast, cut, count, min(FAST_CALLS, self.calls))
        self._slow = _moved(self._slow, mean, count, min(SLOW_CALLS, self.calls))
        self._long = _moved(self._long, mean, count, min(SPREAD_CALLS, self.calls))
        self._square = _moved(self._square, square, count, min(SPREAD_CALLS, self.calls))

    @property
    def mean(self) -> float | None:
        """Seconds: the fast average where the times have changed, else the slow one and a part of what the fast one is
        above it; None: no call has ended.
        """
        if not self.calls:
            return None
        fast, slow = self._fast, self._slow
        chance = 3.0 * math.sqrt(self.cv2) * slow / math.sqrt(2 * min(FAST_CALLS, self.calls))
        if abs(fast - slow) > max(DIFFERENT * slow, chance):
            return fast
        # An excess of the fast one counts less the more chance is in it.
        return slow + max(0.0, fast - slow) / max(1.0, self.cv2)

    @property
    def cv2(self) -> float:
        """Variance over mean squared, at most 25. 1 (exponential times) before five calls have ended."""
        if self.calls < 5 or not self._long > 0:
            return 1.0
        return min(MOST_CV2, max(0.0, self._square / self._long**2 - 1))


def _moved(before: float, mean: float, count: int, reach: int) -> float:
    if math.isnan(before):
        return mean
    keep = (1 - 1 / reach) ** count if reach > 1 else 0.0
    return before * keep + mean * (1 - keep)


class StartCohort(NamedTuple):
    """The calls that started in a stretch of time."""

    calls: int
    mean: float
    variance: float
    """Of the mean: the square of its standard error."""


class StartCohorts:
    """Sums of execution times by the second in which the calls started. Keeps at most 1,500 rows."""

    def __init__(self) -> None:
        self._rows: dict[int, list[float]] = {}  # second -> calls, sum, sum of squares

    def observe(self, calls: Iterable[EndedCall]) -> None:
        rows = self._rows
        for _, started, ended in calls:
            second, value = math.floor(started), ended - started
            row = rows.get(second)
            if row is None:
                row = rows[second] = [0, 0.0, 0.0]
            row[0] += 1
            row[1] += value
            row[2] += value * value
        if len(rows) > COHORTS + _SPARE:
            for second in sorted(rows)[: len(rows) - COHORTS]:
                del rows[second]

    def clear(self) -> None:
        self._rows.clear()

    def between(self, begin: float, end: float) -> StartCohort:
        """Return the calls that started from *begin* until *end*, to the second."""
        first, last = math.floor(begin), max(math.ceil(end), math.floor(begin) + 1)
        rows = self._rows
        if last - first > len(rows):
            chosen = [row for second, row in rows.items() if first <= second < last]
        else:
            chosen = [rows[second] for second in range(first, last) if second in rows]
        count = int(sum(row[0] for row in chosen))
        if not count:
            return StartCohort(0, math.nan, math.nan)
        mean = sum(row[1] for row in chosen) / count
        variance = max(0.0, sum(row[2] for row in chosen) / count - mean * mean) / count
        return StartCohort(count, mean, variance)
