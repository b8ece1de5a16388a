"""Predicts whether a call would meet its deadline, from how long calls took. No I/O, no clock: durations are seconds.

It is better to refuse a call that will miss its deadline at once than after it has waited: its caller can do something
else in that time, and no worker computes a result that comes too late.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from pool_monitor.pool.policy.queue import WorkAhead

_WEIGHT = 0.05  # of the newest duration in the mean
_MEAN_VARIANCE = _WEIGHT / (2 - _WEIGHT)  # variance of a mean with these weights, for durations of variance 1
_DECAY = 1 - _WEIGHT  # the share of their weight that earlier durations keep when one is added
_SAMPLES_MIN = 20  # with fewer durations, all weigh the same, and their mean is not used
_OWN_SAMPLES_MIN = 30  # with fewer durations of an operation, those of all operations are used
_OPERATIONS_MAX = 256
BRIEF = 0.001  # seconds: to wait for a call shorter than this costs little
_MARGIN = 2.5  # standard deviations; tests/test_service_times.py shows its effect
_LONGEST_MARGIN = 3.0  # standard deviations above the mean that no call is expected to exceed


class WaitEstimate(NamedTuple):
    """How long a call that has to wait is expected to take, in seconds."""

    wait: float
    execution: float
    margin: float
    """The safety margin: how much longer wait and execution together may take."""

    @property
    def total(self) -> float:
        """Wait, execution and margin together."""
        return self.wait + self.execution + self.margin


class _Moments:
    """Mean and variance of durations: the first ones weigh the same, later ones are exponentially weighted."""

    __slots__ = ("count", "mean", "variance")

    def __init__(self) -> None:
        self.count = 0
        self.mean = self.variance = 0.0

    def add(self, seconds: float, times: int, kept: float) -> None:
        """Add a duration *times* times; the earlier durations keep the share *kept* of their weight."""
        while times and self.count < _SAMPLES_MIN:
            times -= 1
            kept = _DECAY**times
            self.count += 1
            deviation = seconds - self.mean
            self.mean += deviation / self.count
            self.variance = (1 - 1 / self.count) * (self.variance + deviation * deviation / self.count)
        if times:
            self.count += times
            deviation = seconds - self.mean
            self.mean = seconds - kept * deviation
            self.variance = kept * (self.variance + (1 - kept) * deviation * deviation)


class ServiceTimes:
    """How long calls hold a worker, for each operation and over all operations. At most 256 operations are kept
    separately; durations of further operations count in the general mean only.
    """

    __slots__ = ("_all", "_margin", "_own", "longest")

    def __init__(self, margin: float = _MARGIN) -> None:
        self._margin = margin
        self._all = _Moments()
        self._own: dict[str, _Moments] = {}
        self.longest = math.inf  # seconds that no call is expected to exceed; set by `update_longest`

    def add(self, operation: str, seconds: float, times: int = 1) -> None:
        """Add *times* calls of *operation* that held their worker for *seconds* each."""
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
        """Add one call of each of *operations*, which held its worker for the nanoseconds at the same place in
        *held_ns*. If all are calls of one operation, as is nearly always so, each counts with their mean.
        """
        first, count = operations[0], len(operations)
        if operations.count(first) == count:
            self.add(first, sum(held_ns) / 1e9 / count, count)
            return
        for operation, call_ns in zip(operations, held_ns, strict=True):
            self.add(operation, call_ns / 1e9)

    def update_longest(self) -> None:
        """Set `longest` from the present means and variances; infinity while too few durations are known."""
        known = [moments for moments in self._own.values() if moments.count >= _SAMPLES_MIN]
        self.longest = math.inf
        if self._all.count >= _OWN_SAMPLES_MIN:
            self.longest = max(one.mean + _LONGEST_MARGIN * math.sqrt(one.variance) for one in (self._all, *known))

    @property
    def mean(self) -> float | None:
        """The mean over all operations; None while too few durations are known."""
        return self._all.mean if self._all.count >= _SAMPLES_MIN else None

    def mean_of(self, operation: str) -> float | None:
        """Return the mean of *operation*, or over all operations while too few of its durations are known. None as for
        `mean`.
        """
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
        """Return mean and variance of how long a call of *operation* will hold its worker; zeros while not known."""
        moments = self._of(operation)
        return (0.0, 0.0) if moments is None else (moments.mean, moments.variance)

    def estimate(self, ahead: WorkAhead, handed: int, capacity: int, operation: str) -> WaitEstimate | None:
        """Estimate how long a call takes that waits behind the calls *ahead*, and behind *handed* calls that workers
        hold and have not begun, if *capacity* calls run at once. None while too few durations are known.

        Do not use it while a worker is free: some calls must run, to show whether they still take as long.
        """
        own = self._of(operation)
        if own is None or capacity <= 0:
            return None
        general, before = self._all, handed + 1  # + 1: the remaining time of the running call that ends first
        wait = (ahead.seconds + before * general.mean) / capacity
        # The error of the wait: calls take more or less than their means, and the means themselves are estimates.
        variance = max(0.0, ahead.variance)  # sums and differences of floats may end up below 0
        of_calls = variance + handed * general.variance
        of_means = math.sqrt(ahead.calls * variance) + before * math.sqrt(general.variance)
        deviation = math.sqrt((of_calls + _MEAN_VARIANCE * of_means * of_means) / (capacity * capacity) + own.variance)
        return WaitEstimate(wait, own.mean, self._margin * deviation)
