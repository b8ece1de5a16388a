"""What is usual in a series, and how far a value is from it. No I/O and no clock.

The deviation is the modified z-score of Iglewicz and Hoaglin (How to Detect and Handle Outliers, 1993): ``0.6745 * (x -
median) / MAD``, where MAD is the median of the absolute differences from the median. Nearly half of the values may be
anything without much effect on the two, so a second burst is found while the first is still in the window. Positive
values are compared by their logarithms.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Iterable, Sequence

WINDOW = 240
"""Values in a baseline: two hours of values each 30 s."""
RELATIVE_FLOOR = 0.01
"""The least MAD, as a share of the median. A duration is known to 1 %: it is the estimate for a bucket of a histogram,
and the next bucket is 2 % away. With this floor, a change of less than 5 % is no anomaly."""
FLOOR = 1e-9
"""The least MAD of values around 0."""
SEASON_DAYS = 4
"""Days before, to which a seasonal baseline compares."""
SEASON_LEAST = 3
"""How many of these days must have values."""
SEASON_MINUTES = 5
"""Minutes before and after the same time of day that count."""
SEASON_ENOUGH = 9
"""Values that these minutes must have."""

DAY_MINUTES = 24 * 60
_SIGMAS = 0.6745  # MAD of a normal distribution, in standard deviations


def deviation(ordered: Sequence[float], value: float) -> float:
    """Return how far *value* is from the median of *ordered*, in robust standard deviations. O(log n).

    *ordered* is sorted and not empty. If all of it and *value* are positive, logarithms are compared.
    """
    if ordered[0] > 0 and value > 0:
        middle, mad = _middle(ordered, math.log)
        return _SIGMAS * (math.log(value) - middle) / max(mad, RELATIVE_FLOOR)
    middle, mad = _middle(ordered, float)
    return _SIGMAS * (value - middle) / max(mad, RELATIVE_FLOOR * abs(middle), FLOOR)


def _middle(ordered: Sequence[float], scale: Callable[[float], float]) -> tuple[float, float]:
    """Return the median and the MAD of *ordered* on a monotonic *scale*.

    The half of the values that is nearest to the median lies together in *ordered*, so a search finds where it begins;
    one of its ends is the farthest.
    """
    count = len(ordered)
    half = count // 2
    even = count % 2 == 0
    median = (scale(ordered[half - 1]) + scale(ordered[half])) / 2 if even else scale(ordered[half])
    low, high = 0, count - half - 1
    while low < high:
        at = (low + high) // 2
        if median - scale(ordered[at]) > scale(ordered[at + half + 1]) - median:
            low = at + 1
        else:
            high = at
    left, right = median - scale(ordered[low]), scale(ordered[low + half]) - median
    if not even:
        return median, max(left, right)
    if left > right:
        return median, (left + max(right, median - scale(ordered[low + 1]))) / 2
    return median, (right + max(left, scale(ordered[low + half - 1]) - median)) / 2


class SortedWindow:
    """The last *size* values, in the order of their arrival and sorted. A new value costs a search and two moves of
    memory.
    """

    def __init__(self, size: int = WINDOW) -> None:
        self.size = size
        self.values: deque[float] = deque()
        self.ordered: list[float] = []

    def add(self, value: float) -> None:
        if len(self.values) == self.size:
            del self.ordered[bisect_left(self.ordered, self.values.popleft())]
        self.values.append(value)
        insort(self.ordered, value)

    def replace(self, values: Iterable[float]) -> None:
        """Forget everything but the last of *values*."""
        self.values = deque(list(values)[-self.size :])
        self.ordered = sorted(self.values)


class Season:
    """A value for each minute of the last days: what is usual at a time of day. Days are those of UTC.

    Bounded: `SEASON_DAYS` + 1 rows of 1,440 numbers, 58 KB. A clock that jumps by days empties it.
    """

    def __init__(self) -> None:
        self.days: dict[int, array[float]] = {}
        """For each day since the epoch, the value of each minute; NaN: none."""

    def add(self, minute: int, value: float) -> None:
        """Learn the value of a *minute* since the epoch. The last of a minute counts."""
        day, of_day = divmod(minute, DAY_MINUTES)
        if day not in self.days:
            self.days = {each: row for each, row in self.days.items() if day - SEASON_DAYS <= each < day}
            self.days[day] = array("d", [math.nan]) * DAY_MINUTES
        self.days[day][of_day] = value

    def usual(self, minute: int) -> list[float]:
        """Return the values at the same time of day on the days before, sorted; an empty list if they are too few."""
        found: list[float] = []
        days = 0
        for back in range(1, SEASON_DAYS + 1):
            before = len(found)
            centre = minute - back * DAY_MINUTES
            for each in range(centre - SEASON_MINUTES, centre + SEASON_MINUTES + 1):
                day, of_day = divmod(each, DAY_MINUTES)
                row = self.days.get(day)
                if row is not None and row[of_day] == row[of_day]:
                    found.append(row[of_day])
            days += len(found) > before
        return sorted(found) if days >= SEASON_LEAST and len(found) >= SEASON_ENOUGH else []
