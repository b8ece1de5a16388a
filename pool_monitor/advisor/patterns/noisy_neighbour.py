"""``noisy_neighbour``: other processes of the host take the processors, and our calls take longer for it.

Told apart from oversubscription by who uses the processors: here it is not the pool. Told apart from a slow operation
by its cause, which is measured: calls take longer while others are busy, and need no more processor time. Rows of 10 s
with busy neighbours are compared with quiet rows by Mann and Whitney's test of their mean execution times. Where there
never was a quiet time, tasks must have waited for a processor for a fifth of the time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from pool_monitor.advisor.detection import Detection
from pool_monitor.advisor.extracts import Mask, certain, latest, mean, median, others_cpus, rows, service_of
from pool_monitor.advisor.history import Buckets, Floats, PoolHistory
from pool_monitor.advisor.statistics import mann_whitney
from pool_monitor.snapshot.advice import Effect

STRETCH_S = 300.0
ROWS_MIN = 6
OTHERS_SHARE = 0.2
"""Of the processors of the host, that others use at least."""
FULL_RATIO, PRESSURE_RATIO, PRESSURE_ALONE_RATIO = 0.7, 0.1, 0.2
SLOWER = 1.1
SAME_WORK = 1.15
"""The processor time of a call may grow by so much: caches are shared."""
_P = 1e-3


def noisy_neighbour(history: PoolHistory) -> Iterator[Detection]:
    """Yield a detection if other processes slow the pool down. Subject: ``host``."""
    recent = latest(history.buckets, history.now, STRETCH_S)
    noisy = rows(recent, _noisy(recent))
    if len(noisy.at) < ROWS_MIN or 2 * len(noisy.at) < len(recent.at):
        return
    all_rows = history.buckets
    with np.errstate(invalid="ignore"):
        quiet = rows(all_rows, ~_noisy(all_rows) & (others_cpus(all_rows) < median(others_cpus(noisy)) / 2))
    compared = _compared(quiet, noisy)
    pressure = mean(noisy.pressure_cpu)
    if compared is None:
        if not pressure >= PRESSURE_ALONE_RATIO:
            return
        p, ratio = 0.0, math.nan
    else:
        p, ratio = compared
        if p > _P or ratio < SLOWER or _work(noisy) > SAME_WORK * _work(quiet):
            return
    others, own = mean(others_cpus(noisy)), mean(noisy.own_cpus)
    evidence = {
        "host_cpu_ratio": mean(noisy.host_cpu_ratio),
        "others_cpus": others,
        "own_cpus": own,
        "host_cpus": mean(noisy.host_cpus),
        "pressure_cpu": pressure,
        "ratio": ratio,
        "p": p,
    }
    now, was = service_of(noisy), service_of(quiet)
    effect = None
    slower = ""
    if math.isfinite(ratio):
        slower = f"; calls take {ratio:.3g} times as long as without them, and need no more processor time"
        effect = Effect(metric="pool.execution.mean", now=now, expected=was, low=0.9 * was, high=min(now, 1.1 * was))
    yield Detection(
        pattern="noisy_neighbour",
        subject="host",
        summary=f"other processes of the host use {others:.2g} of {mean(noisy.host_cpus):.3g} processors, pool"
        f" {history.pool} and its service {own:.2g}{slower}",
        action="move the other processes, or give this service a share of its own (cpu.weight, cpuset)",
        evidence={name: value for name, value in evidence.items() if math.isfinite(value)},
        samples=len(noisy.at),
        p=p,
        fidelity=1.0,
        impact=min(1.0, 1 - 1 / ratio) if ratio > 1 else min(1.0, pressure),
        urgency=0.7,
        risk=2,
        samples_min=ROWS_MIN,
        effect=effect,
        check_first="which processes they are, and whether they are to be there (pool-monitor resources, top)",
    )


def _noisy(buckets: Buckets) -> Mask:
    """In which rows others use much of a busy host."""
    others = others_cpus(buckets)
    with np.errstate(invalid="ignore"):
        busy = (buckets.host_cpu_ratio >= FULL_RATIO) | (buckets.pressure_cpu >= PRESSURE_RATIO)
        return np.asarray(busy & (others >= OTHERS_SHARE * buckets.host_cpus))


def _compared(quiet: Buckets, noisy: Buckets) -> tuple[float, float] | None:
    """Return the p of longer calls in the noisy rows, and how many times longer; None: there are too few quiet rows."""
    before, now = _means(quiet), _means(noisy)
    if min(len(before), len(now)) < ROWS_MIN:
        return None
    test = mann_whitney(before, now)
    ratio = median(now) / median(before) if median(before) > 0 else math.nan
    return (certain(test.p) if test.z > 0 else 1.0), ratio


def _means(buckets: Buckets) -> Floats:
    """The mean execution time of the calls of each row that has some."""
    some = np.nan_to_num(buckets.ended) > 0
    return np.asarray(buckets.service_sum[some] / buckets.ended[some])


def _work(buckets: Buckets) -> float:
    """Processor-seconds of a call; 0: not known, then it is taken to be the same."""
    ended, cpu = float(np.nansum(buckets.ended)), float(np.nansum(buckets.cpu))
    return cpu / ended if ended else 0.0
