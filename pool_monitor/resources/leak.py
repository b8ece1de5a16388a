"""Whether a figure grows without end: a leak, told from noise, warm-up, saw-teeth and single steps.

Theory of operation: the figure is reduced to the minima of steps of equal length, its lower envelope. Garbage that is
collected now and then is above the envelope; what is never freed raises it. A leak has to pass every test:

- It grows: Mann-Kendall's test, with the variance of Hamed and Rao (1998) for values that depend on each other.
- It grows by an amount that matters: the lower bound of Theil and Sen's slope (95 %) is above a floor.
- It goes on: in the second half it grows by more than half as fast as in the first. A warm-up does not.
- A straight line describes it better than a curve that comes to rest, by Akaike's criterion.
- It is spread over the steps: three jumps are no leak. One jump is removed before the tests.
- It stands out: the rise is six times the deviation from a straight line. The longest scale does without.

The same is done at several scales at once, since a leak may fill the memory within minutes or within days. At a short
scale, only a leak counts that reaches its limit soon: within ten times the stretch that was seen. So a leak that fills
the memory in ten minutes is known after one, and noise of a few megabytes is no leak of gigabytes a day. A level that a
process has been at before, and has come back from, is no evidence.

Pure: values and times are arguments.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

STEPS = (3.0, 20.0, 120.0, 900.0)
"""Seconds per step, for samples that are one second apart."""
SMALLEST = 20
"""Fewest minima that are judged."""
LARGEST = 48
"""Minima that are kept at a scale."""
SETTLING = 3
"""Steps after the start of a process that are left out."""
HORIZON = 10.0
"""A leak must reach its limit within this many times the stretch that was seen, at every scale but the longest."""
FARTHEST_S = 6 * 3600.0
"""At no scale is a leak reported that reaches its limit later than this."""
_Z = 2.33  # one-sided, 1 %
_Z_CI = 1.96
_GAP = 10  # steps without a reading after which a scale begins again; fewer are left out
_JUMP = 6.0  # robust standard deviations
_CLEAR = 6.0
_SPREAD = 0.6  # the three largest rises must be less than this share of all


class Kind(NamedTuple):
    """What is measured, and which growth of it matters."""

    grain: float
    """The smallest change that is not noise of the measurement."""
    floor_hour: float
    """Slower growth per hour is no leak."""
    floor_share_hour: float
    """The same as a share of the level."""


MEMORY = Kind(grain=64 * 1024, floor_hour=1e6, floor_share_hour=0.005)
DESCRIPTORS = Kind(grain=1.0, floor_hour=1.0, floor_share_hour=0.005)


class Slope(NamedTuple):
    """Growth per second, with its confidence interval of 95 %."""

    value: float
    low: float
    high: float


class Leak(NamedTuple):
    """A leak, and when it reaches the limit if it goes on."""

    slope: Slope
    left_s: float | None = None
    """Seconds until the limit; None: there is no limit."""
    soonest_s: float | None = None
    latest_s: float | None = None
    """The interval of `left_s` that follows from the interval of the slope."""


class LeakTrend:
    """The envelope of one figure of one process at every scale, and the leak that it shows. A new process needs a new
    object. Keeps at most 48 minima at each of the scales.
    """

    __slots__ = ("_envelopes", "_kind", "_leaks")

    def __init__(self, kind: Kind, steps: Sequence[float] = STEPS) -> None:
        self._kind = kind
        self._envelopes = [Envelope(step, kind.grain) for step in steps]
        self._leaks: list[Leak | None] = [None] * len(self._envelopes)

    @property
    def points(self) -> int:
        """The number of minima that are kept."""
        return sum(len(envelope.minima) for envelope in self._envelopes)

    def add(self, at_s: float, value: float, limit: float | None) -> Leak | None:
        """Take a reading made at *at_s*. Return the leak that is known now, the one that reaches *limit* first.

        A scale is judged when one of its steps is complete. Times must grow. After a gap of ten steps, a scale
        begins again.
        """
        for nth, envelope in enumerate(self._envelopes):
            if envelope.add(at_s, value):
                longest = nth == len(self._envelopes) - 1
                self._leaks[nth] = self._judge(envelope, limit, longest=longest)
        known = [leak for leak in self._leaks if leak is not None]
        return min(known, key=lambda leak: math.inf if leak.left_s is None else leak.left_s, default=None)

    def _judge(self, envelope: Envelope, limit: float | None, *, longest: bool) -> Leak | None:
        if len(envelope.minima) < SMALLEST:
            return None
        times, values = np.array(envelope.times), np.array(envelope.minima)
        level, seen_s = float(values[-1]), float(times[-1] - times[0])
        farthest_s = FARTHEST_S if longest else min(FARTHEST_S, HORIZON * seen_s)
        third = len(values) // 3
        rough = (_median(values[-third:]) - _median(values[:third])) / (seen_s * (1 - 1 / 3))
        if rough <= 0 or (limit is None and not longest):
            return None  # nearly always: the tests cost a hundred times more
        if limit is not None and not 0 < (limit - level) / rough <= 2 * farthest_s:
            return None  # too far, or at the limit already: that is another fault
        if level <= envelope.returned:
            return None
        slope = growth(times, values, self._kind)
        if slope is None or (not longest and not stands_out(times, values, slope.value, self._kind.grain)):
            return None
        if limit is None:
            return Leak(slope)
        room = limit - level
        left_s = room / slope.value
        if left_s > farthest_s:
            return None
        return Leak(slope, left_s, room / slope.high, room / slope.low)


class Envelope:
    """The minima of steps of *step_s* seconds, the latest 48."""

    __slots__ = (
        "_at_s",
        "_grain",
        "_low",
        "_nth",
        "_peak",
        "_skip",
        "_trough",
        "minima",
        "returned",
        "step_s",
        "times",
    )

    def __init__(self, step_s: float, grain: float) -> None:
        self.step_s, self._grain = step_s, grain
        self.returned = self._peak = -math.inf  # `returned`: the highest level that it has come back from
        self._trough = math.inf
        self.times, self.minima = array("d"), array("d")  # 16 bytes for each minimum
        self._nth: int | None = None
        self._low, self._at_s = math.inf, 0.0
        self._skip = SETTLING

    def add(self, at_s: float, value: float) -> bool:
        """Take a reading. Return whether it completed a step, so that there is a new minimum."""
        nth = int(at_s // self.step_s)
        complete = False
        if self._nth is None or nth - self._nth > _GAP or nth < self._nth:
            del self.times[:], self.minima[:]
            self._low = math.inf
        elif nth != self._nth:
            if self._skip:
                self._skip -= 1
            else:
                del self.times[: -LARGEST + 1], self.minima[: -LARGEST + 1]
                self.times.append(self._at_s)
                self.minima.append(self._low)
                self._turn(self._low)
                complete = True
            self._low = math.inf
        self._nth = nth
        if value < self._low:
            self._low, self._at_s = value, at_s
        return complete

    def _turn(self, low: float) -> None:
        """Remember the level that the envelope has come back from, by a fifth of its rise; and a tenth more, because
        two saw-teeth are not alike.
        """
        self._peak, self._trough = max(self._peak, low), min(self._trough, low)
        rise = self._peak - self._trough
        if self._peak - low > max(0.2 * rise, self._grain):
            self.returned = max(self.returned, self._peak + 0.1 * rise)
            self._peak = self._trough = low


# -- the tests --------------------------------------------------------------------------------------------------------


def growth(times: Floats, values: Floats, kind: Kind) -> Slope | None:
    """Return the slope of *values* if they pass every test of a leak; None if not."""
    values = without_jump(values, kind.grain)
    statistic, deviation = mann_kendall(values)
    if deviation <= 0 or (statistic - 1) / deviation <= _Z or not spread(values):
        return None
    slope = theil_sen(times, values, deviation)
    floor = max(kind.floor_hour, kind.floor_share_hour * _median(values)) / 3600
    if slope.low <= floor or not goes_on(times, values) or settles(times, values, kind.grain):
        return None
    return slope


def without_jump(values: Floats, grain: float) -> Floats:
    """Return *values* without their largest rise, if it is a jump: over six robust standard deviations."""
    rises = np.diff(values)
    middle = _median(rises)
    deviation = max(1.4826 * _median(np.abs(rises - middle)), grain)
    at = int(np.argmax(rises))
    if rises[at] - middle <= _JUMP * deviation:
        return values
    found = values.copy()
    found[at + 1 :] -= rises[at] - middle
    return found


def spread(values: Floats) -> bool:
    """Whether the rise is spread: the three largest rises are less than 60 % of all."""
    rises = np.sort(np.clip(np.diff(values), 0, None))
    return bool(rises[-3:].sum() < _SPREAD * rises.sum())


def mann_kendall(values: Floats) -> tuple[float, float]:
    """Return Mann and Kendall's S and its standard deviation, corrected for autocorrelation.

    The correction is equation 15 of Hamed and Rao, "A modified Mann-Kendall trend test for autocorrelated data",
    Journal of Hydrology 204 (1998), with the autocorrelations of the ranks that differ from 0 at 5 %.
    """
    n = len(values)
    upper = np.triu_indices(n, 1)
    statistic = float(np.sign(values[upper[1]] - values[upper[0]]).sum())
    _, ties = np.unique(values, return_counts=True)
    variance = (n * (n - 1) * (2 * n + 5) - float((ties * (ties - 1) * (2 * ties + 5)).sum())) / 18
    steps = np.arange(n)
    pairs = (values[upper[1]] - values[upper[0]]) / (upper[1] - upper[0])
    ranks = _ranks(values - _median(pairs) * steps)
    centred = ranks - ranks.mean()
    power = float((centred * centred).sum()) or 1.0
    lags = np.arange(1, n - 2)
    correlations = np.array([float((centred[lag:] * centred[:-lag]).sum()) / power for lag in lags])
    significant = np.abs(correlations) > 1.96 / math.sqrt(n)
    weights = (n - lags) * (n - lags - 1) * (n - lags - 2)
    correction = 1 + 2 / (n * (n - 1) * (n - 2)) * float((weights * correlations)[significant].sum())
    return statistic, math.sqrt(max(variance * max(correction, 1.0), 0.0))


def _ranks(values: Floats) -> Floats:
    """Return the rank of each value. Equal values, to nine digits of their size, have the mean of their ranks."""
    size = float(np.abs(values).max()) or 1.0
    _, at, counts = np.unique(np.round(values / size, 9), return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[at])


def theil_sen(times: Floats, values: Floats, deviation: float) -> Slope:
    """Return the median of the slopes of all pairs, with Gilbert's interval of 95 % for a deviation of S."""
    upper = np.triu_indices(len(values), 1)
    slopes = np.sort((values[upper[1]] - values[upper[0]]) / (times[upper[1]] - times[upper[0]]))
    half = _Z_CI * deviation
    low, high = int((len(slopes) - half) / 2), math.ceil((len(slopes) + half) / 2)
    return Slope(_median(slopes), float(slopes[max(low, 0)]), float(slopes[min(high, len(slopes) - 1)]))


