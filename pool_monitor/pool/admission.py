"""Whether a call would make its deadline. No I/O, no clock: durations are seconds.

A call that will miss its deadline is better refused when it comes than after it has waited for nothing: its caller
can do something else meanwhile, and no worker is kept busy with an answer nobody waits for any more.
"""

from __future__ import annotations

import math

_WEIGHT = 0.05  # of the newest duration
_UNSURE = _WEIGHT / (2 - _WEIGHT)  # variance of a mean so weighted, for durations of variance 1
_PLAIN = 20  # so many weigh alike, and fewer say nothing
_OWN = 30  # durations of one operation that make it known by itself
_OPERATIONS = 256
_MARGIN = 2.5  # standard deviations; tests/test_admission.py shows what comes of it


class _Moments:
    """Mean and variance of durations: plain over the first, exponentially weighted from then on."""

    __slots__ = ("count", "mean", "variance")

    def __init__(self) -> None:
        self.count = 0
        self.mean = self.variance = 0.0


class ServiceTimes:
    """How long calls hold a worker: over all operations, and of each. Knows at most 256 operations; the durations of
    further ones count in the general mean only.
    """

    __slots__ = ("_all", "_margin", "_own")

    def __init__(self, margin: float = _MARGIN) -> None:
        self._margin = margin
        self._all = _Moments()
        self._own: dict[str, _Moments] = {}

    def add(self, operation: str, seconds: float) -> None:
        """A call of *operation* held its worker for *seconds*."""
        moments = self._all
        own = self._own.get(operation)
        if own is None and len(self._own) < _OPERATIONS:
            own = self._own[operation] = _Moments()
        while True:
            off = seconds - moments.mean
            count = moments.count = moments.count + 1
            if count > _PLAIN:
                moments.mean += _WEIGHT * off
                moments.variance = (1 - _WEIGHT) * (moments.variance + _WEIGHT * off * off)
            else:
                moments.mean += off / count
                moments.variance = (1 - 1 / count) * (moments.variance + off * off / count)
            if own is None or moments is own:
                return
            moments = own

    @property
    def mean(self) -> float | None:
        """Over all operations; None until there are enough to say."""
        return self._all.mean if self._all.count >= _PLAIN else None

    def mean_of(self, operation: str) -> float | None:
        """Of *operation*, or over all while too little is known of it; None until there are enough to say."""
        moments = self._of(operation)
        return None if moments is None else moments.mean

    def _of(self, operation: str) -> _Moments | None:
        own = self._own.get(operation)
        if own is not None and own.count >= _OWN:
            return own
        return self._all if self._all.count >= _PLAIN else None

    def predict(self, ahead: int, capacity: int, operation: str) -> tuple[float, float] | None:
        """The mean wait of a call with *ahead* others before it where *capacity* run at once, and the mean time to
        its end. None when nothing can be said.
        """
        own = self._of(operation)
        if own is None or capacity <= 0:
            return None
        wait = (ahead + 1) * self._all.mean / capacity
        return wait, wait + own.mean

    def misses(self, ahead: int, capacity: int, operation: str, time_left: float) -> bool:
        """Whether a call that has to wait would hardly end within *time_left*. False when nothing can be said.

        Not to be asked while a worker is free: somebody has to find out whether calls still take as long as they did.
        """
        own = self._of(operation)
        if own is None or capacity <= 0:
            return False
        general, turns = self._all, (ahead + 1) / capacity
        left = time_left - turns * general.mean - own.mean
        # How far off the wait may be: its calls take more or less than their mean, and the mean is an estimate.
        variance = general.variance * (ahead / (capacity * capacity) + turns * turns * _UNSURE) + own.variance
        return left < self._margin * math.sqrt(variance)
