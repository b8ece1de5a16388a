"""Whether a change has done harm or good: pure functions of a `PoolHistory` and the moments of the change.

Waits of single calls are never compared before with after: they depend on each other and on the load, and such a
test is wrong two times of three on a system that did not change. What is compared instead:

- waits with a *replay* of the same calls: what they would have been at the other size, or by these service times;
- *service times* of the calls that started in each window, by operation and by ranks. Where those of one time resemble
  each other, means of 10 s are compared;
- *failures* by incidents, with the exact binomial test, and by shares of 10 s;
- all other figures by blocks of 10 s, as an alarm only: never as a proof that a change has helped.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pool_monitor.advisor.history import OK, REJECTED, PoolHistory
from pool_monitor.advisor.replay import replay
from pool_monitor.advisor.statistics import binomial_above, mann_whitney, wilson
from pool_monitor.snapshot.advice import Effect
from pool_monitor.tuner.rules import KnobKind

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Conclusion = Literal["better", "no_harm", "harm", "too_few"]

REPLAYED = 5_000
"""Calls of a replay at most, beside those that were there when it begins: 2 ms."""
RANKED = 3_000
"""Service times of each side that are ranked at most: evenly thinned."""
OVER = 0.05
"""The share of the calls that may wait longer than the target."""
FAST_S = 15.0
"""The stretch of time of `plain_harm`."""
FAST_CALLS = 40
_SLOWER = 1.05  # what counts as slower at all
_Z, _Z_BLOCKS, _Z_FAST = 2.33, 2.6, 4.0
_GAP_S = 10.0  # failures closer to each other than this are one incident
_OPERATION_CALLS = 8  # calls before the change that an operation needs to be compared


class TrialWindow(NamedTuple):
    """What is judged. Times are monotonic seconds."""

    kind: KnobKind
    before: float
    after: float
    since: float
    """The beginning of the window before the change."""
    at: float
    """The moment of the change."""
    settled: float
    """From when on the figures after it count."""
    calls: int = 300
    """Calls that each side needs."""
    effect: Effect | None = None


class TrialVerdict(NamedTuple):
    verdict: Conclusion
    reason: str
    figures: dict[str, float]
    measured: float | None = None


class Services(NamedTuple):
    """How service times have changed. All NaN or 0 where too few calls can be compared."""

    ratio: float
    """Mean after over mean before, of calls of the same operations."""
    z: float
    """By ranks; above 0: slower after."""
    before: int
    after: int


class Waits(NamedTuple):
    """Of the calls that arrived in a window."""

    calls: int
    over: float
    """The share that waited longer than the target, or gave up."""
    p95: float
    played_over: float
    """The same by a replay at another size."""
    played_p95: float


def plain_harm(history: PoolHistory, change: TrialWindow) -> str | None:
    """Return the harm that needs no further figures, in words; None: there is none. To be asked every few seconds."""
    for find in (_deaths, _lag, _slow_now, _failures_now, _waits_now):
        if found := find(history, change):
            return found
    return None


def judge(history: PoolHistory, change: TrialWindow) -> TrialVerdict:
    """Return the verdict on the whole window after the change. ``too_few``: ask again when there are more calls."""
    calls = history.calls
    before = _between(calls.ended, change.since, change.at)
    after = _begun(history, change.settled)
    figures = {"calls_before": float(before.sum()), "calls_after": float(after.sum())}
    if figures["calls_after"] < change.calls:
        return TrialVerdict("too_few", f"{after.sum():.0f} calls of {change.calls} since the change", figures)
    services = service_times(history, change)
    figures |= {"service_ratio": services.ratio, "service_z": services.z}
    for find in (_slower, _failures, _blocks):
        if harm := find(history, change, services, figures):
            return TrialVerdict("harm", harm, figures)
    if change.kind == "size":
        return _size(history, change, figures)
    if harm := _unexplained_waits(history, change, figures):
        return TrialVerdict("harm", harm, figures)
    if services.z < -2.8 and services.ratio < 0.97:
        return TrialVerdict("better", f"calls take {services.ratio:.0%} of the time", figures, services.ratio)
    if figures["calls_before"] < change.calls:
        return TrialVerdict("too_few", "too few calls before the change to compare with", figures)
    return TrialVerdict("no_harm", "nothing has got worse", figures)


# -- size -------------------------------------------------------------------------------------------------------------


def _size(history: PoolHistory, change: TrialWindow, figures: dict[str, float]) -> TrialVerdict:
    found = waits(history, change.settled, _known_until(history), round(change.before), change.at)
    figures |= {
        "over_target": found.over,
        "over_target_at_old_size": found.played_over,
        "p95_wait": found.p95,
        "p95_wait_at_old_size": found.played_p95,
    }
    if change.after < change.before:
        if found.over > OVER:
            return TrialVerdict(
                "harm", f"{found.over:.0%} of the calls wait longer than the target", figures, found.p95
            )
        return TrialVerdict("better", "fewer workers, and the wait stays below the target", figures, found.p95)
    promised = None if change.effect is None else change.effect.now - change.effect.expected
    gained = found.played_p95 - found.p95
    enough = gained >= 0.5 * promised if promised else found.p95 <= 0.9 * found.played_p95
    if enough and gained > 0:
        shorter = f"p95 wait {_time(found.p95)} instead of {_time(found.played_p95)}"
        return TrialVerdict("better", shorter, figures, found.p95)
    return TrialVerdict("no_harm", "no harm, and less effect than was expected", figures, found.p95)


def waits(history: PoolHistory, since: float, until: float, size: int, begin: float) -> Waits:
    """Return the waits of the calls that arrived from *since* to *until*, and what they were at *size* by a replay.

    The replay begins at *begin*, with the calls that were there at that moment: a backlog from before is not the doing
    of the change. At most the latest `REPLAYED` calls are played.
    """
    calls = history.calls
    known = np.flatnonzero((calls.outcome != REJECTED) & (calls.arrived < until) & (calls.ended > begin))
    if len(known) > REPLAYED:
        begin = max(begin, float(np.sort(calls.arrived[known])[-REPLAYED]))
        begin = min(begin, since)
        known = known[calls.ended[known] > begin][-2 * REPLAYED :]
    began = np.where(np.isnan(calls.started[known]), math.inf, calls.started[known])
    # Those that run at the beginning hold a worker until their end; then come those that wait, then all others.
    order = known[np.lexsort((calls.arrived[known], began >= begin))]
    arrived, started, ended = calls.arrived[order], calls.started[order], calls.ended[order]
    served = ~np.isnan(started)
    counted = arrived >= since
    if not counted.any():
        return Waits(0, math.nan, math.nan, math.nan, math.nan)
    waited = np.where(served, started - arrived, ended - arrived)
    over = (waited > history.wait_target) | ~served
    service = np.where(served, ended - np.maximum(started, begin), _typical(ended[served] - started[served]))
    played = replay(np.maximum(arrived, begin), service, max(1, size))
    return Waits(
        int(counted.sum()),
        float(over[counted].mean()),
        float(np.quantile(waited[counted], 0.95)),
        float((played[counted] > history.wait_target).mean()),
        float(np.quantile(played[counted], 0.95)),
    )


def _known_until(history: PoolHistory) -> float:
    """Up to when nearly all calls that arrived have ended: those that hold a worker still are not known, and a replay
    without them would wait less.
    """
    calls = history.calls
    services = calls.ended[-2_000:] - calls.started[-2_000:]
    services = services[~np.isnan(services)]
    return history.now - (min(float(np.quantile(services, 0.995)), FAST_S) if len(services) else 0.0)


def _typical(services: Floats) -> float:
    return float(services.mean()) if len(services) else 0.0


# -- service times ----------------------------------------------------------------------------------------------------


def service_times(history: PoolHistory, change: TrialWindow, since: float | None = None) -> Services:
    """Compare the service times of calls that started after the change (or *since*) with those of before.

    A call that started lately and is not in yet would make the others look fast, so that only calls count that are
    four mean service times old.
    """
    calls = history.calls
    good = (calls.outcome == OK) & ~np.isnan(calls.started)
    first = good & _between(calls.started, change.since, change.at)
    if first.sum() < 2 * _OPERATION_CALLS:
        return Services(math.nan, 0.0, int(first.sum()), 0)
    service = calls.ended - calls.started
    start = change.settled if since is None else since
    margin = min(4 * float(service[first].mean()), max(0.0, (history.now - start) / 2))
    first &= calls.ended <= change.at  # those that were under way have seen both values
    first &= calls.started <= change.at - margin
    second = good & _between(calls.started, start, history.now - margin)
    typical = _medians(calls.operation[first], service[first], len(history.operations))
    known = np.isfinite(typical)[calls.operation]
    first, second = first & known, second & known
    if not first.any() or not second.any():
        return Services(math.nan, 0.0, int(first.sum()), int(second.sum()))
    scaled = service / np.where(known, typical[calls.operation], 1.0)
    one, two = scaled[first], scaled[second]
    ratio = float(two.mean() / one.mean()) if one.mean() > 0 else math.nan
    blocks = _means(calls.started[first], one), _means(calls.started[second], two)
    if _resembling(*blocks):
        one, two = blocks
    return Services(ratio, mann_whitney(_thinned(one), _thinned(two)).z, int(first.sum()), int(second.sum()))


def _medians(operations: NDArray[np.int32], services: Floats, count: int) -> Floats:
    """The median service time of each operation; NaN where it has too few calls."""
    found = np.full(max(count, int(operations.max(initial=0)) + 1, 1), math.nan)
    for operation in np.unique(operations):
        mine = services[operations == operation]
        if len(mine) >= _OPERATION_CALLS and (middle := float(np.median(mine))) > 0:
            found[operation] = middle
    return found


def _means(times: Floats, values: Floats) -> Floats:
    """Means of 10 s, of the blocks that have values."""
    if not len(times):
        return values
    block = ((times - times.min()) // _GAP_S).astype(int)
    counts = np.bincount(block)
    return np.asarray(np.bincount(block, values)[counts > 0] / counts[counts > 0])


def _resembling(first: Floats, second: Floats) -> bool:
    """Whether blocks are like their neighbours: then single values say less than their number."""
    if len(first) < 6 or len(second) < 4:
        return False
    centred = np.concatenate([first - first.mean(), second - second.mean()])
    power = float((centred**2).sum())
    return power > 0 and float((centred[1:] * centred[:-1]).sum()) / power > 0.3


def _thinned(values: Floats) -> Floats:
    return values[:: max(1, math.ceil(len(values) / RANKED))]


def _slower(
    history: PoolHistory,  # noqa: ARG001
    change: TrialWindow,
    services: Services,
    figures: dict[str, float],  # noqa: ARG001
) -> str | None:
    if not (services.z > _Z and services.ratio > _SLOWER):
        return None
    growth = change.after / change.before if change.kind == "size" and change.before > 0 else 1.0
    if growth > 1 and services.ratio <= 1.15 and growth / services.ratio > 1 + 0.5 * (growth - 1):
        return None  # each call is a little slower, and the pool does more
    return f"calls take {services.ratio:.2f} times as long"


def _slow_now(history: PoolHistory, change: TrialWindow) -> str | None:
    services = service_times(history, change, since=max(change.at, history.now - 60.0))
    if services.after >= FAST_CALLS // 2 and services.z > _Z_FAST and services.ratio > 1.15:
        return f"calls take {services.ratio:.2f} times as long (z {services.z:.1f})"
    return None


# -- failures ---------------------------------------------------------------------------------------------------------


def _failures(history: PoolHistory, change: TrialWindow, services: Services, figures: dict[str, float]) -> str | None:  # noqa: ARG001
    calls = history.calls
    failed = (calls.outcome != OK) & (calls.outcome != REJECTED)
    before, after = _between(calls.ended, change.since, change.at), _begun(history, change.settled)
    n, m = int(before.sum()), int(after.sum())
    if not n or not m:
        return None
    share, share_after = float(failed[before].mean()), float(failed[after].mean())
    figures |= {"failed_before": share, "failed_after": share_after}
    if share_after <= share + 0.001:
        return None
    k, k_after = _incidents(history, before & failed), _incidents(history, after & failed)
    p = binomial_above(k_after, k + k_after, m / (n + m))
    figures |= {"incidents_before": float(k), "incidents_after": float(k_after), "incidents_p": p}
    words = f"{share_after:.1%} of the calls fail, {share:.1%} before"
    if p < 0.01:
        return words
    blocks = [_means(calls.ended[side], failed[side].astype(np.float64)) for side in (before, after)]
    if share_after > 1.5 * share + 0.002 and mann_whitney(*blocks).z > _Z_BLOCKS:
        return words
    return None


def _incidents(history: PoolHistory, failed: Bools) -> int:
    """Failures of one operation and outcome within 10 s of each other count once."""
    calls = history.calls
    where = np.flatnonzero(failed)
    kind = calls.operation[where].astype(np.int64) * 8 + calls.outcome[where]
    order = np.lexsort((calls.ended[where], kind))
    kind, at = kind[order], calls.ended[where][order]
    if not len(at):
        return 0
    return 1 + int(((np.diff(kind) != 0) | (np.diff(at) > _GAP_S)).sum())


def _failures_now(history: PoolHistory, change: TrialWindow) -> str | None:
    calls = history.calls
    before = _between(calls.ended, change.since, change.at)
    after = _begun(history, change.at) & (calls.ended >= history.now - FAST_S)
    if after.sum() < FAST_CALLS:  # where calls are rare, all since the change
        after = _begun(history, change.at)
    n, m = int(before.sum()), int(after.sum())
    if m < FAST_CALLS // 2:
        return None
    thirds = np.array_split(np.flatnonzero(after), 3)
    refused = calls.outcome == REJECTED
    for bad, words in ((refused, "are refused"), ((calls.outcome != OK) & ~refused, "fail")):
        share, hits = float(bad[before].mean()) if n else 0.0, int(bad[after].sum())
        if min(float(bad[third].mean()) for third in thirds) <= max(2 * share, share + 0.03):
            continue  # a burst that is over
        usual = max(wilson(int(bad[before].sum()), n).high if n else 0.0, 0.01)
        if hits / m > max(3 * share, share + 0.05) and binomial_above(hits, m, min(usual, 0.99)) < 1e-4:
            if words == "are refused" and _load(history, change) > 1.15:
                continue  # more calls than before are a reason of their own
            return f"{hits / m:.0%} of the calls {words}, {share:.1%} before"
    return None


# -- waits of settings that are no size -------------------------------------------------------------------------------


def _unexplained_waits(history: PoolHistory, change: TrialWindow, figures: dict[str, float]) -> str | None:
    size = _size_now(history)
    if size is None:
        return None
    found = waits(history, change.settled, _known_until(history), size, change.at)
    figures |= {"over_target": found.over, "over_target_by_replay": found.played_over}
    if found.over > max(2 * found.played_over, found.played_over + 0.05, 2 * _over_before(history, change), OVER):
        return (
            f"{found.over:.0%} of the calls wait longer than the target; by load and service times, it would be fewer"
        )
    return None


def _waits_now(history: PoolHistory, change: TrialWindow) -> str | None:
    if history.now - FAST_S < change.settled:
        return None
    size = round(change.before) if change.kind == "size" else _size_now(history)
    if size is None:
        return None
    until = _known_until(history)
    since = max(until - FAST_S, change.settled)
    calls = history.calls
    within = _between(calls.arrived, since, until)
    waited = np.where(np.isnan(calls.started), calls.ended, calls.started) - calls.arrived
    if within.sum() < FAST_CALLS or (waited[within] > history.wait_target).mean() <= 0.3:
        return None
    found = waits(history, since, until, size, change.at)
    if found.over > 0.3 and found.played_over < found.over / 2 and _over_before(history, change) < 0.5 * found.over:
        return f"{found.over:.0%} of the calls wait longer than the target"
    return None


def _over_before(history: PoolHistory, change: TrialWindow) -> float:
    calls = history.calls
    mine = _between(calls.ended, change.since, change.at) & ~np.isnan(calls.started)
    if not mine.any():
        return 0.0
    return float((calls.started[mine] - calls.arrived[mine] > history.wait_target).mean())


def _size_now(history: PoolHistory) -> int | None:
    sizes = history.buckets.ready[-6:]
    sizes = sizes[~np.isnan(sizes)]
    return max(1, round(float(sizes.mean()))) if len(sizes) else None


# -- figures of ten seconds -------------------------------------------------------------------------------------------


def _deaths(history: PoolHistory, change: TrialWindow) -> str | None:
    rows = history.buckets
    lately = rows.at + _GAP_S > max(change.at, history.now - 60.0)
    before = _between(rows.at, change.since, change.at - _GAP_S)
    deaths = float(np.nansum(rows.deaths[lately]))
    usual = float(np.nanmean(rows.deaths[before])) * 6 if before.any() and np.isfinite(rows.deaths[before]).any() else 0
    return f"{deaths:.0f} workers have died in a minute" if deaths >= max(2.0, 3 * usual) else None


def _lag(history: PoolHistory, change: TrialWindow) -> str | None:
    rows = history.buckets
    lately = rows.at >= max(change.at, history.now - 60.0)
    before = _between(rows.at, change.since, change.at)
    worst = _largest(rows.lag_p99[lately])
    if worst > 0.5 and not _largest(rows.lag_p99[before]) > 0.25:
        return f"the event loop is late by {_time(worst)}"
    return None


def _blocks(history: PoolHistory, change: TrialWindow, services: Services, figures: dict[str, float]) -> str | None:  # noqa: ARG001
    rows = history.buckets
    before, after = _between(rows.at, change.since, change.at - _GAP_S), rows.at >= change.settled
    with np.errstate(divide="ignore", invalid="ignore"):
        per_call, offered = np.maximum(rows.ended, 1), np.maximum(rows.arrivals + rows.refused, 1)
        shares = (
            ("refused", rows.refused / offered, 1.0, 0.01, "calls are refused"),
            ("retries", rows.retries / np.maximum(rows.arrivals, 1), 1.5, 0.02, "calls are sent again"),
            ("cpu_per_call", rows.cpu / per_call, 1.15, 0.0, "processor time goes into a call"),
            ("not_ready", 1 - rows.ready / np.maximum(rows.size, 1), 1.0, 0.1, "workers are not ready"),
        )
    load = _load(history, change)
    figures["load_ratio"] = load
    for name, values, factor, more, words in shares:
        one, two = values[before], values[after]
        one, two = one[np.isfinite(one)], two[np.isfinite(two)]
        if len(one) < 6 or len(two) < 6:
            continue
        usual, now = float(one.mean()), float(two.mean())
        if (name == "refused" and load > 1.15) or (name == "not_ready" and change.kind == "size"):
            continue
        if now > factor * usual + more and mann_whitney(one, two).z > _Z_BLOCKS:
            figures |= {f"{name}_before": usual, f"{name}_after": now}
            return f"more {words}: {now:.3g}, {usual:.3g} before"
    return None


def _load(history: PoolHistory, change: TrialWindow) -> float:
    """Calls per second after the change over those before; 1 where it is not known."""
    rows = history.buckets
    before, after = _between(rows.at, change.since, change.at - _GAP_S), rows.at >= change.at
    one, two = (_mean(np.nan_to_num(rows.refused[side]) + rows.arrivals[side]) for side in (before, after))
    return two / one if one > 0 and math.isfinite(two) else 1.0


# -- inside -----------------------------------------------------------------------------------------------------------


def _between(times: Floats, since: float, until: float) -> Bools:
    return np.asarray((times >= since) & (times < until))


def _begun(history: PoolHistory, since: float) -> Bools:
    """The calls that have begun since then: a call that was under way has seen both values."""
    calls = history.calls
    begun = np.where(np.isnan(calls.started), calls.arrived, calls.started)
    return np.asarray(begun >= since)


def _mean(values: Floats) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else math.nan


def _largest(values: Floats) -> float:
    known = values[np.isfinite(values)]
    return float(known.max()) if len(known) else 0.0


def _time(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "unknown"
    return f"{seconds * 1e3:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
