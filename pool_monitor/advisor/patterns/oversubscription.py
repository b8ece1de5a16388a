"""``oversubscription``: more workers are at work than the processors, or what else they share, can carry.

Such workers are in each other's way: calls take longer the more of them run, and one more worker makes matters worse.

- With the processor time known: workers x processor-seconds per busy second is above the processors, the processors are
  crowded in at least a sixth of the last hour, and calls take longer while they are.
- Without it: calls take longer when more of them run, within the same minutes, and the scalability law has a peak below
  the size (see `fit_scalability`, and its refusal).

The comparison is within minutes and by the time at which calls started. So an operation, or everything, that became
slower for another reason is not taken for it: that makes calls longer at every concurrency. Other processes that use
the processors (``noisy_neighbour``) and a limit of the cgroup (``throttled``) are left to their own patterns.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from pool_monitor.advisor.capacity import cpu_fraction
from pool_monitor.advisor.detection import Detection
from pool_monitor.advisor.extracts import (
    THROTTLED_RATIO,
    certain,
    latest,
    mean,
    median,
    others_cpus,
    say_seconds,
)
from pool_monitor.advisor.history import OK, Buckets, Floats, PoolHistory
from pool_monitor.advisor.queueing import fit_scalability
from pool_monitor.advisor.statistics import Estimate, normal_tail
from pool_monitor.snapshot.advice import Change, Effect

STRETCH_S = 3_600.0
FEWEST = 1_000
"""Calls in the stretch."""
ROWS = 60
"""Rows of 10 s: ten minutes."""
SLOWER = 1.15
"""Calls at a high concurrency take so many times as long as those at a low one."""
Z = 4.0
COHORT = 30
"""Fewest calls of a cohort in a block that is compared."""
BLOCK_S = 60.0
CROWDED = 1 / 6
OVER = 1.1
"""Workers need so many times the processors."""
_OTHERS = 0.15
_SETTLED = 4.0
_FULL = 0.9
_PRESSURE = 0.3
_TRIMMED = 0.2  # of the minutes, at each end
_BLOCKS = 3


class Contention(NamedTuple):
    """How much longer calls take at a high concurrency than at a low one, within the same minutes."""

    ratio: Estimate
    z: float
    calls: int
    concurrency: Floats
    """Calls that ran when each call started, itself among them."""
    service: Floats


def oversubscription(history: PoolHistory) -> Iterator[Detection]:
    """Find a pool that has more workers than what they share can carry."""
    rows = latest(history.buckets, history.now, STRETCH_S)
    if len(rows.at) < ROWS or 3 * np.count_nonzero(rows.throttled_ratio >= THROTTLED_RATIO) > len(rows.at):
        return
    sizes = rows.size[~np.isnan(rows.size)]
    seen = contention(history)
    if seen is None or not len(sizes):
        return
    size = round(float(sizes[-1]))
    slower = seen.ratio.value > SLOWER and seen.z > Z
    cpus = median(rows.host_cpus)
    if cpus > 0 and not np.isnan(rows.own_cpus).all():
        yield from _by_processors(history, rows, seen, size, cpus, slower=slower)
    elif slower:
        yield from _by_law(history, seen, size)


def _by_processors(
    history: PoolHistory, rows: Buckets, seen: Contention, size: int, cpus: float, *, slower: bool
) -> Iterator[Detection]:
    if median(others_cpus(rows)) > _OTHERS * cpus:
        return
    fraction = cpu_fraction(history)
    pressed = mean(rows.pressure_cpu) >= _PRESSURE
    if fraction is not None:
        wanted = rows.busy * fraction
        crowded = float(np.mean(np.nan_to_num(wanted) > cpus))
        shows = slower or float(np.mean(np.nan_to_num(rows.own_cpus) >= _FULL * cpus)) >= CROWDED
    else:  # always crowded: the workers wait for a processor, else they would use more of it
        fraction = 1.0
        crowded = float(np.mean((rows.own_cpus >= _FULL * cpus) & (rows.busy > OVER * cpus)))
        shows = pressed or slower
    if size * fraction <= OVER * cpus or crowded < CROWDED or not shows:
        return
    cap = max(1, int(cpus / fraction + 1e-9))
    if cap >= size:
        return
    high = seen.service[seen.concurrency * fraction > OVER * cpus]
    low = seen.service[seen.concurrency * fraction <= cpus]
    evidence = {
        "cpus": cpus,
        "cpu_fraction": fraction,
        "cpus_wanted": size * fraction,
        "crowded_ratio": crowded,
        "own_cpus": median(rows.own_cpus),
        "pressure_cpu": mean(rows.pressure_cpu),
    }
    text = f"{size} workers x {fraction:.2g} processors are {size * fraction:.3g}, of {cpus:g} that there are"
    yield _told(history, seen, size, cap, evidence, text, _service_at(high, low, seen, cpus / fraction))


def _by_law(history: PoolHistory, seen: Contention, size: int) -> Iterator[Detection]:
    """Throughput by concurrency, from Little's law: so many calls run, each for so long."""
    levels, counts = np.unique(seen.concurrency, return_counts=True)
    kept = levels[counts >= COHORT]
    means = np.array([float(seen.service[seen.concurrency == level].mean()) for level in kept])
    fit = fit_scalability(kept.tolist(), (kept / means).tolist()) if len(kept) else None
    if fit is None or fit.peak >= size / OVER or fit.peak < 1:
        return
    cap = max(1, round(fit.peak))
    high, low = seen.service[seen.concurrency > fit.peak], seen.service[seen.concurrency <= fit.peak]
    evidence = {"peak": fit.peak, "contention": fit.contention, "coherence": fit.coherence, "law_error": fit.error}
    text = f"the throughput of {size} workers is below that of {cap}"
    yield _told(history, seen, size, cap, evidence, text, _service_at(high, low, seen, fit.peak))


