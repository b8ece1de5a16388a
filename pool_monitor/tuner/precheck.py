"""What speaks against a trial before anything is touched: pure functions of a `PoolHistory`."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from pool_monitor.advisor.history import PoolHistory
from pool_monitor.advisor.replay import FIDELITY, what_if
from pool_monitor.tuner.pace import Pace
from pool_monitor.tuner.rules import rule_of
from pool_monitor.tuner.trial import Trial

COMPLETE = 0.95
"""The share of the time before the change that must have been measured."""
CHANGING = 0.25
"""By how much the load may differ between the halves of the time before the change."""


class Objection(NamedTuple):
    """Why a trial may not begin."""

    reason: str
    final: bool
    """Whether it would do harm. False: it may begin when that has passed."""


def objection(history: PoolHistory | None, trial: Trial, pace: Pace) -> Objection | None:
    """Return what speaks against *trial* now; None: nothing does."""
    if history is None:
        return Objection("nothing was measured yet", final=False)
    for check in (_traffic, _complete, _steady, _replayed):
        if found := check(history, trial, pace):
            return found
    return None


def _traffic(history: PoolHistory, trial: Trial, pace: Pace) -> Objection | None:  # noqa: ARG001
    calls = int((history.calls.ended >= history.now - pace.baseline).sum())
    if calls < pace.calls:
        return Objection(f"too little traffic: {calls} calls of {pace.calls} to compare with", final=False)
    return None


def _complete(history: PoolHistory, trial: Trial, pace: Pace) -> Objection | None:  # noqa: ARG001
    rows = history.buckets
    lately = rows.at >= history.now - pace.baseline
    expected = min(pace.baseline, history.now - history.since) / 10 - 1
    measured = int(np.isfinite(rows.arrivals[lately]).sum())
    if expected > 1 and measured < COMPLETE * expected - 1:
        return Objection("figures are missing", final=False)
    return None


def _steady(history: PoolHistory, trial: Trial, pace: Pace) -> Objection | None:
    if trial.protective:
        return None
    rows = history.buckets
    arrivals = rows.arrivals[rows.at >= history.now - pace.baseline]
    arrivals = arrivals[np.isfinite(arrivals)]
    half = len(arrivals) // 2
    if half < 3:
        return None
    one, two = arrivals[:half], arrivals[half:]
    noise = 3 * math.sqrt(float(one.var() / len(one) + two.var() / len(two)))
    difference = abs(float(one.mean() - two.mean()))
    if difference > max(noise, CHANGING * float(arrivals.mean())):
        return Objection("the load is changing", final=False)
    return None


def _replayed(history: PoolHistory, trial: Trial, pace: Pace) -> Objection | None:  # noqa: ARG001
    """Of a size: what a replay of the latest calls says."""
    if rule_of(trial.knob).kind != "size":
        return None
    before, after = round(trial.before), round(trial.after)
    latest = float(history.calls.arrived[-10_000]) if len(history.calls.arrived) > 10_000 else None
    forecast = what_if(history, (after,), latest)
    if forecast is None or after not in forecast.sizes or before not in forecast.sizes:
        return None if trial.protective else Objection("too few calls for a replay", final=False)
    if forecast.fidelity < FIDELITY:
        return Objection(f"a replay does not describe the pool (fidelity {forecast.fidelity:.0%})", final=False)
    now, then = forecast.sizes[before].p95.value, forecast.sizes[after].p95.value
    if after < before and then > 0.7 * history.wait_target:
        return Objection(f"by a replay, 95 % of the calls would wait up to {then:.3g} s", final=True)
    if after > before and then > 0.9 * now:
        return Objection("by a replay, calls would not wait less", final=True)
    return None
