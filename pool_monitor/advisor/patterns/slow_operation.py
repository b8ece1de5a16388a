"""``slow_operation``: an operation takes longer than it used to, or its slowest calls do.

The calls that started in the latest stretch are compared with all calls of the operation before it, which hourly
histograms keep for days. Times of execution hardly depend on each other, so that ranks may be compared (Mann and
Whitney); the shift is that of Hodges and Lehmann, on logarithms: a factor. A mix of short and long calls, as those of
language models, is compared with itself, and a change of the mix of operations does not matter, since each is compared
alone.

What is told has to go on (`_lasts`), and to be new: a return from unusual times, or from those of the first minutes, is
not slowness (`former_times`).

What makes every call slower is no fault of an operation: where the host, the loop or the processors explain it
(`extracts.host_cause`), an operation is told only if it slowed by far more than the others. Where nothing explains that
all of several operations are slower, the finding is about the pool. One slow worker (``imbalance``) is left out: most
workers have to be slower.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pool_monitor.advisor.detection import Detection
from pool_monitor.advisor.extracts import (
    YOUNG_S,
    ServedCalls,
    certain,
    host_cause,
    is_shifted,
    say_seconds,
    served,
    settled_before,
    times_longer,
)
from pool_monitor.advisor.former_times import FORMER_S, former_stretches, is_new, level_of, of_day
from pool_monitor.advisor.gil_pauses import yield_gil
from pool_monitor.advisor.history import ERROR, OK, Floats, OperationHistory, PoolHistory, service_bounds
from pool_monitor.advisor.statistics import Estimate, binomial_above, mann_whitney, wilson
from pool_monitor.snapshot.advice import Effect

CALLS_MIN = 200
"""Calls on either side."""
SLOWER, SLOWER_LOW = 1.10, 1.05
"""How many times as long, at least, and the lower bound of its interval."""
STRETCHES_S = (300.0, 900.0, 3600.0)
"""Seconds of the latest stretches: what began a little ago, and what is small or rare."""
RARELY_S = 4 * 3600.0
"""Seconds of the latest stretch of an operation that has fewer than `CALLS_MIN` calls in each of the others."""
TAIL_CALLS_MIN = 1_000
TAIL = 2.0
"""A call of the tail takes this many times the former 99th percentile."""
TAIL_RATIO = 0.01
SPECIAL = 1.2
"""An operation is slower by itself if its factor is this many times that of the others."""
_P, _TAIL_P = 1e-4, 1e-6
_VALUES = 4_000
_CHANGE_Z = 4.5
_AFTER_MIN = 50  # calls
_WORKERS_SHARE = 2 / 3


class _Shift(NamedTuple):
    """An operation, now and before."""

    operation: int
    start: float
    """When the stretch began."""
    ratio: Estimate
    p: float
    calls: int
    calls_before: int
    mean: float
    mean_before: float
    per_second: float
    tail: Estimate | None
    """The share of calls beyond twice the former 99th percentile, if it is that that has grown."""
    tail_p: float
    limit: float
    """Twice the former 99th percentile."""


def slow_operation(history: PoolHistory) -> Iterator[Detection]:
    """Yield a detection for each operation that has slowed down, ``operation NAME``; for ``pool NAME`` instead if all
    of several have and nothing is known that explains it.
    """
    calls = served(history.calls)
    if not calls.total:
        return
    calls = calls.where(np.isin(calls.outcome, (OK, ERROR)))
    before = settled_before(calls, history.now)
    judged = [
        shift
        for nth, operation in history.by_operation.items()
        if (shift := _compared(history, calls, nth, operation, before)) is not None
    ]
    slower = [shift for shift in judged if _is_slower(shift)]
    tails = [shift for shift in judged if shift.tail is not None and not _is_slower(shift)]
    if not slower and not tails:
        return
    seconds = max(STRETCHES_S[1], *(history.now - shift.start for shift in (*slower, *tails)))
    explained = host_cause(history, seconds) is not None
    special = [shift for shift in slower if _is_special(shift, judged)]
    if explained:
        told = special
    elif len(judged) >= 2 and len(slower) == len(judged) and not special:
        yield _of_pool(history, slower)
        return
    else:
        told = slower
    for shift in told:
        yield _of_operation(history, shift)
    if not explained:
        for shift in tails:
            yield _of_tail(history, shift)


def _is_slower(shift: _Shift) -> bool:
    return shift.p <= _P and shift.ratio.value >= SLOWER and shift.ratio.low >= SLOWER_LOW


def _is_special(shift: _Shift, judged: list[_Shift]) -> bool:
    others = [other.ratio.value for other in judged if other is not shift]
    return bool(others) and shift.ratio.value >= SPECIAL * float(np.median(others))


# -- comparing --------------------------------------------------------------------------------------------------------


class _Past(NamedTuple):
    """What is compared with: the operation's histogram, and when the calls that the buffer has became slower."""

    now: float
    operation: OperationHistory
    calls: ServedCalls
    """Those in the buffer."""
    changed: float
    """inf: they did not."""
    latest: dict[int, NDArray[np.int64]]
    """The histogram of the calls in the buffer from some place on, if it was needed already."""

    def counts(self, start: float) -> NDArray[np.int64]:
        """The histogram of the calls before *start*: the same hour of the days before, if they are known, or else all
        hours. The calls since then are taken off; the buffer has them all.
        """
        counts = self.operation.counts.astype(np.int64)
        same = counts[of_day(self.operation, self.now)].sum(axis=0)
        if int(same.sum()) >= CALLS_MIN:
            return np.asarray(same)
        first = int(np.searchsorted(self.calls.ended, start))
        if first not in self.latest:
            classes = np.searchsorted(service_bounds(), self.calls.service[first:])
            self.latest[first] = np.bincount(classes, minlength=counts.shape[1])
        return np.asarray(np.maximum(counts.sum(axis=0) - self.latest[first], 0))


