"""``overloaded``: the calls wait longer than the target since there are too few workers.

Over a stretch of five windows, three of them and the latest must be over: more than a tenth of their calls waited
longer than the target. The workers must have been as busy as that takes (see `highest_utilisation`), or the replay of
the calls must explain the waits.

It is silent where more workers are not the answer:
- A burst that is over, or shorter than three windows; a pool whose size was changed just now; workers that are missing.
- One slow or stuck worker, or calls that hang until their time-out: without them the size would be enough.
- An event loop that was blocked, a cgroup that is throttled, other processes on the host, or more workers than the
  processors carry already.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pool_monitor.advisor.capacity import cpu_fraction, worker_memory
from pool_monitor.advisor.detection import Detection
from pool_monitor.advisor.extracts import certain, host_cause, latest, mean, rows, say_seconds
from pool_monitor.advisor.history import TIMEOUT, Buckets, Floats, PoolHistory
from pool_monitor.advisor.queueing import highest_utilisation, variability
from pool_monitor.advisor.replay import CallTrace, SizeForecast, forecast, needed, replay, trace_of
from pool_monitor.advisor.statistics import blocks_of, drawn_quantiles, normal_tail
from pool_monitor.resources import wording
from pool_monitor.snapshot.advice import Change, Effect

WINDOWS = 5
OVER = 3
"""So many of the windows must be over, the latest among them."""
WINDOW_S = (120.0, 300.0, 600.0, 1800.0)
"""Seconds of a window: the shortest that has `FEWEST` calls on the average."""
FEWEST = 300
LATE = 0.1
"""A window is over when more than this share of its calls waited longer than the target: twice what is allowed."""
AIM = 0.7
"""The size that is proposed has a p95 of at most this share of the target."""
_READY = 0.9  # of the workers wanted, else some are missing
_ALMOST = 0.85  # of the workers: a load below this is one that they can do
_FULL = 0.98  # of the time: the load may be any
_LATER = 0.8
_TOLERATED = 0.05
_FEW = 30  # calls of a worker from which its speed is known
_HUNG = 4.0  # times the median
_LATELY = 90  # rows of 10 s
_BLOCK_S = 30.0
_SLOW = 1.5
_MOST_CV2 = 25.0
_CALLS = 20_000  # that the size needed is looked for with: a replay takes 4 ms


class _Window(NamedTuple):
    calls: float
    late: float
    """Calls that waited longer than the target, gave up in the queue or were refused."""
    utilisation: float
    whole: bool
    """No worker was missing."""


def overloaded(history: PoolHistory) -> Iterator[Detection]:
    """Find a pool that is too small for its calls."""
    found = _windows(history)
    if found is None:
        return
    seconds, windows = found
    over = [window for window in windows if window.whole and window.late > LATE * window.calls]
    last = windows[-1]
    if len(over) < OVER or last not in over:
        return
    if host_cause(history, seconds * WINDOWS) is not None:
        return
    first = windows.index(over[0])
    trace = trace_of(history, since=history.now - seconds * (WINDOWS - first))
    if trace is None or np.ptp(latest(history.buckets, history.now, seconds).size) > 0:
        return
    told = forecast(trace, [], history.wait_target)
    busy = mean(np.array([window.utilisation for window in over]))
    highest = highest_utilisation(trace.size, told.service, history.wait_target, factor=_factor(trace))
    if not (busy > highest or told.trusted):
        return
    judged = trace.judged
    if _is_over(history, judged, seconds, len(over)) or _enough_without_faults(history, judged):
        return
    proposed = _proposed(history, judged)
    if proposed > trace.size:
        played = forecast(trace, [proposed], history.wait_target)
        yield _told(history, judged, played, proposed, {"utilisation": busy, "highest_utilisation": highest})


def _windows(history: PoolHistory) -> tuple[float, list[_Window]] | None:
    """The latest windows, and the seconds of one; None: there are too few calls, or the history is too short."""
    for seconds in WINDOW_S:
        if history.now - history.since < seconds * WINDOWS:
            return None
        found = latest(history.buckets, history.now, seconds * WINDOWS)
        if float(np.nansum(found.ended) + np.nansum(found.refused)) >= FEWEST * WINDOWS:
            nth = np.minimum((found.at - (history.now - seconds * WINDOWS)) // seconds, WINDOWS - 1)
            gave_up = _gave_up_ratio(history)
            return seconds, [_window(rows(found, nth == window), gave_up) for window in range(WINDOWS)]
    return None


def _window(found: Buckets, gave_up: float) -> _Window:
    lost = float(np.nansum(found.refused)) + gave_up * float(np.nansum(found.timed_out))
    ready, size = mean(found.ready), mean(found.size)
    return _Window(
        float(np.nansum(found.ended)) + lost,
        float(np.nansum(found.wait_over)) + lost,
        mean(found.busy) / ready if ready > 0 else math.nan,
        ready >= _READY * size,
    )


def _gave_up_ratio(history: PoolHistory) -> float:
    """Of the calls that ended with their time-out, the share that had no worker yet. Buckets do not tell."""
    timed_out = history.calls.outcome == TIMEOUT
    return float(np.isnan(history.calls.started[timed_out]).mean()) if timed_out.any() else 0.0


def _factor(trace: CallTrace) -> float:
    spread = float(trace.services.var()) / float(trace.services.mean()) ** 2
    return variability(1.0, min(spread, _MOST_CV2))


def _is_over(history: PoolHistory, trace: CallTrace, seconds: float, count: int) -> bool:
    """Whether the waits are those of a backlog alone: the calls that came in a window would not have waited without it.

    Judged for each window that the calls reach back to: *count* of them, or all, must have had too many calls. Where
    the wait is long, the latest calls have not ended: then it is the number of their arrivals that must be too high.
    """
    end = min(float(trace.arrived[-1]), history.now)
    if end < history.now - seconds / 2:
        came = float(np.nansum(latest(history.buckets, history.now, seconds).arrivals)) / seconds
        if came * float(trace.services.mean()) <= _ALMOST * trace.size:
            return True
    busy: list[bool] = []
    for nth in range(WINDOWS):
        low, high = np.searchsorted(trace.arrived, end + 1e-9 - seconds * np.array([nth + 1.0, nth])).tolist()
        if low == high or (low == 0 and nth):
            break
        waits = replay(trace.arrived[low:high], trace.services[low:high], trace.size)
        busy.append(float(np.mean(waits > history.wait_target)) > _TOLERATED)
    return not busy[0] or sum(busy) < min(count, OVER, len(busy))


def _enough_without_faults(history: PoolHistory, trace: CallTrace) -> bool:
    """Whether the size would do if no call hung until its time-out, and no worker were slower than the others."""
    timed_out = (trace.outcome == TIMEOUT) & (trace.worker >= 0)
    if timed_out.all():
        return False
    usual = float(np.median(trace.services[~timed_out]))
    hung = timed_out & (trace.services > _HUNG * usual)
    without = np.where(hung, usual, trace.services / _slowness(trace, ~timed_out))
    if np.array_equal(without, trace.services):
        return False
    size = needed(trace.arrived[-_CALLS:], without[-_CALLS:], history.wait_target)
    return size is not None and size <= trace.size


def _slowness(trace: CallTrace, counted: NDArray[np.bool_]) -> Floats:
    """For each call, how many times slower its worker is than the median one; 1 where that is less than 1.5 times."""
    logs = np.log(np.maximum(trace.services, 1e-9))
    kept = counted & (trace.worker >= 0)
    calls = np.bincount(trace.worker[kept])
    with np.errstate(invalid="ignore", divide="ignore"):
        levels = np.bincount(trace.worker[kept], logs[kept]) / calls
    known = calls >= _FEW
    if not known.any():
        return np.ones(len(logs))
    slower = np.exp(levels - float(np.median(levels[known])))
    slower = np.where(known & (slower > _SLOW), slower, 1.0)
    return np.append(slower, 1.0)[np.minimum(trace.worker, len(slower))]


def _proposed(history: PoolHistory, trace: CallTrace) -> int:
    """The size for the target, within what memory and processors allow."""
    found = needed(trace.arrived[-_CALLS:], trace.services[-_CALLS:], AIM * history.wait_target)
    size = found if found is not None else 2 * trace.size
    memory, free = worker_memory(history), history.memory_free
    if memory and free is not None:
        size = min(size, trace.size + int(free / memory))
    fraction, cpus = cpu_fraction(history), float(mean(history.buckets.host_cpus[-_LATELY:]))
    if fraction is not None and cpus > 0:
        size = min(size, max(1, int(1.1 * cpus / fraction)))
    return size


def _told(
    history: PoolHistory, trace: CallTrace, played: SizeForecast, proposed: int, figures: dict[str, float]
) -> Detection:
    then, target, seen = played.sizes[proposed], history.wait_target, played.seen
    more = proposed - trace.size
    memory = worker_memory(history)
    late = float(np.mean(trace.waited > target))
    waited = float(trace.waited.sum())
    limit = proposed > history.high
    summary = (
        f"{wording.share(late)} of the calls wait longer than {say_seconds(target)}: p95 wait {say_seconds(seen.value)}"
    )
    if played.trusted:
        summary += f" -> about {say_seconds(then.p95.value)} at {proposed} workers"
        summary += f", +{more} x {wording.size(memory)}" if memory else f", +{more}"
    action = f"raise size from {trace.size} to {proposed}"
    if limit:
        action = f"raise max_size from {history.high} to {proposed}, then size"
    return Detection(
        pattern="overloaded",
        subject=f"pool {history.pool}",
        summary=summary,
        action=action,
        evidence={
            **figures,
            "p95_wait": seen.value,
            "late_ratio": late,
            "wait_ratio": waited / (waited + float(trace.services.sum())),
            "load": figures["utilisation"] * trace.size,
            "size_needed": float(proposed),
        },
        samples=played.calls,
        p=_p(trace, target),
        fidelity=played.fidelity,
        impact=late,
        urgency=1.0 if figures["utilisation"] > _FULL or math.isfinite(trace.patience) else _LATER,
        risk=1,
        samples_min=FEWEST * OVER,
        change=Change(
            knob="max_size" if limit else "size",
            current=float(history.high if limit else trace.size),
            proposed=float(proposed),
        ),
        effect=Effect(
            metric="pool.queue.p95",
            now=seen.value,
            expected=then.p95.value,
            low=then.p95.low,
            high=then.p95.high,
            cost=more * memory if memory else None,
        )
        if played.trusted
        else None,
        check_first="whether what the workers share, such as a database, can take the load of more of them",
    )


def _p(trace: CallTrace, target: float) -> float:
    """The probability of such waits if the p95 were at the target: by blocks, on the logarithm."""
    drawn = np.log(drawn_quantiles(blocks_of(trace.arrived, trace.waited, _BLOCK_S), 0.95) + 0.1 * target)
    spread = max(float(drawn.std()), 1e-3)
    return certain(normal_tail((float(drawn.mean()) - math.log(1.1 * target)) / spread))
