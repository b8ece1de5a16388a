"""What would the waits have been with more or fewer workers: calls that really came are played through a queue again.

The recursion of J. Kiefer and J. Wolfowitz, "On the theory of queues with many servers", Trans. American Math. Soc. 78
(1955): first come, first served; each call takes the server that is free first. It is exact for such a pool, for any
arrivals and any service times, and needs one condition: service times do not depend on the number of workers. Where
workers share a bottleneck, that is wrong (see the pattern ``oversubscription``). How well the replay describes what was
seen, at the size that the pool had, is its `SizeForecast.fidelity`: below `FIDELITY`, its figures are not told.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from heapq import heapreplace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from pool_monitor.advisor.gil_pauses import yield_gil
from pool_monitor.advisor.history import REJECTED, TIMEOUT, Buckets, Floats, Ints, PoolHistory
from pool_monitor.advisor.statistics import Estimate, blocks_of, drawn_quantiles

FIDELITY = 0.8
"""The lowest fidelity with which the figures of a replay are told."""
BLOCK_S = 30.0
"""Seconds of a block of the bootstrap."""
FEWEST = 300
"""The fewest calls of which a replay is told."""
MOST_WORKERS = 4096
_MODEL_ERROR = 0.2  # of the logarithm of a percentile, at another size than that seen
_SLICE = 4096  # calls: a millisecond
_GRAIN = 0.1  # of the mean service time: below it, differences of a wait do not matter


def replay(arrivals: ArrayLike, services: ArrayLike, servers: int, patience: float = math.inf) -> Floats:
    """Return the wait of each call in seconds, with *servers* workers that are free at first.

    *arrivals* are in order of time. A call that would wait longer than *patience* waits so long and is not served.
    50,000 calls take about 10 ms.
    """
    at, needs = np.asarray(arrivals, dtype=np.float64), np.asarray(services, dtype=np.float64)
    if servers < 1:
        return np.full(len(at), patience)
    if not len(at):
        return np.zeros(0)
    free = [float(at[0])] * servers
    waits: list[float] = []
    add = waits.append
    for begin in range(0, len(at), _SLICE):
        yield_gil()
        part = slice(begin, begin + _SLICE)
        for arrival, need in zip(at[part].tolist(), needs[part].tolist(), strict=True):
            earliest = free[0]
            if earliest <= arrival:
                heapreplace(free, arrival + need)
                add(0.0)
            elif earliest - arrival <= patience:
                heapreplace(free, earliest + need)
                add(earliest - arrival)
            else:
                add(patience)
    return np.asarray(waits)


def needed(
    arrivals: ArrayLike, services: ArrayLike, target: float, share: float = 0.95, *, most: int = MOST_WORKERS
) -> int | None:
    """Return the smallest number of servers with which *share* of the calls wait for at most *target* seconds; None:
    not even *most* are enough. 1 where there are no calls. About ten replays, half of which stop early.

    More servers never make a wait longer, so that the interval is halved.
    """
    at, needs = np.asarray(arrivals, dtype=np.float64), np.asarray(services, dtype=np.float64)
    if not len(at):
        return 1
    allowed = math.floor(len(at) * (1 - share) + 1e-9)
    times = list(zip(at.tolist(), needs.tolist(), strict=True))

    def enough(servers: int) -> bool:  # `replay`, which stops once too many calls were late
        free, late = [times[0][0]] * servers, 0
        for arrival, need in times:
            earliest = free[0]
            if earliest <= arrival:
                heapreplace(free, arrival + need)
            else:
                heapreplace(free, earliest + need)
                if earliest - arrival > target:
                    late += 1
                    if late > allowed:
                        return False
        return True

    span = float(at[-1] - at[0])
    load = float(needs.sum()) / span if span > 0 else math.inf
    high = min(most, len(at), max(1, math.ceil(min(load, most)) + 1))
    low = 0
    while not enough(high):
        if high >= most:
            return None
        low, high = high, min(most, 2 * high)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


class Outlook(NamedTuple):
    """What a size would do to the calls that were seen. Times are seconds."""

    size: int
    p50: float
    p95: Estimate
    """The interval is one for a later stretch of equal length: it has the noise of both, and the error of the model."""
    p99: float
    over: float
    """The share of calls that wait longer than the target."""
    utilisation: float
    """By the utilisation law. Above 1: the load is more than the size can do."""
    worker_hours: float
    """Of one day at this size."""


class SizeForecast(NamedTuple):
    """A table of sizes, and how far it can be trusted."""

    now: int
    """The size that the pool had."""
    seen: Estimate
    """The p95 of the wait that was seen, with an interval by blocks."""
    fidelity: float
    """``1 - |replay(now) - seen| / seen`` of the p95, from 0 to 1; differences below a tenth of a service time do not
    count."""
    calls: int
    span: float
    """Seconds from the first arrival to the last."""
    service: float
    """Mean service time."""
    sizes: dict[int, Outlook]

    @property
    def trusted(self) -> bool:
        return self.fidelity >= FIDELITY and self.calls >= FEWEST


class CallTrace(NamedTuple):
    """The calls that a replay is made of, in the order of their arrivals."""

    arrived: Floats
    services: Floats
    waited: Floats
    worker: Ints
    """Index in `PoolHistory.workers`; -1: it gave up."""
    outcome: Ints
    size: int
    patience: float = math.inf
    """Seconds after which calls give up or are refused; inf: none was."""
    counted: int = 0
    """The calls before this one only fill the queue."""

    @property
    def judged(self) -> CallTrace:
        """The calls that count, without those before."""
        arrived, services, waited, worker, outcome, size, patience, first = self
        about = waited[first:], worker[first:], outcome[first:]
        return CallTrace(arrived[first:], services[first:], *about, size, patience)


def trace_of(history: PoolHistory, since: float | None = None) -> CallTrace | None:
    """Return the calls of *history* that arrived since the size is what it is; None: too few, or not all are there.
    Those that arrived before *since* are not counted.

    A call that gave up in the queue, or was refused, would have needed a worker too: its service time is drawn from
    those of the others, always the same way. It counts as having waited as long as any call did, `CallTrace.patience`.
    """
    calls, stable = history.calls, _unchanged(history.buckets)
    if stable is None or not len(calls.arrived) or history.one_in > 1:
        return None
    began, size = stable
    served = ~np.isnan(calls.started)
    gave_up = ~served & ((calls.outcome == TIMEOUT) | (calls.outcome == REJECTED))
    order = np.flatnonzero((served | gave_up) & (calls.arrived >= began))
    order = order[np.argsort(calls.arrived[order], kind="stable")]
    arrived, lost = calls.arrived[order], gave_up[order]
    services = calls.ended[order] - calls.started[order]
    waited = np.where(lost, calls.ended[order] - arrived, calls.started[order] - arrived)
    counted = _settled(arrived, waited, max(began, float(calls.ended[0])))
    if since is not None:
        counted = max(counted, int(np.searchsorted(arrived, since)))
    if np.count_nonzero(~lost[counted:]) < FEWEST:
        return None
    patience = math.inf
    if lost.any():
        patience = waited[lost] = float(waited.max())
        services[lost] = np.random.default_rng(1).choice(services[~lost], size=int(lost.sum()))
    about = np.maximum(waited, 0.0), calls.worker[order], calls.outcome[order]
    return CallTrace(arrived, services, *about, size, patience, counted)


def what_if(history: PoolHistory, sizes: Sequence[int], since: float | None = None) -> SizeForecast | None:
    """Return what each of *sizes*, and the size of now, would have done to the latest calls; None: there are too few.

    One replay for each size: 10 ms for 50,000 calls.
    """
    trace = trace_of(history, since)
    return forecast(trace, sizes, history.wait_target) if trace is not None else None


def forecast(trace: CallTrace, sizes: Sequence[int], target: float) -> SizeForecast:
    """Return what each of *sizes*, and the size of now, would have done to the calls of *trace*."""
    at, seen = trace.arrived[trace.counted :], trace.waited[trace.counted :]
    service, span = float(trace.services.mean()), float(at[-1] - at[0])
    grain = _GRAIN * service
    observed = _interval(at, seen, grain, 0.0)
    table: dict[int, Outlook] = {}
    played_now = 0.0
    for size in sorted({*sizes, trace.size}):
        if size < 1:
            continue
        waits = replay(trace.arrived, trace.services, size, trace.patience)[trace.counted :]
        p95 = float(np.quantile(waits, 0.95))
        if size == trace.size:
            played_now = p95
        error = 0.0 if size == trace.size else _MODEL_ERROR
        table[size] = Outlook(
            size,
            float(np.quantile(waits, 0.5)),
            _interval(at, waits, grain, error),
            float(np.quantile(waits, 0.99)),
            float(np.mean(waits > target)),
            float(trace.services[trace.counted :].sum()) / (span * size) if span > 0 else math.nan,
            24.0 * size,
        )
    off = max(abs(played_now - observed.value) - grain, 0.0)
    fidelity = max(0.0, 1 - off / max(observed.value, grain)) if observed.value > 0 or played_now > 0 else 1.0
    return SizeForecast(trace.size, observed, fidelity, len(at), span, service, table)


def _interval(times: Floats, waits: Floats, grain: float, error: float) -> Estimate:
    """The p95 of *waits*, with the interval in which that of a later stretch is expected, with 95 % confidence.

    Formed on the logarithm, with *grain* added, since waits are many times longer or shorter rather than by an amount.
    """
    value = float(np.quantile(waits, 0.95))
    drawn = np.log(drawn_quantiles(blocks_of(times, waits, BLOCK_S), 0.95) + grain)
    half = 1.96 * math.sqrt(2 * float(drawn.var()) + error * error)
    low, high = (value + grain) * math.exp(-half) - grain, (value + grain) * math.exp(half) - grain
    return Estimate(value, max(low, 0.0), high)


def _unchanged(buckets: Buckets) -> tuple[float, int] | None:
    """When the pool got the size that it has, and the size; None: it is not known, or it is changing."""
    sizes = buckets.size
    known = np.flatnonzero(~np.isnan(sizes))
    if not len(known):
        return None
    size = float(sizes[known[-1]])
    if abs(size - round(size)) > 1e-6 or size < 1:
        return None
    other = known[np.abs(sizes[known] - size) > 1e-6]
    began = float(buckets.at[other[-1] + 1]) if len(other) else -math.inf
    return began, round(size)


def _settled(arrived: Floats, waited: Floats, known: float) -> int:
    """The first call that came when it is certain what was before it: after *known*, and with no wait. 0 where there
    is none: the queue was never empty.
    """
    found = np.flatnonzero((arrived >= known) & (waited <= 0))
    return int(found[0]) if len(found) and len(arrived) - found[0] >= FEWEST else 0