def _compared(
    history: PoolHistory, calls: ServedCalls, nth: int, operation: OperationHistory, before: float
) -> _Shift | None:
    own = calls.where(calls.operation == nth)
    stretches = {start: own.between(start, before) for start in (history.now - seconds for seconds in STRETCHES_S)}
    if all(now.total < CALLS_MIN for now in stretches.values()):
        start = history.now - RARELY_S
        stretches = {start: own.between(start, before)}
        if stretches[start].total < CALLS_MIN:
            return None
    past = _Past(history.now, operation, own, _changed(own), {})
    found = [_over(history, now, nth, past, (start, before)) for start, now in stretches.items()]
    shifts = [shift for shift in found if shift is not None]
    slower = [shift for shift in shifts if _is_slower(shift)]
    return min(slower, key=lambda shift: shift.p) if slower else next(iter(shifts), None)


def _over(history: PoolHistory, now: ServedCalls, nth: int, past: _Past, stretch: tuple[float, float]) -> _Shift | None:
    """Compare *now*, the calls that started in one stretch; None: there are too few."""
    yield_gil()
    start, before = stretch
    if now.total < CALLS_MIN:
        return None
    counts = past.counts(start)
    if int(counts.sum()) < CALLS_MIN:
        return None
    if past.changed < start and int((earlier := past.counts(past.changed)).sum()) >= CALLS_MIN:
        counts = earlier
    total = int(counts.sum())
    old, new = _values_of(counts), np.sort(now.service)
    compared = mann_whitney(old, new)
    ratio = times_longer(old, new) if compared.z > 0 else Estimate(1.0, 1.0, 1.0)
    slower = compared.z > 0 and _by_most_workers(now, float(np.median(old)) * math.sqrt(max(ratio.value, 1.0)))
    tail, limit, tail_p = _tail(counts, now)
    known = min(start, past.changed) - history.since >= YOUNG_S + FORMER_S
    if tail is not None and not (known and _in_both_halves(now.started, now.service > limit)):
        tail, tail_p = None, 1.0
    shift = _Shift(
        operation=nth,
        start=start,
        ratio=ratio if slower else Estimate(1.0, 1.0, 1.0),
        p=min(1.0, len(STRETCHES_S) * certain(compared.p)) if slower else 1.0,
        calls=now.total,
        calls_before=total,
        mean=float(now.service.mean()),
        mean_before=float(old.mean()),
        per_second=now.total / max(before - max(start, history.since), 1.0),
        tail=tail,
        tail_p=tail_p,
        limit=limit,
    )
    if _is_slower(shift) and not (_lasts(now, old, shift) and _is_new(history, past, now, shift)):
        return shift._replace(ratio=Estimate(1.0, 1.0, 1.0), p=1.0, tail=None, tail_p=1.0)
    return shift


def _lasts(now: ServedCalls, old: Floats, shift: _Shift) -> bool:
    """Whether the calls of the last five minutes are slower by half as much, or more. It takes 200 of them, or those of
    a quarter of the stretch, but 50 at least.
    """
    started = np.sort(now.started)
    quarter = started[-1] - (started[-1] - started[0]) / 4
    since = min(started[-1] - STRETCHES_S[0], started[-min(CALLS_MIN, len(started))])
    recent = now.service[now.started >= min(max(quarter, since), started[-_AFTER_MIN])]
    logs = [np.log(np.maximum(np.sort(side), 1e-7)) for side in (old, recent)]
    return is_shifted(logs[0], logs[1], math.log(shift.ratio.value) / 2)


