"""``error_hotspot``: one worker or one operation fails far more often than the rest of the same work.

Failures come in bursts: a backend that is away for ten seconds fails whatever runs. So failures of one class are not
counted one by one. Two tests, of which one has to be passed with Bonferroni's correction:

- *Incidents*, for rare failures: those of one class within a block of 10 s on the same worker (or operation) are one.
  The incidents have an exact binomial test against the share of the calls. A backend that is away hits many workers at
  once, and each gets one incident (in simulations, 0.5 % of bursty cases without a hotspot are flagged).
- *Excess*, for frequent failures, where each block has an incident everywhere: for each block that has failures, those
  of the worker less those that its share of the calls of the block would get. The sum of the differences is divided by
  the root of the sum of their squares, which allows for bursts of any size (a sandwich estimator, clusters are blocks).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pool_monitor.advisor.detection import Detection
from pool_monitor.advisor.extracts import Mask, ServedCalls, certain, served
from pool_monitor.advisor.history import ERROR, WORKER_LOST, Floats, Ints, PoolHistory
from pool_monitor.advisor.statistics import binomial_above, normal_tail, wilson
from pool_monitor.snapshot.advice import Effect

CALLS_MIN = 500
INCIDENTS_MIN = 3
RATIO_MIN = 2.0
"""How many times higher the share of failures is, at least."""
BLOCK_S = 10.0
STRETCHES_S = (1800.0, 9 * 3600.0)
"""Seconds that are looked at: what began a little ago, and what is rare."""
_P = 1e-3
_BLOCKS_MIN = 30
_EXPOSED_MIN = 20


class _Hotspot(NamedTuple):
    subject: int
    p: float
    incidents: int
    expected: float
    failures: int
    calls: int
    ratio: float


class _Failures(NamedTuple):
    """The calls of a stretch, by worker or by operation."""

    subject: Ints
    block: NDArray[np.int64]
    failed: Mask


def error_hotspot(history: PoolHistory) -> Iterator[Detection]:
    """Yield a detection for each worker or operation that is a hotspot of any class of error, the worst class of each.

    Subjects: ``worker SLOT`` and ``operation NAME``.
    """
    calls = served(history.calls)
    for kind, names in (("worker", history.workers), ("operation", history.operations)):
        best: dict[int, tuple[_Hotspot, str]] = {}
        for seconds in STRETCHES_S:
            within = calls.where(calls.ended >= history.now - seconds)
            if within.total < CALLS_MIN:
                continue
            for error, failed in _classes(history, within):
                found = _hotspots(_Failures(getattr(within, kind), _blocks(within), failed))
                for spot in found:
                    if spot.subject not in best or spot.p < best[spot.subject][0].p:
                        best[spot.subject] = (spot, error)
        for nth, (spot, error) in sorted(best.items()):
            yield _detection(history, "worker" if kind == "worker" else "operation", names[nth], spot, error)


def _blocks(calls: ServedCalls) -> NDArray[np.int64]:
    return np.floor(calls.ended / BLOCK_S).astype(np.int64)


def _classes(history: PoolHistory, calls: ServedCalls) -> Iterator[tuple[str, Mask]]:
    """Yield each class of failures, and which calls failed with it. Time-outs are not among them: see bad_timeout."""
    failed = calls.outcome == ERROR
    for error in np.unique(calls.error[failed]).tolist():
        name = history.errors[error] if 0 <= error < len(history.errors) else "error"
        yield name, failed & (calls.error == error)
    lost = calls.outcome == WORKER_LOST
    if lost.any():
        yield "worker_lost", lost


def _hotspots(found: _Failures) -> list[_Hotspot]:
    total = int(found.failed.sum())
    if total < INCIDENTS_MIN:
        return []
    count = int(found.subject.max()) + 1
    exposed = np.bincount(found.subject, minlength=count)
    subjects = np.flatnonzero(exposed)
    if len(subjects) < 2:
        return []
    incidents = _incidents(found, count)
    failures = np.bincount(found.subject[found.failed], minlength=count)
    differences = _differences(found, count)
    spots = []
    for nth in subjects.tolist():
        calls, rest = int(exposed[nth]), len(found.subject) - int(exposed[nth])
        if incidents[nth] < INCIDENTS_MIN or calls < _EXPOSED_MIN or rest < _EXPOSED_MIN:
            continue
        own, elsewhere = failures[nth] / calls, (total - failures[nth]) / rest
        ratio = own / elsewhere if elsewhere else math.inf
        if ratio < RATIO_MIN:
            continue
        p = _p(int(incidents[nth]), int(incidents.sum()), calls / len(found.subject), differences[:, nth])
        if p <= _P:
            expected = float(incidents.sum()) * calls / len(found.subject)
            spots.append(_Hotspot(nth, p, int(incidents[nth]), expected, int(failures[nth]), calls, ratio))
    return spots


def _p(incidents: int, total: int, share: float, differences: Floats) -> float:
    tests = [binomial_above(incidents, total, share) if incidents >= RATIO_MIN * total * share else 1.0]
    if len(differences) >= _BLOCKS_MIN:
        spread = math.sqrt(float(differences @ differences))
        tests.append(normal_tail(float(differences.sum()) / spread) if spread else 1.0)
    return min(1.0, len(tests) * min(tests))


def _incidents(found: _Failures, count: int) -> NDArray[np.int64]:
    """Incidents by subject: blocks in which it failed. A block right after such a block goes on with the same incident
    only if it is the same burst, which nobody can know: it counts anew.
    """
    cells = np.unique(found.block[found.failed] * count + found.subject[found.failed])
    return np.asarray(np.bincount(cells % count, minlength=count))


def _differences(found: _Failures, count: int) -> Floats:
    """By block that has failures, and subject: failures less those that its share of the calls would get."""
    hit, place = np.unique(found.block[found.failed], return_inverse=True)
    inside = np.isin(found.block, hit)
    rows = np.searchsorted(hit, found.block[inside])
    shape = (len(hit), count)
    calls = np.bincount(rows * count + found.subject[inside], minlength=len(hit) * count).reshape(shape)
    failed = np.bincount(place * count + found.subject[found.failed], minlength=len(hit) * count).reshape(shape)
    expected = failed.sum(axis=1, keepdims=True) * calls / calls.sum(axis=1, keepdims=True)
    return np.asarray(failed - expected)


def _detection(
    history: PoolHistory, kind: Literal["worker", "operation"], name: str, spot: _Hotspot, error: str
) -> Detection:
    share = wilson(spot.failures, spot.calls)
    times = f"{spot.ratio:.3g} times as often as elsewhere" if math.isfinite(spot.ratio) else "and nowhere else"
    where = f"on {name}" if kind == "worker" else f"in {name}"
    failures = len(history.calls.outcome) and int(np.isin(history.calls.outcome, (ERROR, WORKER_LOST)).sum())
    now = failures / max(len(history.calls.outcome), 1)
    spared = min(spot.failures * (1 - 1 / spot.ratio), failures) / max(len(history.calls.outcome), 1)
    return Detection(
        pattern="error_hotspot",
        subject=f"{kind} {name}",
        summary=f"{share.value:.2%} of the calls {where} of pool {history.pool} fail with {error}, {times}"
        f" ({spot.failures} of {spot.calls} calls, {spot.incidents} incidents, {spot.expected:.2g} expected)",
        action=f"recycle {name}; if it goes on, look at where it runs"
        if kind == "worker"
        else f"look at the errors of {name}, and at what it depends on",
        evidence={
            "failed_ratio": share.value,
            "failed_ratio_low": share.low,
            "failed_ratio_high": share.high,
            "ratio": spot.ratio if math.isfinite(spot.ratio) else float(spot.failures),
            "incidents": float(spot.incidents),
            "incidents_expected": spot.expected,
            "failures": float(spot.failures),
            "calls": float(spot.calls),
            "p": certain(spot.p),
        },
        samples=spot.incidents,
        p=certain(spot.p),
        fidelity=1.0,
        impact=min(1.0, max(share.value, spot.failures / max(len(history.calls.outcome), 1))),
        urgency=0.7,
        risk=1,
        samples_min=INCIDENTS_MIN,
        effect=Effect(
            metric="pool.error_ratio",
            now=now,
            expected=max(0.0, now - spared),
            low=0.0,
            high=max(0.0, now - spared * share.low / max(share.value, 1e-9)),
        ),
        check_first="whether the failures are of one kind of argument, and would follow it to another place",
    )
