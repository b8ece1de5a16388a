"""Predicts whether a call would meet its deadline, from how long calls took. No I/O, no clock: durations are seconds.

A call that will miss its deadline is better refused when it comes than after it has waited in vain: its caller can do
something else meanwhile, and no worker is kept busy with a result that comes too late.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from pool_monitor.pool.policy.queue import WorkAhead

_WEIGHT = 0.05  # of the newest duration in the mean
_MEAN_VARIANCE = _WEIGHT / (2 - _WEIGHT)  # of a mean weighted so, for durations of variance 1
_DECAY = 1 - _WEIGHT  # what one more duration leaves of the weight of those before
_SAMPLES_MIN = 20  # below: every duration weighs the same, and the mean is not reported
_OWN_SAMPLES_MIN = 30  # below: an operation is taken to be like all the others
_OPERATIONS_MAX = 256
BRIEF = 0.001  # seconds; it costs little to wait for a call so short
_MARGIN = 2.5  # standard deviations; tests/test_service_times.py shows its effect
_LONGEST_MARGIN = 3.0  # standard deviations above the mean that no call is expected to exceed


class WaitEstimate(NamedTuple):
    """How long a call that has to wait is expected to take, in seconds."""

    wait: float
    execution: float
    margin: float
    """How much longer wait and execution may well take together."""

    @property
    def total(self) -> float:
        return self.wait + self.execution + self.margin


class _Moments:
    """Mean and variance of durations: plain over the first, exponentially weighted from then on."""

    __slots__ = ("count", "mean", "variance")

    def __init__(self) -> None:
        self.count = 0
        self.mean = self.variance = 0.0

    def add(self, seconds: float, times: int, kept: float) -> None:
        """Add the same duration so many *times*; the earlier ones keep the share *kept* of their weight."""
        while times and self.count < _SAMPLES_MIN:
            times -= 1
            kept = _DECAY**times
            self.count += 1
            off = seconds - self.mean
            self.mean += off / self.count
            self.variance = (1 - 1 / self.count) * (self.variance + off * off / self.count)
        if times:
            self.count += times
            off = seconds - self.mean
            self.mean = seconds - kept * off
            self.variance = kept * (self.variance + (1 - kept) * off * off)


class ServiceTimes:
    """How long calls hold a worker: over all operations, and for each. At most 256 operations are kept apart; the
    durations of further ones count in the general mean only.
    """

    __slots__ = ("_all", "_margin", "_own", "longest")

    def __init__(self, margin: float = _MARGIN) -> None:
        self._margin = margin
        self._all = _Moments()
        self._own: dict[str, _Moments] = {}
        self.longest = math.inf  # seconds that no call is expected to exceed; set by `update_longest`

    def add(self, operation: str, seconds: float, times: int = 1) -> None:
        """A call of *operation* held its worker for *seconds*, so many *times*."""
        if seconds > self.longest:
            self.longest = math.inf  # until the next `update_longest`
        kept = _DECAY if times == 1 else _DECAY**times
        self._all.add(seconds, times, kept)
        own = self._own.get(operation)
        if own is None and len(self._own) < _OPERATIONS_MAX:
            own = self._own[operation] = _Moments()
        if own is not None:
            own.add(seconds, times, kept)

    def add_all(self, operations: Sequence[str], held_ns: Sequence[int]) -> None:
        """Calls of these operations held their workers for so many nanoseconds each. Calls that end together are nearly
        always of one operation; then each counts with their mean.
        """
        first, count = operations[0], len(operations)
        if operations.count(first) == count:
            self.add(first, sum(held_ns) / 1e9 / count, count)
            return
        for operation, one_ns in zip(operations, held_ns, strict=True):
            self.add(operation, one_ns / 1e9)

    def update_longest(self) -> None:
        """Set `longest` from the present means and variances: infinity while too few durations are known."""
        known = [moments for moments in self._own.values() if moments.count >= _SAMPLES_MIN]
        self.longest = math.inf
        if self._all.count >= _OWN_SAMPLES_MIN:
            self.longest = max(one.mean + _LONGEST_MARGIN * math.sqrt(one.variance) for one in (self._all, *known))

    @property
    def mean(self) -> float | None:
        """Over all operations; None while too few durations are known."""
        return self._all.mean if self._all.count >= _SAMPLES_MIN else None

    def mean_of(self, operation: str) -> float | None:
        """Of *operation*, or over all operations while too few of its durations are known. None as for `mean`."""
        moments = self._of(operation)
        return None if moments is None else moments.mean

    def is_brief(self, operation: str) -> bool:
        """Whether calls of *operation* are known to hold a worker for less than `BRIEF`."""
        own = self._own.get(operation)
        return own is not None and own.count >= _SAMPLES_MIN and own.mean < BRIEF

    def _of(self, operation: str) -> _Moments | None:
        own = self._own.get(operation)
        if own is not None and own.count >= _OWN_SAMPLES_MIN:
            return own
        return self._all if self._all.count >= _SAMPLES_MIN else None

    def expects(self, operation: str) -> tuple[float, float]:
        """Mean and variance of how long a call of *operation* will hold its worker; zeros while not known."""
        moments = self._of(operation)
        return (0.0, 0.0) if moments is None else (moments.mean, moments.variance)

    def estimate(self, ahead: WorkAhead, handed: int, capacity: int, operation: str) -> WaitEstimate | None:
        """The estimate for a call that waits behind those *ahead*, and behind *handed* more that workers hold and have
        not begun, where *capacity* calls run at once. None while too few durations are known.

        Do not ask while a worker is free: some calls have to run, to find out whether they still take as long.
        """
        own = self._of(operation)
        if own is None or capacity <= 0:
            return None
        general, more = self._all, handed + 1  # + 1: the remaining time of the running call that ends first
        wait = (ahead.seconds + more * general.mean) / capacity
        # How far off the wait may be: calls take more or less than their means, and the means are estimates themselves.
        variance = max(0.0, ahead.variance)  # a sum that was added to and taken from
        apart = variance + handed * general.variance
        astray = math.sqrt(ahead.calls * variance) + more * math.sqrt(general.variance)
        off = math.sqrt((apart + _MEAN_VARIANCE * astray * astray) / (capacity * capacity) + own.variance)
        return WaitEstimate(wait, own.mean, self._margin * off)
