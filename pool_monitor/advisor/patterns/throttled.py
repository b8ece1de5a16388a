"""``throttled``: the kernel stops the processes of the cgroup, because its quota of processor time is used up.

It is measured, not tested: the share of the scheduling periods (100 ms) in which the cgroup was stopped. Starts of
workers use the quota up for a moment; the rows around them do not count.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from pool_monitor.advisor.detection import Detection
from pool_monitor.advisor.extracts import THROTTLED_RATIO, Mask, mean, median, rows, service_of
from pool_monitor.advisor.history import BUCKET_S, Buckets, PoolHistory
from pool_monitor.snapshot.advice import Change, Effect

STRETCH_S = 300.0
ROWS_MIN = 6
"""Rows of 10 s: 600 periods."""
_SPAWN_ROWS = 3
_BEFORE_ROWS_MIN = 6


def throttled(history: PoolHistory) -> Iterator[Detection]:
    """Yield a detection if the cgroup was throttled for a minute or more of the last five. Subject: ``host``."""
    buckets = history.buckets
    calm = ~_near_starts(buckets)
    recent = rows(buckets, calm & (buckets.at >= history.now - STRETCH_S))
    measured = int((~np.isnan(recent.throttled_ratio)).sum())
    with np.errstate(invalid="ignore"):
        hit = recent.throttled_ratio >= THROTTLED_RATIO
    if measured < ROWS_MIN or np.count_nonzero(hit) < ROWS_MIN or mean(recent.throttled_ratio) < THROTTLED_RATIO:
        return
    ratio = median(recent.throttled_ratio[hit])
    with np.errstate(invalid="ignore"):
        before = rows(buckets, calm & (buckets.throttled_ratio < THROTTLED_RATIO / 2))
    evidence = {"throttled_ratio": ratio, "seconds": np.count_nonzero(hit) * BUCKET_S}
    now, was = service_of(rows(recent, hit)), service_of(before)
    effect = None
    slower = ""
    if len(before.at) >= _BEFORE_ROWS_MIN and now > was > 0:
        evidence |= {"execution_mean": now, "execution_mean_before": was}
        slower = f"; calls take {now / was:.3g} times as long as without"
        effect = Effect(metric="pool.execution.mean", now=now, expected=was, low=was * 0.9, high=(now + was) / 2)
    change, quota = _change(history, recent), ""
    if history.cpu_quota is not None:
        evidence["cpu_quota"] = history.cpu_quota
        quota = f" of {history.cpu_quota:g} processors"
    yield Detection(
        pattern="throttled",
        subject="host",
        summary=f"the cgroup was throttled in {ratio:.0%} of the scheduling periods, for"
        f" {np.count_nonzero(hit) * BUCKET_S:.0f} of the last 300 s{slower}",
        action=f"raise the quota{quota} (cpu.max), or use fewer workers",
        evidence=evidence,
        samples=measured,
        p=0.0,
        fidelity=1.0,
        impact=min(1.0, ratio),
        urgency=0.7,
        risk=2,
        samples_min=ROWS_MIN,
        change=change,
        effect=effect,
        check_first="whether workers have more threads than the quota has processors (OMP_NUM_THREADS)",
    )


def _near_starts(buckets: Buckets) -> Mask:
    """Which rows are at a start of a worker, or up to 30 s after it."""
    hit = np.nan_to_num(buckets.starts) > 0
    near = hit.copy()
    for shift in range(1, _SPAWN_ROWS + 1):
        near[shift:] |= hit[:-shift]
    return np.asarray(near)


def _change(history: PoolHistory, recent: Buckets) -> Change | None:
    """Fewer workers, by the share of the processors above the quota; None: not known, or it would be none."""
    size, own = history.settings.get("size"), mean(recent.own_cpus)
    busy = mean(recent.busy)
    if size is None or history.cpu_quota is None or not own > 0 or not busy > 0:
        return None
    proposed = max(1, history.low, math.floor(history.cpu_quota / (own / busy)))
    return Change(knob="size", current=size, proposed=float(proposed)) if proposed < size else None
