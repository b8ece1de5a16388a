"""``imbalance``: one worker is slower than the others at the same operations, or gets far more of the work.

Both are told from chance by the calls themselves:

- *Slower*: the logarithms of the execution times, each less the median of its operation on the other workers, are
  compared with those of the other workers (Mann and Whitney; execution times hardly depend on each other). A few long
  calls do not move the ranks.
- *More work*: its busy time is over 1.5 times the median of the others, which a fair dispatch would hardly ever do, and
  its calls wait longer than those elsewhere, by blocks of time. Without that, the work is uneven by design (a pool
  that takes the latest worker first) and harms nobody.

Young processes and workers that were not there all the time are left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from pool_monitor.advisor.detection import Detection
from pool_monitor.advisor.extracts import (
    YOUNG_S,
    Mask,
    ServedCalls,
    certain,
    is_shifted,
    ready_since,
    say_seconds,
    served,
    settled_before,
    shift_of,
)
from pool_monitor.advisor.gil_pauses import yield_gil
from pool_monitor.advisor.history import Floats, Ints, PoolHistory
from pool_monitor.advisor.statistics import Estimate, binomial_above, mann_whitney, wilcoxon
from pool_monitor.snapshot.advice import Effect

CALLS_MIN = 50
"""The fewest calls of a worker."""
SLOWER = 1.35
"""How many times longer the calls of a slow worker take, at least; with a lower bound of `SLOWER_LOW`."""
SLOWER_LOW = 1.2
BUSIER = 1.5
"""How many times busier than the median of the others a crowded worker is, at least."""
STRETCHES_S = (900.0, 3600.0, 9 * 3600.0)
"""Seconds that are looked at: the first that has enough calls."""
_P = 1e-4
_BLOCKS = 8
_CROWDED_P = 1e-3


class _Part(NamedTuple):
    """The calls of a stretch, and the workers that were there all the time."""

    calls: ServedCalls
    workers: list[int]
    seconds: float


def imbalance(history: PoolHistory) -> Iterator[Detection]:
    """Yield a detection for each worker that is slow or crowded. Subject: ``worker SLOT``."""
    part = _part(history)
    if part is None:
        return
    slow = list(_slow(history, part))
    yield from slow
    named = {found.subject for found in slow}
    yield from (found for found in _crowded(history, part) if found.subject not in named)


def _part(history: PoolHistory) -> _Part | None:
    calls = served(history.calls)
    before = settled_before(calls, history.now)
    since = {nth: ready for nth, worker in history.by_worker.items() if (ready := ready_since(worker)) is not None}
    old = {nth: ready for nth, ready in since.items() if _ready(ready, history) <= before}
    if len(old) < 2:
        return None
    workers, oldest = sorted(old), max(_ready(ready, history) for ready in old.values())
    for seconds in STRETCHES_S:
        chosen = calls.between(max(history.now - seconds, oldest), before)
        chosen = chosen.where(np.isin(chosen.worker, workers))
        counts = np.bincount(chosen.worker, minlength=workers[-1] + 1)[workers]
        if np.median(counts) >= CALLS_MIN:
            return _Part(chosen, workers, before - float(chosen.started.min()))
    return None


def _ready(since: float, history: PoolHistory) -> float:
    """When a process is no longer young. Those that were there when the history began are not young."""
    return since + YOUNG_S if since > history.since + YOUNG_S else history.since


# -- slower -----------------------------------------------------------------------------------------------------------


def _slow(history: PoolHistory, part: _Part) -> Iterator[Detection]:
    calls = part.calls.succeeded()
    counts = np.bincount(calls.worker, minlength=max(part.workers) + 1)
    ordered = _by_operation(calls)
    for worker in part.workers:
        count = int(counts[worker])
        if count < CALLS_MIN or calls.total - count < CALLS_MIN:
            continue
        mine, others = _excess(ordered, worker)
        if len(mine) < CALLS_MIN or not is_shifted(others, mine, math.log(SLOWER)):
            continue
        ratio = shift_of(others, mine)
        if ratio.value < SLOWER or ratio.low < SLOWER_LOW:
            continue
        compared = mann_whitney(others, mine)
        if compared.p > _P:
            continue
        yield _slow_detection(history, part, worker, ratio, certain(compared.p), count)


def _by_operation(calls: ServedCalls) -> list[tuple[Floats, Ints]]:
    """Return the logarithms of the service times of each operation in order, and the workers of these calls. All
    workers are compared by them: the calls are put in order once.
    """
    order = np.argsort(calls.service)
    logs = np.log(np.maximum(calls.service[order], 1e-7))
    worker, operation = calls.worker[order], calls.operation[order]
    return [(logs[same], worker[same]) for name in np.unique(operation) for same in [operation == name]]


def _excess(ordered: list[tuple[Floats, Ints]], worker: int) -> tuple[Floats, Floats]:
    """Return the logarithms of a worker and of the others, each less the median of its operation on the others. Both
    are in order.

    Operations of which there are fewer than 10 calls on the others are left out.
    """
    mine: list[Floats] = []
    others: list[Floats] = []
    for logs, workers in ordered:
        yield_gil()
        own = workers == worker
        there = logs[~own]
        if len(there) >= 10 and len(there) < len(logs):
            middle = float(there[(len(there) - 1) // 2] + there[len(there) // 2]) / 2
            others.append(there - middle)
            mine.append(logs[own] - middle)
    if not mine:
        return np.zeros(0), np.zeros(0)
    return np.sort(np.concatenate(mine), kind="stable"), np.sort(np.concatenate(others), kind="stable")


def _slow_detection(history: PoolHistory, part: _Part, worker: int, ratio: Estimate, p: float, count: int) -> Detection:
    name = history.workers[worker]
    own = part.calls.worker == worker
    took = float(part.calls.service[own].sum())
    total, all_calls = float(part.calls.service.sum()), part.calls.total
    now = total / all_calls
    spared = [took * (1 - 1 / max(bound, 1.0)) for bound in (ratio.value, ratio.low, ratio.high)]
    expected, least, most = ((total - saved) / all_calls for saved in spared)
    return Detection(
        pattern="imbalance",
        subject=f"worker {name}",
        summary=f"the calls of {name} take {ratio.value:.3g} times as long as the same operations on the other workers"
        f" of pool {history.pool} ({count} calls)",
        action=f"recycle {name}; if its successor is slow too, look at where it runs",
        evidence={
            "service_ratio": ratio.value,
            "service_ratio_low": ratio.low,
            "service_ratio_high": ratio.high,
            "calls": float(count),
            "share_of_calls": count / all_calls,
            "worker_seconds_lost": spared[0],
            "p": p,
        },
        samples=count,
        p=p,
        fidelity=1.0,
        impact=min(1.0, took / total),
        urgency=0.5,
        risk=1,
        samples_min=CALLS_MIN,
        effect=Effect(
            metric="pool.execution.mean", now=now, expected=expected, low=min(least, most), high=max(least, most)
        ),
        check_first=f"whether {name} has other work than the rest: affinity of sessions, or larger arguments",
    )


# -- more of the work -------------------------------------------------------------------------------------------------


def _crowded(history: PoolHistory, part: _Part) -> Iterator[Detection]:
    calls = part.calls.between(_resized(history), math.inf)
    workers = [nth for nth in part.workers if history.by_worker[nth].since is not None or (calls.worker == nth).any()]
    if calls.total < CALLS_MIN * len(workers) or len(workers) < 2:
        return
    busy = {worker: float(calls.service[calls.worker == worker].sum()) for worker in workers}
    for worker in workers:
        others = [busy[other] for other in workers if other != worker]
        middle = float(np.median(others))
        own = calls.worker == worker
        count = int(own.sum())
        if middle <= 0 or busy[worker] < BUSIER * middle or count < CALLS_MIN:
            continue
        p = certain(binomial_above(count, calls.total, 1 / len(workers)))
        harmed = _waits_more(calls, own)
        if p > _P or harmed is None:
            continue
        name = history.workers[worker]
        wait, elsewhere = harmed
        share = count / calls.total
        yield Detection(
            pattern="imbalance",
            subject=f"worker {name}",
            summary=f"{name} has {share:.0%} of the calls of pool {history.pool} and is {busy[worker] / middle:.3g}"
            f" times as busy as the median of the others; its calls wait {say_seconds(wait)}, those elsewhere"
            f" {say_seconds(elsewhere)}",
            action=f"spread the calls that insist on {name}: remove the option `worker`, or let affinity be a hint",
            evidence={
                "busy_ratio": busy[worker] / middle,
                "share_of_calls": share,
                "wait": wait,
                "wait_elsewhere": elsewhere,
                "calls": float(count),
                "p": p,
            },
            samples=count,
            p=p,
            fidelity=1.0,
            impact=min(1.0, share),
            urgency=0.5,
            risk=1,
            samples_min=CALLS_MIN,
            effect=_spread(calls, wait, elsewhere, share),
            check_first="whether the calls need what this worker holds: then rather make more workers hold it",
        )


def _resized(history: PoolHistory) -> float:
    """When the pool got its size: before that, the work of a worker that has gone would count as too little."""
    buckets = history.buckets
    sizes = np.nan_to_num(buckets.size, nan=-1.0)
    changes = np.flatnonzero(np.abs(np.diff(sizes)) > 1e-6)
    return float(buckets.at[changes[-1] + 1]) if len(changes) else -math.inf


def _waits_more(calls: ServedCalls, own: Mask) -> tuple[float, float] | None:
    """Return the mean wait of the calls of one worker and of the others, if the first is longer by blocks of time:
    single waits depend on each other. None if it is not.
    """
    began, ended = float(calls.started.min()), float(calls.started.max())
    edges = np.linspace(began, ended, 25)
    block = np.clip(np.searchsorted(edges, calls.started, side="right") - 1, 0, 23)
    counts = [np.bincount(block[side], minlength=24) for side in (own, ~own)]
    sums = [np.bincount(block[side], weights=calls.waited[side], minlength=24) for side in (own, ~own)]
    both = (counts[0] > 0) & (counts[1] > 0)
    if np.count_nonzero(both) < _BLOCKS:
        return None
    compared = wilcoxon(sums[0][both] / counts[0][both] - sums[1][both] / counts[1][both])
    if compared.z <= 0 or compared.p > _CROWDED_P:
        return None
    return float(calls.waited[own].mean()), float(calls.waited[~own].mean())


def _spread(calls: ServedCalls, wait: float, elsewhere: float, share: float) -> Effect:
    """What the mean wait would be if the calls could go anywhere: at most what the others wait, if there is room."""
    now = float(calls.waited.mean())
    expected = min(now, elsewhere)
    return Effect(
        metric="pool.queue.mean", now=now, expected=expected, low=0.0, high=min(now, max(expected, share * wait))
    )
