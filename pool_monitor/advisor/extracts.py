"""What several patterns take out of a `PoolHistory`: the calls of a stretch of time, and rows of its buckets.

Service times are compared by the time at which calls *started*: of the calls that ended after a change, the short ones
are too many, since the long ones have not ended yet.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pool_monitor.advisor.gil_pauses import yield_gil
from pool_monitor.advisor.history import OK, Buckets, Calls, Floats, Ints, PoolHistory, WorkerHistory
from pool_monitor.advisor.statistics import Estimate

SETTLED = 4.0
"""Calls count once they have had this many times the mean service time to end."""
YOUNG_S = 600.0
"""A process that has been ready for less is young: its caches are cold."""
THROTTLED_RATIO = 0.05
"""From this share of throttled scheduling periods on, throttling matters."""
BLOCKED_RATIO = 0.01
"""From this share of the time on, a blocked event loop matters."""
FULL_RATIO = 0.9
"""From this share on, the processors are in use."""

QUANTILES = 300
_LONG_ROWS = 30

Mask = NDArray[np.bool_]


class ServedCalls(NamedTuple):
    """Calls that had a worker, in the order of their ends. Columns of equal length."""

    started: Floats
    ended: Floats
    waited: Floats
    service: Floats
    operation: Ints
    worker: Ints
    outcome: Ints
    error: Ints

    @property
    def total(self) -> int:
        return len(self.started)

    def where(self, mask: Mask) -> ServedCalls:
        """Return the calls that *mask* picks."""
        if mask.all():  # as it is where nothing fails, and where there is one operation
            return self
        return ServedCalls(
            self.started[mask],
            self.ended[mask],
            self.waited[mask],
            self.service[mask],
            self.operation[mask],
            self.worker[mask],
            self.outcome[mask],
            self.error[mask],
        )

    def succeeded(self) -> ServedCalls:
        """Return the calls that ended well: a failure is often quicker, and a time-out is cut off."""
        return self.where(self.outcome == OK)

    def between(self, start: float, end: float) -> ServedCalls:
        """Return the calls that started in this time."""
        return self.where((self.started >= start) & (self.started < end))


def served(calls: Calls) -> ServedCalls:
    """Return the calls that had a worker."""
    had = ~np.isnan(calls.started) & (calls.worker >= 0)
    started, ended = calls.started[had], calls.ended[had]
    return ServedCalls(
        started,
        ended,
        np.maximum(started - calls.arrived[had], 0.0),
        np.maximum(ended - started, 0.0),
        calls.operation[had],
        calls.worker[had],
        calls.outcome[had],
        calls.error[had],
    )


def settled_before(cohort: ServedCalls, now: float) -> float:
    """Return the moment before which nearly all calls that started have ended."""
    return now - SETTLED * float(cohort.service.mean()) if cohort.total else now


def latest(buckets: Buckets, now: float, seconds: float) -> Buckets:
    """Return the rows of the last *seconds*."""
    first = int(np.searchsorted(buckets.at, now - seconds))
    return Buckets(*(column[first:] for column in buckets))


def ready_since(worker: WorkerHistory) -> float | None:
    """Return when the process of a slot became ready, or was first seen if that was before the history; None: there is
    no process that has done anything.
    """
    if worker.since is not None:
        return worker.since
    seen = [float(column[0]) for column in (worker.at, worker.rss_at) if len(column)]
    return min(seen, default=None)


def rows(buckets: Buckets, mask: Mask) -> Buckets:
    """Return the rows that *mask* picks."""
    return Buckets(*(column[mask] for column in buckets))


def known(values: Floats) -> Floats:
    """Return the values that were measured."""
    return values[~np.isnan(values)]


def mean(values: Floats) -> float:
    """Return the mean of the values that were measured; NaN: there is none."""
    found = known(values)
    return float(found.mean()) if len(found) else math.nan


def median(values: Floats) -> float:
    """Return the median of the values that were measured; NaN: there is none."""
    found = known(values)
    return float(np.median(found)) if len(found) else math.nan


def service_of(buckets: Buckets) -> float:
    """Return the mean service time of the calls that ended in these rows; NaN: there were none."""
    ended = float(np.nansum(buckets.ended))
    return float(np.nansum(buckets.service_sum)) / ended if ended else math.nan


def others_cpus(buckets: Buckets) -> Floats:
    """Return the processors that other processes of the host used, by row."""
    return np.asarray(np.maximum(buckets.host_cpu_ratio * buckets.host_cpus - buckets.own_cpus, 0.0))


def host_cause(history: PoolHistory, seconds: float) -> str | None:
    """Return what made all calls slower in the last *seconds*, from outside of them; None: nothing is known that did.

    One of ``throttled``, ``loop_lag``, ``oversubscription`` and ``noisy_neighbour``. It holds in a third of the rows,
    or for five minutes.
    """
    found = latest(history.buckets, history.now, seconds)
    if not len(found.at):
        return None
    with np.errstate(invalid="ignore"):
        full = found.host_cpu_ratio >= FULL_RATIO
        own = found.own_cpus >= 0.5 * found.host_cpu_ratio * found.host_cpus
        causes: dict[str, Mask] = {
            "throttled": found.throttled_ratio >= THROTTLED_RATIO,
            "loop_lag": found.blocked >= BLOCKED_RATIO * 10.0,
            "noisy_neighbour": (full | (found.pressure_cpu >= 0.1)) & ~own & ~np.isnan(found.own_cpus),
            "oversubscription": (full & own) | (found.own_cpus >= FULL_RATIO * found.host_cpus),
        }
    for name, holds in causes.items():
        if np.count_nonzero(holds) >= min(len(found.at) / 3, _LONG_ROWS):
            return name
    return None


def say_seconds(seconds: float) -> str:
    """Return a duration in words, to three digits."""
    for scale, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
        if abs(seconds) >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds:.3g} s"


def times_longer(before: Floats, now: Floats) -> Estimate:
    """Return how many times longer *now* is than *before*: Hodges and Lehmann's shift of the logarithms, with Moses'
    interval of 95 %. `QUANTILES` quantiles stand for each side: all pairs of many calls would take a second. It is
    quickest where both are in order already.
    """
    return shift_of(*(np.log(np.maximum(np.sort(side, kind="stable"), 1e-7)) for side in (before, now)))


def shift_of(before: Floats, now: Floats) -> Estimate:
    """Return what `times_longer` does, of logarithms that are in order."""
    yield_gil()
    n, m = len(before), len(now)
    pairs = np.subtract.outer(_thinned(now), _thinned(before)).ravel()
    half = 1.96 * math.sqrt((n + m + 1) / (12 * n * m)) * len(pairs)
    last = len(pairs) - 1
    yield_gil()
    low, high = max(math.floor(last / 2 - half), 0), min(math.ceil(last / 2 + half), last)
    places = [low, last // 2, (last + 1) // 2, high]
    least, left, right, most = np.partition(pairs, places)[places].tolist()  # a fifth of the time of sorting
    return Estimate(math.exp((left + right) / 2), math.exp(least), math.exp(most))


def is_shifted(before: Floats, now: Floats, shift: float) -> bool:
    """Return whether the shift of logarithms that are in order is *shift* or more: `shift_of` without the pairs."""
    first, second = _thinned(before), _thinned(now)
    pairs = len(first) * len(second)
    return 2 * int(np.searchsorted(first, second - shift + 1e-9).sum()) >= pairs


def _thinned(ordered: Floats) -> Floats:
    if len(ordered) <= QUANTILES:
        return ordered
    places = (np.arange(QUANTILES) + 0.5) * len(ordered) / QUANTILES
    return np.asarray(ordered[places.astype(np.int64)])


def certain(p: float) -> float:
    """Return *p*, above 0: a `Detection.p` of 0 says that there was no test."""
    return max(p, 1e-300)
