"""``error_hotspot``: one worker or one operation fails far more often than the rest of the same work.

Failures come in bursts: a backend that is away for ten seconds fails whatever runs. So failures of one class are not
counted one by one. There are two tests, of which one has to be passed. Both look at the blocks of 10 s with failures:

- *Incidents*, for rare failures: those within a block on the same worker (or operation) are one. They are compared with
  those that its calls in these blocks explain. A backend that is away hits many workers in a block, and each gets one
  incident: such a block says nothing of any of them.
- *Excess*, for frequent failures, where each block has an incident everywhere: for each block, the failures of the
  worker less those that its share of the calls of the block would get. The sum of the differences is divided by the
  root of the sum of their squares, which allows for bursts of any size (a sandwich estimator, clusters are blocks).

A pass makes these tests for each worker and operation, each class of failures and both stretches of time, and a day has
288 passes. So p is multiplied by the number of tests of the workers, or of the operations (Bonferroni's correction). In
simulations of 6 hours, none of 285 runs in which all calls fail alike (0.05 to 2 %, also in bursts) shows a hotspot.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pool_monitor.advisor.detection import Detection
from pool_monitor.advisor.extracts import Mask, ServedCalls, certain, served
from pool_monitor.advisor.gil_pauses import yield_gil
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
_NEWTON = 8
"""Steps of Newton's method: the sum of the expected incidents is right to 2 % then, mostly far better."""


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


class _HitBlocks(NamedTuple):
    """The blocks that have failures. Rows are blocks, columns are subjects."""

    shares: Floats
    """Of the calls of the block."""
    failed: NDArray[np.int64]
    """Failures: where there is one, there is an incident."""


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
            classes = list(_classes(history, within))
            for error, failed in classes:
                failures = _Failures(getattr(within, kind), _blocks(within), failed)
                found = _hotspots(failures, len(STRETCHES_S) * len(classes))
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


def _hotspots(found: _Failures, tests: int) -> list[_Hotspot]:
    """Return the subjects that are hotspots, where each of them is tested *tests* times in a pass."""
    total = int(found.failed.sum())
    if total < INCIDENTS_MIN:
        return []
    count = int(found.subject.max()) + 1
    exposed = np.bincount(found.subject, minlength=count)
    subjects = np.flatnonzero(exposed)
    if len(subjects) < 2:
        return []
    failures = np.bincount(found.subject[found.failed], minlength=count)
    hit = _hit(found, count)
    incidents = np.count_nonzero(hit.failed, axis=0)
    spots, expected = [], None
    for nth in subjects.tolist():
        calls, rest = int(exposed[nth]), len(found.subject) - int(exposed[nth])
        if incidents[nth] < INCIDENTS_MIN or calls < _EXPOSED_MIN or rest < _EXPOSED_MIN:
            continue
        own, elsewhere = failures[nth] / calls, (total - failures[nth]) / rest
        ratio = own / elsewhere if elsewhere else math.inf
        if ratio < RATIO_MIN:
            continue
        expected = _expected(hit) if expected is None else expected
        least = min(_p_incidents(hit, int(incidents[nth]), float(expected[nth])), _p_excess(hit, nth))
        p = min(1.0, 2 * least * tests * len(subjects))
        if p <= _P:
            spots.append(_Hotspot(nth, p, int(incidents[nth]), float(expected[nth]), int(failures[nth]), calls, ratio))
    return spots


def _hit(found: _Failures, count: int) -> _HitBlocks:
    hit, place = np.unique(found.block[found.failed], return_inverse=True)
    inside = np.isin(found.block, hit)
    rows = np.searchsorted(hit, found.block[inside])
    shape = (len(hit), count)
    calls = np.bincount(rows * count + found.subject[inside], minlength=len(hit) * count).reshape(shape)
    failed = np.bincount(place * count + found.subject[found.failed], minlength=len(hit) * count).reshape(shape)
    return _HitBlocks(calls / calls.sum(axis=1, keepdims=True), failed)


def _expected(hit: _HitBlocks) -> Floats:
    """By subject: the incidents that it would have if each block had as many of them as it has, on subjects that are
    drawn by their shares of its calls, one after the other and none twice.

    The first one is drawn with its share. Of several, a subject is among those drawn with ``1 - exp(-t share)``, with
    the *t* that makes the sum right (B. Rosen, "Asymptotic theory for successive sampling with varying probabilities
    without replacement", Annals of Mathematical Statistics 43, 1972). It is found by Newton's method, from below.
    """
    drawn = np.count_nonzero(hit.failed, axis=1)
    several = drawn > 1
    single = hit.shares[~several].sum(axis=0)
    if not several.any():
        return np.asarray(single)
    shares, wanted = hit.shares[several], drawn[several].astype(np.float64)
    everybody = wanted >= np.count_nonzero(shares, axis=1)
    time = wanted.copy()
    for _ in range(_NEWTON):
        yield_gil()
        left = np.exp(-time[:, None] * shares)
        time += (wanted - (1 - left).sum(axis=1)) / np.maximum((left * shares).sum(axis=1), 1e-9)
        time[everybody] = wanted[everybody]
    among = np.where(everybody[:, None], shares > 0, 1 - np.exp(-time[:, None] * shares))
    return np.asarray(single + among.sum(axis=0))


def _p_incidents(hit: _HitBlocks, incidents: int, expected: float) -> float:
    """The probability of so many incidents. The blocks differ in theirs, and for that the binomial with the mean of
    them is an upper bound (W. Hoeffding, "On the distribution of the number of successes in independent trials", Annals
    of Mathematical Statistics 27, 1956).
    """
    if incidents < RATIO_MIN * expected:
        return 1.0
    return binomial_above(incidents, len(hit.failed), expected / len(hit.failed))


def _p_excess(hit: _HitBlocks, subject: int) -> float:
    """The probability of so many failures more than the share of the calls would get. The spread is at least that of
    failures which hit any call of their block: blocks that are all alike, as those of an operation with nearly all
    calls, do not show what the others would get.
    """
    if len(hit.failed) < _BLOCKS_MIN:
        return 1.0
    share, total = hit.shares[:, subject], hit.failed.sum(axis=1)
    differences = hit.failed[:, subject] - total * share
    spread = math.sqrt(max(float(differences @ differences), float(total @ (share * (1 - share)))))
    return normal_tail(float(differences.sum()) / spread) if spread else 1.0


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