def _is_new(history: PoolHistory, past: _Past, now: ServedCalls, shift: _Shift) -> bool:
    """Whether the operation was hardly ever as slow before, as it is after an hour in which it was quick."""
    until = min(shift.start, past.changed)
    former = former_stretches(past.operation, past.calls, history.since, until, history.now)
    lasted = 0.0 if past.changed <= shift.start else history.now - until
    return is_new(former, level_of(now.service), math.log(shift.ratio.value), lasted)


def _changed(own: ServedCalls) -> float:
    """Return when the calls became slower; inf: they did not. What is after it must not be in the figures of before.

    The moment at which the means of the logarithms before and after differ most, in standard errors (a scan for one
    change of the mean). It counts from `_CHANGE_Z` on, which a constant mean hardly ever reaches.
    """
    yield_gil()
    order = np.argsort(own.started, kind="stable")
    logs = np.log(np.maximum(own.service[order], 1e-7))
    count = len(logs)
    if count < 2 * CALLS_MIN:
        return math.inf
    some = logs[:: math.ceil(count / _VALUES)]
    middle = float(np.median(some))
    spread = 1.4826 * float(np.median(np.abs(some - middle))) or 1.0
    scores = np.clip((logs - middle) / spread, -3.0, 3.0)
    deviation = float(scores.std()) or 1.0
    before = np.arange(CALLS_MIN, count - _AFTER_MIN)
    sums = np.cumsum(scores)
    upto = sums[CALLS_MIN - 1 : count - _AFTER_MIN - 1]
    difference = (sums[-1] - upto) / (count - before) - upto / before
    z = difference / (deviation * np.sqrt(1 / before + 1 / (count - before)))
    best = int(np.argmax(z))
    return float(own.started[order[before[best]]]) if z[best] >= _CHANGE_Z else math.inf


def _values_of(counts: NDArray[np.int64]) -> Floats:
    """Return values that have the histogram *counts*: at most 4,000, spread evenly within each class."""
    bounds = service_bounds()
    total = int(counts.sum())
    shown = min(total, _VALUES)
    places = (np.arange(shown) + 0.5) * total / shown
    ends = np.cumsum(counts)
    at = np.searchsorted(ends, places)
    high = np.append(bounds, bounds[-1] * 1.05)[at]
    within = (places - (ends[at] - counts[at])) / counts[at]
    return np.asarray(high / 1.05 * 1.05**within)


def _by_most_workers(now: ServedCalls, limit: float) -> bool:
    """Whether the median of most workers is above *limit*, half of the way. One slow worker is no slow operation."""
    workers, counts = np.unique(now.worker, return_counts=True)
    judged = workers[counts >= 10]
    if len(judged) < 2:
        return True
    slower = sum(float(np.median(now.service[now.worker == worker])) > limit for worker in judged.tolist())
    return slower >= _WORKERS_SHARE * len(judged)


def _tail(counts: NDArray[np.int64], now: ServedCalls) -> tuple[Estimate | None, float, float]:
    """Return the share of slow calls now if it has grown, the bound beyond which a call is slow, and the p of that."""
    total = int(counts.sum())
    if total < TAIL_CALLS_MIN or now.total < CALLS_MIN:
        return None, math.nan, 1.0
    ends = np.cumsum(counts)
    bounds = np.append(service_bounds(), math.inf)
    limit = TAIL * float(bounds[int(np.searchsorted(ends, 0.99 * total))])
    if not math.isfinite(limit):
        return None, math.nan, 1.0
    slow_before = total - int(ends[int(np.searchsorted(bounds, limit))])
    slow = int((now.service > limit).sum())
    usual = wilson(slow_before, total).high
    p = certain(binomial_above(slow, now.total, usual))
    share = wilson(slow, now.total)
    spread = len(np.unique(now.worker[now.service > limit])) >= min(3, len(np.unique(now.worker)))
    if p > _TAIL_P or share.low < TAIL_RATIO or not spread:
        return None, limit, 1.0
    return share, limit, p


def _in_both_halves(started: Floats, slow: NDArray[np.bool_]) -> bool:
    """Whether the slow calls go on: a quarter of them in each half of the time. A few bad minutes are no new tail."""
    late = started[slow] > (float(started.min()) + float(started.max())) / 2
    return bool(0.25 <= late.mean() <= 0.75)


# -- telling ----------------------------------------------------------------------------------------------------------


