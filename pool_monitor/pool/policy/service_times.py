"""Whether a call would make its deadline. No I/O, no clock: durations are seconds.

A call that will miss its deadline is better refused when it comes than after it has waited for nothing: its caller
can do something else meanwhile, and no worker is kept busy with an answer nobody waits for any more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from pool_monitor.pool.policy.queue import Ahead

_WEIGHT = 0.05  # of the newest duration
_UNSURE = _WEIGHT / (2 - _WEIGHT)  # variance of a mean so weighted, for durations of variance 1
_KEPT = 1 - _WEIGHT  # of the weight of those before
_PLAIN = 20  # so many weigh alike, and fewer say nothing
_OWN = 30  # durations of one operation that make it known by itself
_OPERATIONS = 256
BRIEF = 0.001  # seconds; to wait for such a call costs little
_MARGIN = 2.5  # standard deviations; tests/test_service_times.py shows what comes of it
_SURELY = 3.0  # more of them than that


class Outlook(NamedTuple):
    """What a call that has to wait can expect, in seconds."""

    wait: float
    execution: float
    margin: float
    """By so much both together may well take longer."""

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
        """The same duration so many *times*, which leaves *kept* of the weight of those before."""
        while times and self.count < _PLAIN:
            times -= 1
            kept = _KEPT**times
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
    """How long calls hold a worker: over all operations, and of each. Knows at most 256 operations; the durations of
    further ones count in the general mean only.
    """

    __slots__ = ("_all", "_margin", "_own", "longest")

    def __init__(self, margin: float = _MARGIN) -> None:
        self._margin = margin
        self._all = _Moments()
        self._own: dict[str, _Moments] = {}
        self.longest = math.inf  # seconds that no call is expected to exceed, as of the last `look`

    def add(self, operation: str, seconds: float, times: int = 1) -> None:
        """A call of *operation* held its worker for *seconds*, so many *times*."""
        if seconds > self.longest:
            self.longest = math.inf  # until the next look
        kept = _KEPT if times == 1 else _KEPT**times
        self._all.add(seconds, times, kept)
        own = self._own.get(operation)
        if own is None and len(self._own) < _OPERATIONS:
            own = self._own[operation] = _Moments()
        if own is not None:
            own.add(seconds, times, kept)

    def add_all(self, operations: Sequence[str], held_ns: Sequence[int]) -> None:
        """Calls of these operations held their workers for so many nanoseconds each. Those that answer together are
        nearly always of one operation, and then count with their mean.
        """
        first, count = operations[0], len(operations)
        if operations.count(first) == count:
            self.add(first, sum(held_ns) / 1e9 / count, count)
            return
        for operation, one_ns in zip(operations, held_ns, strict=True):
            self.add(operation, one_ns / 1e9)

    def look(self) -> None:
        """Decide anew what no call is expected to exceed: infinity while too little is known."""
        known = [moments for moments in self._own.values() if moments.count >= _PLAIN]
        self.longest = math.inf
        if self._all.count >= _OWN:
            self.longest = max(one.mean + _SURELY * math.sqrt(one.variance) for one in (self._all, *known))

    @property
    def mean(self) -> float | None:
        """Over all operations; None until there are enough to say."""
        return self._all.mean if self._all.count >= _PLAIN else None

    def mean_of(self, operation: str) -> float | None:
        """Of *operation*, or over all while too little is known of it; None until there are enough to say."""
        moments = self._of(operation)
        return None if moments is None else moments.mean

    def is_brief(self, operation: str) -> bool:
        """Whether calls of *operation* are known to hold a worker for less than `BRIEF`."""
        own = self._own.get(operation)
        return own is not None and own.count >= _PLAIN and own.mean < BRIEF

    def _of(self, operation: str) -> _Moments | None:
        own = self._own.get(operation)
        if own is not None and own.count >= _OWN:
            return own
        return self._all if self._all.count >= _PLAIN else None

    def expects(self, operation: str) -> tuple[float, float]:
        """Mean and variance of how long a call of *operation* will hold its worker; zeros while nobody knows."""
        moments = self._of(operation)
        return (0.0, 0.0) if moments is None else (moments.mean, moments.variance)

    def outlook(self, ahead: Ahead, handed: int, capacity: int, operation: str) -> Outlook | None:
        """Of a call that waits behind those *ahead*, and *handed* more that workers hold and have not begun, where
        *capacity* run at once. None when nothing can be said.

        Not to be asked while a worker is free: somebody has to find out whether calls still take as long as they did.
        """
        own = self._of(operation)
        if own is None or capacity <= 0:
            return None
        general, more = self._all, handed + 1  # one: until the first of those that run ends
        wait = (ahead.seconds + more * general.mean) / capacity
        # How far off the wait may be: its calls take more or less than their means, and the means are estimates.
        variance = max(0.0, ahead.variance)  # a sum that was added to and taken from
        apart = variance + handed * general.variance
        astray = math.sqrt(ahead.calls * variance) + more * math.sqrt(general.variance)
        off = math.sqrt((apart + _UNSURE * astray * astray) / (capacity * capacity) + own.variance)
        return Outlook(wait, own.mean, self._margin * off)
