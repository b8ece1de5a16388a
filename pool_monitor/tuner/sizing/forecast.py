"""`ArrivalForecast`: how many calls per second arrive, and will arrive when a worker that is asked for now is ready.

A slow average says it while the load is steady, a fast one as soon as the two differ by more than chance: arrivals that
do not change are a Poisson process, whose spread is known. A slope that is more than chance is followed for as long as
a worker takes to start.
"""

from __future__ import annotations

import math
from collections import deque

FAST_HALF_LIFE_S = 2.0
SLOW_HALF_LIFE_S = 60.0
SIGNIFICANT = 3.0
"""Standard errors from which a difference is not chance. 3: by chance once in 740 observations."""
SLOPE_SPAN_S = 20.0
"""A slope is measured over so many seconds."""
SLOPE_CALLS = 30
"""The fewest calls of these seconds that tell a slope: the sum of fewer is far from normal, and chance exceeds it."""
_ROWS = 64


class ArrivalForecast:
    """Takes the arrivals of each interval. Keeps two averages and the rows of 20 s (at most 64)."""

    def __init__(self) -> None:
        self._fast = _Average(FAST_HALF_LIFE_S)
        self._slow = _Average(SLOW_HALF_LIFE_S)
        self._rows: deque[tuple[float, float, float]] = deque(maxlen=_ROWS)  # middle, arrivals, seconds
        self._row: tuple[float, float, float] | None = None  # the beginning, the arrivals and the end of the row so far

    @property
    def known(self) -> bool:
        """Whether anything was observed."""
        return self._slow.seconds > 0

    @property
    def seconds(self) -> float:
        """For how long arrivals were observed."""
        return self._slow.seconds

    def observe(self, now: float, interval: float, arrivals: int) -> None:
        """Take the *arrivals* of the *interval* seconds before *now*."""
        self._fast.add(arrivals, interval)
        self._slow.add(arrivals, interval)
        begin, count, _ = self._row or (now - interval, 0.0, now)
        count += arrivals
        if now - begin < SLOPE_SPAN_S / 40:  # intervals of less than half a second share a row
            self._row = (begin, count, now)
            return
        self._rows.append(((begin + now) / 2, count, now - begin))
        self._row = None
        while self._rows and self._rows[0][0] < now - SLOPE_SPAN_S:
            self._rows.popleft()

    def gap(self) -> None:
        """Forget what a time without observations has made meaningless: the slope."""
        self._rows.clear()
        self._row = None

    def rate(self, ahead: float) -> float:
        """Return the calls per second that are to be expected *ahead* seconds from now. Never below what arrives."""
        fast, slow = self._fast.value, self._slow.value
        weight = self._fast.weight
        # The variance of an average of counts with weights that fall by the factor 1-w is rate * w / (2-w) for each
        # second; early on, the few observations that there are say it.
        seconds = 1 / max(weight / (2 - weight), 1 / max(self._slow.seconds, 1.0))
        rate = fast if _differ(fast * seconds, slow * seconds) else min(slow, max(fast, self._most()))
        return rate + max(0.0, self._slope()) * ahead

    def _most(self) -> float:
        """Return the highest rate that the rows allow, by three standard errors. Where few calls arrive, the slow
        average is not told from the fast one, and may still hold a load that is over.
        """
        total = sum(row[2] for row in self._rows)
        if total < SLOPE_SPAN_S / 2:
            return math.inf
        return (math.sqrt(sum(row[1] for row in self._rows)) + SIGNIFICANT / 2) ** 2 / total

    def _slope(self) -> float:
        """Return the growth of the rate in calls per second per second, 0 if it may be chance."""
        rows = self._rows
        total = sum(row[2] for row in rows)
        if len(rows) < 5 or total < SLOPE_SPAN_S / 4:
            return 0.0
        middle = sum(row[0] * row[2] for row in rows) / total
        square = sum(row[2] * (row[0] - middle) ** 2 for row in rows)
        if square <= 0:
            return 0.0
        count = sum(row[1] for row in rows)
        if count < SLOPE_CALLS:
            return 0.0
        slope = sum((row[0] - middle) * row[1] for row in rows) / square
        error = math.sqrt(max(count / total, 1e-9) / square)
        return slope if slope > SIGNIFICANT * error else 0.0


def _differ(count: float, usual: float) -> bool:
    """Whether a Poisson count is unlike the *usual* one. The roots of counts have a deviation of 1/2 whatever the mean
    (Anscombe 1948): where few calls arrive, the count itself is more often far above its mean than a normal one.
    """
    if count > usual:
        return math.sqrt(count) - math.sqrt(usual) > SIGNIFICANT / 2
    return usual - count > SIGNIFICANT * math.sqrt(usual)


class _Average:
    """A rate whose observations lose half their weight in each half-life. At the beginning the plain mean."""

    def __init__(self, half_life: float) -> None:
        self._half_life = half_life
        self._count = self._time = 0.0
        self.seconds = 0.0
        self.weight = 1.0
        """The share of the last second in the average."""

    def add(self, arrivals: float, interval: float) -> None:
        keep = 0.5 ** (interval / self._half_life)
        # the observations of the interval are taken as spread evenly over it
        held = (1 - keep) * self._half_life / math.log(2) / interval
        self._count = self._count * keep + arrivals * held
        self._time = self._time * keep + interval * held
        self.seconds += interval
        self.weight = min(1.0, 1 / self._time) if self._time > 0 else 1.0

    @property
    def value(self) -> float:
        return self._count / self._time if self._time > 0 else 0.0