def _evidence(shift: _Shift) -> dict[str, float]:
    return {
        "ratio": shift.ratio.value,
        "ratio_low": shift.ratio.low,
        "ratio_high": shift.ratio.high,
        "mean": shift.mean,
        "mean_before": shift.mean_before,
        "calls": float(shift.calls),
        "calls_before": float(shift.calls_before),
        "worker_equivalents": _workers(shift),
        "p": shift.p,
    }


def _workers(shift: _Shift) -> float:
    """The workers that the additional time keeps busy: its growth, times the rate (Little's law)."""
    return shift.per_second * (shift.mean - shift.mean / max(shift.ratio.value, 1.0))


def _effect(shifts: list[_Shift]) -> Effect:
    calls = sum(shift.calls for shift in shifts)
    now = sum(shift.mean * shift.calls for shift in shifts) / calls
    ratios = [(shift, (shift.ratio.value, shift.ratio.high, shift.ratio.low)) for shift in shifts]
    expected, least, most = (
        sum(shift.mean / max(bounds[nth], 1.0) * shift.calls for shift, bounds in ratios) / calls for nth in range(3)
    )
    metric = "operation.execution.mean" if len(shifts) == 1 else "pool.execution.mean"
    return Effect(metric=metric, now=now, expected=expected, low=least, high=most)


def _impact(history: PoolHistory, shifts: list[_Shift]) -> float:
    return min(1.0, sum(_workers(shift) for shift in shifts) / max(history.settings.get("size", history.low), 1))


def _of_operation(history: PoolHistory, shift: _Shift) -> Detection:
    name = history.operations[shift.operation]
    return Detection(
        pattern="slow_operation",
        subject=f"operation {name}",
        summary=f"{name} in pool {history.pool} takes {shift.ratio.value:.3g} times as long as before"
        f" ({shift.ratio.low:.3g} to {shift.ratio.high:.3g}; mean {say_seconds(shift.mean)}, before"
        f" {say_seconds(shift.mean_before)}): it adds {_workers(shift):.2g} worker-equivalents",
        action=f"find what changed for {name}: a release, the size of its arguments, or what it calls",
        evidence=_evidence(shift),
        samples=shift.calls,
        p=shift.p,
        fidelity=1.0,
        impact=_impact(history, [shift]),
        urgency=0.7,
        risk=1,
        samples_min=CALLS_MIN,
        effect=_effect([shift]),
        check_first="whether the arguments became larger: then it is the work that grew",
    )


def _of_pool(history: PoolHistory, shifts: list[_Shift]) -> Detection:
    worst = max(shifts, key=_workers)
    ratio = float(np.median([shift.ratio.value for shift in shifts]))
    added = sum(_workers(shift) for shift in shifts)
    return Detection(
        pattern="slow_operation",
        subject=f"pool {history.pool}",
        summary=f"all {len(shifts)} operations of pool {history.pool} take longer than before, {ratio:.3g} times in the"
        f" median, and nothing on the host explains it: it adds {added:.2g} worker-equivalents",
        action="look at what all operations use: a database, a model, a disk or the network",
        evidence={**_evidence(worst), "ratio": ratio, "operations": float(len(shifts)), "worker_equivalents": added},
        samples=sum(shift.calls for shift in shifts),
        p=max(shift.p for shift in shifts),
        fidelity=1.0,
        impact=_impact(history, shifts),
        urgency=0.7,
        risk=1,
        samples_min=CALLS_MIN,
        effect=_effect(shifts),
        check_first="whether there was a release for all of them",
    )


def _of_tail(history: PoolHistory, shift: _Shift) -> Detection:
    name, tail = history.operations[shift.operation], shift.tail or Estimate(0.0, 0.0, 0.0)
    return Detection(
        pattern="slow_operation",
        subject=f"operation {name}",
        summary=f"{tail.value:.1%} of the calls of {name} in pool {history.pool} take longer than"
        f" {say_seconds(shift.limit)}, twice what the slowest 1 % took before; the others are as before",
        action=f"find what the slow calls of {name} have in common; give them a pool of their own",
        evidence={
            **_evidence(shift),
            "p": shift.tail_p,
            "slow_ratio": tail.value,
            "slow_ratio_low": tail.low,
            "slow_ratio_high": tail.high,
            "slow_above": shift.limit,
        },
        samples=shift.calls,
        p=shift.tail_p,
        fidelity=1.0,
        impact=min(1.0, 5 * tail.value),
        urgency=0.5,
        risk=1,
        samples_min=TAIL_CALLS_MIN,
        check_first="whether a few arguments are far larger than the rest",
    )
