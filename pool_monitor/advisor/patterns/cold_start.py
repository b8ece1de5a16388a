"""``cold_start``: the pool starts workers over and over, and pays for the starts.

More than 2 % of its worker-seconds go into starts, or the size turns round more than 12 times an hour; at least 20
starts. Starts count that followed the death of a process or a growth of the pool. Those of a deploy, of recycling and
of the beginning of the pool do not. It must go on: a burst that is over is no churn.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from pool_monitor.advisor.detection import Detection
from pool_monitor.advisor.extracts import latest, say_seconds
from pool_monitor.advisor.history import BUCKET_S, Buckets, Floats, PoolHistory
from pool_monitor.resources import wording
from pool_monitor.snapshot.advice import Change, Effect

FEWEST = 20
RATIO = 0.02
REVERSALS = 12.0
"""Turns of the size in an hour."""
STRETCHES = (3_600.0, 4 * 3_600.0, 9 * 3_600.0)
"""Seconds that are looked at: the shortest that has enough starts."""
_STILL = 1 / 8  # of the starts, in the last quarter of the stretch


class _Churn(NamedTuple):
    hours: float
    starts: float
    growth: float
    deaths: float
    ratio: float
    reversals: float
    """Per hour."""
    life: float
    """Mean seconds of a process that ended."""
    start: float
    """Mean seconds of a start."""


def cold_start(history: PoolHistory) -> Iterator[Detection]:
    """Find a pool whose workers live too short for what their start costs."""
    for seconds in STRETCHES:
        rows = latest(history.buckets, history.now, seconds)
        found = _churn(rows)
        if found.starts >= FEWEST:
            break
    else:
        return
    many = found.reversals > REVERSALS and found.growth >= FEWEST
    if not (found.ratio > RATIO or many) or _is_over(rows):
        return
    yield _told(history, rows, found)


def _counted(rows: Buckets) -> tuple[Floats, Floats, Floats]:
    """Growth, shrinking and deaths by row, in workers."""
    size = rows.size[~np.isnan(rows.size)]
    steps = np.diff(size) if len(size) else np.zeros(0)
    return np.clip(steps, 0, None), np.clip(-steps, 0, None), np.nan_to_num(rows.deaths)


def _churn(rows: Buckets) -> _Churn:
    growth, shrinking, deaths = (float(column.sum()) for column in _counted(rows))
    all_starts = float(np.nansum(rows.starts))
    starts = min(all_starts, growth + deaths)
    each = float(np.nansum(rows.start_seconds)) / all_starts if all_starts else 0.0
    alive = float(np.nansum(rows.ready)) * BUCKET_S
    hours = len(rows.at) * BUCKET_S / 3600
    paid, ends = starts * each, deaths + shrinking
    return _Churn(
        hours,
        starts,
        growth,
        deaths,
        paid / (alive + paid) if alive + paid > 0 else 0.0,
        float(np.nansum(rows.reversals)) / hours if hours else 0.0,
        alive / ends if ends else math.inf,
        each,
    )


def _is_over(rows: Buckets) -> bool:
    last = Buckets(*(column[-max(len(column) // 4, 1) :] for column in rows))
    growth, _, deaths = _counted(last)
    all_growth, _, all_deaths = _counted(rows)
    return float(growth.sum() + deaths.sum()) < _STILL * float(all_growth.sum() + all_deaths.sum())


def _told(history: PoolHistory, rows: Buckets, found: _Churn) -> Detection:
    resized = found.growth >= found.deaths
    cause = "the pool grows and shrinks" if resized else "processes end"
    life = f" every {wording.span(found.life)}" if not resized and math.isfinite(found.life) else ""
    summary = (
        f"{found.starts:.0f} starts of {say_seconds(found.start)} in {found.hours:.3g} h cost"
        f" {wording.share(found.ratio)} of the worker-seconds: {cause}{life}"
    )
    change, effect, action = None, None, "find why the processes end, and keep the cause from ending them"
    if resized:
        change, effect = _kept(history, rows, found)
        action = f"keep workers: {change.knob} {change.proposed:.0f}, so that the pool shrinks less"
    evidence = {
        "starts": found.starts,
        "deaths": found.deaths,
        "start_ratio": found.ratio,
        "start_seconds": found.start,
        "reversals_per_hour": found.reversals,
    }
    if math.isfinite(found.life):
        evidence |= {"life": found.life, "lives_in_starts": found.life / found.start if found.start else math.inf}
    return Detection(
        pattern="cold_start",
        subject=f"pool {history.pool}",
        summary=summary,
        action=action,
        evidence=evidence,
        samples=int(found.starts),
        p=0.0,
        fidelity=1.0,
        impact=min(1.0, found.ratio if resized else 2 * found.ratio),
        urgency=0.5,
        risk=1,
        samples_min=FEWEST,
        change=change,
        effect=effect,
        check_first="whether these were deploys, or an operator who tried sizes",
    )


def _kept(history: PoolHistory, rows: Buckets, found: _Churn) -> tuple[Change, Effect]:
    """A floor at the upper quartile of the sizes, and what is left of the starts: the sizes of now, played with it."""
    size = rows.size[~np.isnan(rows.size)]
    floor = math.ceil(float(np.quantile(size, 0.75)))
    left = float(np.clip(np.diff(np.maximum(size, floor)), 0, None).sum()) + found.deaths
    share = min(1.0, left / found.starts)
    spread = 1.96 * math.sqrt(left + 1) / found.starts
    ratios = [found.ratio * max(0.0, min(1.0, part)) for part in (share, share - spread, share + spread)]
    change = Change(knob="min_size", current=float(history.low), proposed=float(floor))
    return change, Effect(metric="pool.start_ratio", now=found.ratio, expected=ratios[0], low=ratios[1], high=ratios[2])