def stands_out(times: Floats, values: Floats, slope: float, grain: float) -> bool:
    """Whether the rise is at least six times the robust deviation from a straight line."""
    values = without_jump(values, grain)
    rest = values - slope * times
    deviation = 1.4826 * _median(np.abs(rest - _median(rest)))
    return slope * float(times[-1] - times[0]) >= _CLEAR * max(deviation, grain)


def goes_on(times: Floats, values: Floats) -> bool:
    """Whether the second half grows, and by more than half as fast as the first."""
    middle = len(values) // 2
    first, second = (
        theil_sen(times[half], values[half], mann_kendall(values[half])[1])
        for half in (slice(None, middle), slice(middle, None))
    )
    return second.low > 0 and second.value > 0.5 * first.value


def settles(times: Floats, values: Floats, grain: float) -> bool:
    """Whether a curve that comes to rest, a + b (1 - exp(-t / tau)), describes *values* better than a straight line,
    by Akaike's criterion. Time constants longer than the stretch are left out: they are straight within it.
    """
    n = len(values)
    since = (times - times[0]) / float(times[-1] - times[0])
    best = min(_squares(1 - np.exp(-since / tau), values) for tau in (0.05, 0.1, 0.2, 0.3, 0.45, 0.65, 0.9))
    line = _squares(since, values)
    least = n * grain * grain / 12  # the rounding to grains
    return n * math.log(max(best, least)) + 2 * 3 < n * math.log(max(line, least)) + 2 * 2


def _squares(shape: Floats, values: Floats) -> float:
    """The sum of squares that a least-squares fit of ``a + b * shape`` leaves."""
    centred, level = shape - shape.mean(), values - values.mean()
    slope = float((centred * level).sum()) / (float((centred * centred).sum()) or 1.0)
    rest = level - slope * centred
    return float((rest * rest).sum())


def _median(values: Floats) -> float:
    """As ``numpy.median``, which imports a megabyte of modules for masked arrays."""
    ordered, n = np.sort(values), len(values)
    return float(ordered[(n - 1) // 2] + ordered[n // 2]) / 2
