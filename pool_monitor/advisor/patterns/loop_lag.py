"""``loop_lag``: something blocks the event loop of the service, so that calls are neither handed over nor answered.

It is measured, not tested: a sample each 100 ms says by how much the loop was late. What that costs is the part of the
waits that a replay of the same calls through the same number of workers does not explain.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from pool_monitor.advisor.detection import Detection
from pool_monitor.advisor.extracts import BLOCKED_RATIO, latest, say_seconds, served
from pool_monitor.advisor.history import BUCKET_S, Buckets, Floats, PoolHistory
from pool_monitor.advisor.replay import replay
from pool_monitor.snapshot.advice import Effect

STRETCH_S = 300.0
SAMPLES_MIN = 300
LAG_S = 0.05
LAG_SHARE = 0.1
"""Of the median execution time."""
_ROWS_MIN = 6
_REPLAYED_MIN = 300


def loop_lag(history: PoolHistory) -> Iterator[Detection]:
    """Yield a detection if 1 % of the lags of the last five minutes were too long. Subject: ``loop``."""
    recent = latest(history.buckets, history.now, STRETCH_S)
    samples = float(np.nansum(recent.lag_samples))
    if samples < SAMPLES_MIN:
        return
    calls = served(history.calls)
    calls = calls.where(calls.ended >= history.now - STRETCH_S)
    middle = float(np.median(calls.service)) if calls.total else 0.0
    limit = max(LAG_S, LAG_SHARE * middle)
    over, lag, blocked = _measured(recent, limit)
    if over < _ROWS_MIN or (2 * over < len(recent.at) and blocked < BLOCKED_RATIO):
        return
    evidence = {"lag_p99": lag, "limit": limit, "blocked_ratio": blocked, "execution_p50": middle}
    cost = _unexplained(history)
    effect = None
    if cost is not None:
        now, expected, low, high = cost
        evidence |= {"wait_mean": now, "wait_mean_replayed": expected}
        effect = Effect(metric="pool.queue.mean", now=now, expected=expected, low=low, high=high)
    yield Detection(
        pattern="loop_lag",
        subject="loop",
        summary=f"the event loop was late by up to {say_seconds(lag)} in {over * BUCKET_S:.0f} of the last"
        f" {len(recent.at) * BUCKET_S:.0f} s, and blocked for {blocked:.1%} of the time",
        action="find the callback that blocks the loop (the monitor names it as it happens), and move it to a thread",
        evidence=evidence,
        samples=int(samples),
        p=0.0,
        fidelity=1.0,
        impact=min(1.0, max(blocked, 0.05) * 4),
        urgency=0.7,
        risk=1,
        samples_min=SAMPLES_MIN,
        effect=effect,
        check_first="whether the debug mode of asyncio is on, or the machine was suspended",
    )


def _measured(recent: Buckets, limit: float) -> tuple[int, float, float]:
    """Return in how many rows the lag was over *limit*, the median lag of these, and the share of time blocked."""
    lags = np.nan_to_num(recent.lag_p99)
    blocked = np.nan_to_num(recent.blocked)
    over = (lags > limit) | (blocked > limit)
    longest = np.where(lags > limit, lags, np.minimum(blocked, BUCKET_S))
    lag = float(np.median(longest[over])) if over.any() else 0.0
    return int(over.sum()), lag, float(blocked.sum()) / max(len(recent.at) * BUCKET_S, 1.0)


def _unexplained(history: PoolHistory) -> tuple[float, float, float, float] | None:
    """Return the mean wait, and that of a replay with its interval; None: it cannot be replayed."""
    size = history.settings.get("size")
    if size is None or history.one_in > 1 or size < 1:
        return None
    calls = history.calls
    chosen = ~np.isnan(calls.started) & (calls.arrived >= history.now - STRETCH_S)
    if np.count_nonzero(chosen) < _REPLAYED_MIN:
        return None
    order = np.argsort(calls.arrived[chosen], kind="stable")
    arrived, started, ended = (column[chosen][order] for column in (calls.arrived, calls.started, calls.ended))
    waits = replay(arrived, ended - started, int(size))
    now, expected = float((started - arrived).mean()), float(waits.mean())
    if expected >= now:
        return None
    half = 1.96 * _error(arrived, waits)
    return now, expected, max(0.0, expected - half), min(now, expected + half)


def _error(times: Floats, values: Floats) -> float:
    """The standard error of the mean, by blocks of 10 s."""
    block = np.floor((times - times[0]) / BUCKET_S).astype(np.int64)
    counts = np.bincount(block)
    means = np.bincount(block, weights=values)[counts > 0] / counts[counts > 0]
    return float(means.std(ddof=1)) / math.sqrt(len(means)) if len(means) > 1 else float(values.mean())
