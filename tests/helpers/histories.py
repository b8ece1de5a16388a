"""Histories for patterns, played through a queue: what the journal would hold after such calls."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from heapq import heappop, heappush, heapreplace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pool_monitor.advisor.history import BUCKET_S, OK, SPAN_S, TIMEOUT, Buckets, Calls, PoolHistory, Spans
from pool_monitor.advisor.replay import SizeForecast, needed, replay, what_if

Floats = NDArray[np.float64]
WALL = 1_800_000_000.0


def poisson(
    seed: int, rate: float, service: float, seconds: float, *, cv: float = 1.0, bursts: bool = False
) -> tuple[Floats, Floats]:
    """Arrivals, at random or in bursts of a half and one and a half of *rate*, and lognormal service times."""
    draw = np.random.default_rng(seed)
    if bursts:
        shape = np.repeat(draw.permutation([0.65, 1.35] * math.ceil(seconds / 40)), 20)[: math.ceil(seconds)]
    else:
        shape = np.ones(math.ceil(seconds))
    counts = draw.poisson(rate * shape)
    arrivals = np.sort(np.repeat(np.arange(len(counts)), counts) + draw.random(int(counts.sum())))
    spread = math.log(1 + cv * cv)
    return arrivals, draw.lognormal(math.log(service) - spread / 2, math.sqrt(spread), len(arrivals))


def crowded(arrivals: Floats, services: Floats, size: int, cpus: float, fraction: float = 1.0) -> tuple[Floats, Floats]:
    """Starts and service times where workers share processors: a call that starts while more are wanted than there are
    takes so many times as long.
    """
    free, running = [0.0] * size, list[float]()
    starts, took = np.empty(len(arrivals)), np.empty(len(arrivals))
    for nth, (arrival, service) in enumerate(zip(arrivals.tolist(), services.tolist(), strict=True)):
        start = max(arrival, free[0])
        while running and running[0] <= start:
            heappop(running)
        took[nth] = service * max(1.0, (len(running) + 1) * fraction / cpus)
        starts[nth] = start
        heapreplace(free, start + took[nth])
        heappush(running, start + took[nth])
    return starts, took


def by_worker(arrivals: Floats, services: Floats, factors: Sequence[float]) -> tuple[Floats, Floats, NDArray[np.int32]]:
    """Starts, service times and workers where some workers are slower; a call goes to the one that is idle longest."""
    free = [(0.0, slot) for slot in range(len(factors))]
    rows = []
    for arrival, service in zip(arrivals.tolist(), services.tolist(), strict=True):
        at, slot = free[0]
        start, took = max(arrival, at), service * factors[slot]
        heapreplace(free, (start + took, slot))
        rows.append((start, took, slot))
    starts, took, slots = zip(*rows, strict=True)
    return np.array(starts), np.array(took), np.array(slots, np.int32)


class Played(NamedTuple):
    """A history, and changes to it."""

    history: PoolHistory

    def with_(self, **fields: Any) -> Played:
        """Fields of PoolHistory, and of its buckets."""
        columns = {name: value for name, value in fields.items() if name in Buckets._fields}
        rest = {name: value for name, value in fields.items() if name not in columns}
        rows = len(self.history.buckets.at)
        buckets = self.history.buckets._replace(
            **{name: np.broadcast_to(np.asarray(value, dtype=float), rows).copy() for name, value in columns.items()}
        )
        return Played(self.history._replace(buckets=buckets, **rest))

    def resized_at(self, at: float, size: int) -> Played:
        buckets = self.history.buckets
        return self.with_(size=np.where(buckets.at + BUCKET_S > at, size, buckets.size))

    def delayed(self, seconds: float) -> Played:
        """Every wait longer, for a reason outside the queue."""
        calls = self.history.calls
        return self.with_(calls=calls._replace(started=calls.started + seconds, ended=calls.ended + seconds))

    def forecast(self, sizes: Sequence[int]) -> SizeForecast | None:
        return what_if(self.history, sizes)


def played(
    arrivals: Floats,
    services: Floats,
    size: int,
    *,
    patience: float = math.inf,
    target: float = 0.1,
    until: float | None = None,
    waits: Floats | None = None,
    workers: NDArray[np.int32] | None = None,
    **more: Any,
) -> Played:
    """The history of a pool of *size* that had these calls, first come, first served, or with *waits* and *workers*,
    as it is at *until*: calls that have not ended by then are not there.
    """
    if waits is None:
        waits = replay(arrivals, services, size, patience)
    served = waits < patience
    started = np.where(served, arrivals + waits, math.nan)
    ended = np.where(served, arrivals + waits + services, arrivals + patience)
    now = until or float(math.ceil(float(ended.max()) / BUCKET_S) * BUCKET_S)
    order = np.argsort(ended, kind="stable")
    order = order[ended[order] <= now]
    ints = np.zeros(len(order), np.int32)
    calls = Calls(
        arrivals[order],
        started[order],
        ended[order],
        ints,
        np.where(served, 0 if workers is None else workers, -1).astype(np.int32)[order],
        np.where(served[order], OK, TIMEOUT).astype(np.int32),
        ints - 1,
    )
    history = PoolHistory(
        pool="text",
        now=now,
        wall=WALL + now,
        since=0.0,
        wait_target=target,
        cold_start=2.0,
        low=1,
        high=64,
        settings={"size": float(size)},
        calls=calls,
        buckets=_buckets(calls, size, now, target, arrivals),
        spans=_spans(calls, size, now, target),
        operations=("work",),
        workers=tuple(f"text-{slot}" for slot in range(size)),
        errors=(),
        by_operation={},
        by_worker={},
        incidents=(),
    )
    return Played(history).with_(**more)


def _sums(rows: int, grain: float, times: Floats, weights: Floats | None = None) -> Floats:
    at = np.minimum((times / grain).astype(int), rows - 1)
    return np.bincount(at, weights, rows).astype(float)[:rows]


def _shared(rows: int, grain: float, begin: Floats, end: Floats) -> Floats:
    """Seconds of the intervals in each row."""
    edges = np.arange(rows + 1) * grain
    before = np.array([np.clip(np.minimum(end, edge) - begin, 0, None).sum() for edge in edges])
    return np.diff(before)


def _buckets(calls: Calls, size: int, now: float, target: float, arrivals: Floats) -> Buckets:
    rows = round(now / BUCKET_S)
    served = ~np.isnan(calls.started)
    arrived, started, ended = calls.arrived[served], calls.started[served], calls.ended[served]
    nothing, unknown = np.zeros(rows), np.full(rows, math.nan)
    columns = dict.fromkeys(Buckets._fields, nothing)
    columns |= {
        "at": np.arange(rows) * BUCKET_S,
        "arrivals": _sums(rows, BUCKET_S, arrivals[arrivals < now]),
        "ended": _sums(rows, BUCKET_S, ended),
        "timed_out": _sums(rows, BUCKET_S, calls.ended[~served]),
        "wait_sum": _sums(rows, BUCKET_S, ended, started - arrived),
        "wait_over": _sums(rows, BUCKET_S, ended, (started - arrived > target).astype(float)),
        "service_sum": _sums(rows, BUCKET_S, ended, ended - started),
        "size": np.full(rows, float(size)),
        "ready": np.full(rows, float(size)),
        "busy": _shared(rows, BUCKET_S, started, ended) / BUCKET_S,
        "waiting": _shared(rows, BUCKET_S, arrived, started) / BUCKET_S,
    }
    columns |= dict.fromkeys(
        ("cpu", "lag_p99", "throttled_ratio", "host_cpu_ratio", "host_cpus", "own_cpus", "pressure_cpu"), unknown
    )
    return Buckets(**columns)


def _spans(calls: Calls, size: int, now: float, target: float) -> Spans:
    rows = math.ceil(now / SPAN_S)
    served = ~np.isnan(calls.started)
    arrived, services = calls.arrived[served], (calls.ended - calls.started)[served]
    order = np.argsort(arrived)
    arrived, services = arrived[order], services[order]
    edges = np.searchsorted(arrived, np.arange(rows + 1) * SPAN_S)
    ranges = list(itertools.pairwise(edges.tolist()))
    counts = _sums(rows, SPAN_S, arrived)
    with np.errstate(invalid="ignore"):
        means = _sums(rows, SPAN_S, arrived, services) / counts
    return Spans(
        np.arange(rows) * SPAN_S,
        WALL + np.arange(rows) * SPAN_S,
        counts,
        np.array([float(needed(arrived[a:b], services[a:b], 0.7 * target) or math.nan) for a, b in ranges]),
        np.full(rows, float(size)),
        _sums(rows, SPAN_S, arrived, services) / SPAN_S,
        means,
    )