def _service_at(high: Floats, low: Floats, seen: Contention, cap: float) -> tuple[float, Estimate] | None:
    """The mean service time when it is crowded, and the one that is expected at the cap; None: it was never crowded.

    Where there are too few calls at a low concurrency, by the law of processors that are shared: ``cap / concurrency``.
    """
    if len(high) < COHORT:
        return None
    now = float(high.mean())
    if len(low) >= COHORT:
        half = 1.96 * float(low.std()) / math.sqrt(len(low)) + 0.1 * float(low.mean())
        return now, Estimate(float(low.mean()), max(float(low.mean()) - half, 0.0), float(low.mean()) + half)
    crowd = float(np.mean(seen.concurrency[seen.concurrency > cap])) / cap
    return now, Estimate(now / crowd, now / crowd**2, now)


def _told(
    history: PoolHistory,
    seen: Contention,
    size: int,
    cap: int,
    figures: dict[str, float],
    text: str,
    service: tuple[float, Estimate] | None,
) -> Detection:
    effect = None
    if service is not None:
        now, then = service
        text += (
            f": a call takes {say_seconds(now)} when it is crowded, about {say_seconds(then.value)} at {cap} workers"
        )
        effect = Effect(metric="pool.execution.mean", now=now, expected=then.value, low=then.low, high=then.high)
    slower = {"slower": seen.ratio.value, "slower_low": seen.ratio.low, "z": seen.z}
    evidence = {name: value for name, value in (figures | slower).items() if not math.isnan(value)}
    limit = cap < history.low
    return Detection(
        pattern="oversubscription",
        subject=f"pool {history.pool}",
        summary=text,
        action=f"lower {'min_size and size' if limit else 'size'} to {cap}, and let calls wait instead of compete",
        evidence=evidence,
        samples=seen.calls,
        p=certain(normal_tail(seen.z)) if seen.z > Z else 0.0,
        fidelity=1.0,
        impact=max(0.0, min(1.0, 1 - cap / size)),
        urgency=0.8,
        risk=2,
        samples_min=FEWEST,
        change=Change(knob="size", current=float(size), proposed=float(cap)),
        effect=effect,
        check_first="whether the calls compute all the time, or wait for what other machines do",
    )


def contention(history: PoolHistory, seconds: float = STRETCH_S) -> Contention | None:
    """Compare calls that started while many ran with those that started while few did; None: too few calls.

    In each minute, the quarters with the highest and the lowest concurrency, on the logarithm of the service times. The
    minutes with the largest and the smallest differences are left out, and the others weighted by what they know.
    """
    calls = history.calls
    had = ~np.isnan(calls.started)
    started, ended, well = calls.started[had], calls.ended[had], calls.outcome[had] == OK
    if not len(started) or np.count_nonzero(well) < FEWEST:
        return None
    order = np.argsort(started, kind="stable")
    started, ended, well = started[order], ended[order], well[order]
    running = np.arange(1, len(started) + 1) - np.searchsorted(np.sort(ended), started, side="right")
    service = ended - started
    settled = _SETTLED * float(service.mean())
    first, last = max(float(ended.min()), history.now - seconds) + settled, float(ended.max()) - settled
    kept = well & (started >= first) & (started <= last) & (service > 0)
    started, service, running = started[kept], service[kept], running[kept]
    if len(started) < FEWEST:
        return None
    edges = np.searchsorted(started, np.arange(started[0], started[-1] + BLOCK_S, BLOCK_S))
    compared = [_compare(running[a:b], np.log(service[a:b])) for a, b in itertools.pairwise(edges.tolist())]
    known = np.array(sorted(pair for pair in compared if pair is not None))
    cut = int(_TRIMMED * len(known))  # a minute in which everything became slower says nothing
    known = known[cut : len(known) - cut]
    if len(known) < _BLOCKS:
        return Contention(Estimate(1.0, 0.0, math.inf), 0.0, len(started), running.astype(float), service)
    weights = 1 / known[:, 1]
    total = float(weights.sum())
    shift, error = float(np.dot(weights, known[:, 0])) / total, 1 / math.sqrt(total)
    ratio = Estimate(*(math.exp(shift + k * error) for k in (0.0, -1.96, 1.96)))
    return Contention(ratio, shift / error, len(started), running.astype(float), service)


def _compare(running: Floats, logs: Floats) -> tuple[float, float] | None:
    """The difference of the means of *logs* and its variance; None: too few calls, or one concurrency."""
    if len(running) < 4 * COHORT:
        return None
    below, above = np.quantile(running, [0.25, 0.75])
    few, many = logs[running <= below], logs[running >= above]
    if above < SLOWER * below or len(few) < COHORT or len(many) < COHORT:
        return None
    variance = float(few.var() / len(few) + many.var() / len(many))
    return (float(many.mean() - few.mean()), variance) if variance > 0 else None
