"""Histories for patterns in which workers and operations differ: calls are given to the worker that is idle longest."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pool_monitor.advisor.history import (
    BUCKET_S,
    OK,
    TIMEOUT,
    Buckets,
    Calls,
    OperationHistory,
    PoolHistory,
    Spans,
    WorkerHistory,
    service_bounds,
)
from tests.helpers.histories import WALL

Floats = NDArray[np.float64]
NONE = np.zeros(0)


@dataclass(frozen=True)
class Work:
    """A pool and its calls; everything in seconds."""

    seed: int = 1
    rate: float = 10.0
    seconds: float = 1800.0
    size: int = 4
    operations: Mapping[str, tuple[float, float, float]] = field(default_factory=lambda: {"work": (1.0, 0.1, 1.0)})
    """Name -> share, mean execution time and coefficient of variation."""
    slow_workers: Mapping[int, float] = field(default_factory=dict)
    slow_operations: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Name -> factor, and since when."""
    at_times: tuple[tuple[float, float, float], ...] = ()
    """From and until when all calls take how many times as long."""
    long_calls: tuple[float, float, float] = (0.0, 1.0, 0.0)
    """Share of the calls that take longer, how many times as long, and since when."""
    pinned: tuple[int, float] | None = None
    """A worker, and the share of the calls that insist on it."""
    timeout: float | None = None
    hang: float = 0.0
    """Share of the calls that never end."""
    outage: tuple[float, float] | None = None
    """From and until when each call takes a minute."""

    def history(self, **more: object) -> PoolHistory:
        """Play it. The same work is played once."""
        key = repr(self)
        if key not in _PLAYED:
            _PLAYED[key] = _history(self, *_played(self))
        return _PLAYED[key]._replace(**more)


_PLAYED: dict[str, PoolHistory] = {}


def _played(work: Work) -> tuple[Calls, float]:
    draw = np.random.default_rng(work.seed)
    total = int(draw.poisson(work.rate * work.seconds))
    arrived = np.sort(draw.random(total) * work.seconds)
    names = list(work.operations)
    operation = draw.choice(len(names), size=total, p=[share for share, _mean, _cv in work.operations.values()])
    service = np.zeros(total)
    for nth, (_share, mean, cv) in enumerate(work.operations.values()):
        spread = math.log(1 + cv * cv)
        own = operation == nth
        service[own] = draw.lognormal(math.log(mean) - spread / 2, math.sqrt(spread), int(own.sum()))
    for name, (factor, since) in work.slow_operations.items():
        service[(operation == names.index(name)) & (arrived >= since)] *= factor
    for since, until, factor in work.at_times:
        service[(arrived >= since) & (arrived < until)] *= factor
    share, factor, since = work.long_calls
    if share:
        service[(draw.random(total) < share) & (arrived >= since)] *= factor
    service[draw.random(total) < work.hang] = 1e6
    if work.outage:
        service[(arrived >= work.outage[0]) & (arrived < work.outage[1])] += 60.0
    insists = np.full(total, -1)
    if work.pinned:
        insists[draw.random(total) < work.pinned[1]] = work.pinned[0]
    started, ended, worker, outcome = _dispatched(work, arrived, service, insists)
    order = np.argsort(ended, kind="stable")
    columns = (arrived, started, ended, operation, worker, outcome)
    arrived, started, ended, operation, worker, outcome = (column[order] for column in columns)
    ints = [column.astype(np.int32) for column in (operation, worker, outcome)]
    return Calls(arrived, started, ended, *ints, np.full(total, -1, np.int32)), work.seconds


def _dispatched(work: Work, arrived: Floats, service: Floats, insists: NDArray[np.int64]) -> tuple[Floats, ...]:
    """First come, first served, by the worker that is free first: of those that are idle, the one idle longest."""
    free = [0.0] * work.size
    factors = [work.slow_workers.get(slot, 1.0) for slot in range(work.size)]
    patience = work.timeout or math.inf
    rows: list[tuple[float, float, int, int]] = []
    for at, needs, wish in zip(arrived.tolist(), service.tolist(), insists.tolist(), strict=True):
        slot = free.index(min(free)) if wish < 0 else wish
        begin, until = max(at, free[slot]), at + patience
        if begin >= until:
            rows.append((math.nan, until, -1, TIMEOUT))
            continue
        end = begin + needs * factors[slot]
        rows.append((begin, min(end, until), slot, OK if end <= until else TIMEOUT))
        free[slot] = min(end, until)
    started, ended, worker, outcome = (np.array(column) for column in zip(*rows, strict=True))
    return started, ended, worker, outcome


def _history(work: Work, calls: Calls, now: float) -> PoolHistory:
    over = calls.ended <= now
    calls = Calls(*(column[over] for column in calls))
    names = tuple(work.operations)
    had = ~np.isnan(calls.started)
    by_operation = {nth: _operation(work, calls, had & (calls.operation == nth)) for nth in range(len(names))}
    by_worker = {
        slot: WorkerHistory(NONE, NONE, NONE, NONE, NONE, 0.0, NONE, NONE, None, None) for slot in range(work.size)
    }
    return PoolHistory(
        pool="text",
        now=now,
        wall=WALL + now,
        since=0.0,
        wait_target=0.1,
        cold_start=2.0,
        low=1,
        high=64,
        settings={"size": float(work.size)},
        calls=calls,
        buckets=_buckets(work, calls, now),
        spans=Spans(*([NONE] * len(Spans._fields))),
        operations=names,
        workers=tuple(f"text-{slot}" for slot in range(work.size)),
        errors=("ValueError", "ConnectionError"),
        by_operation=by_operation,
        by_worker=by_worker,
        incidents=(),
    )


def _operation(work: Work, calls: Calls, own: NDArray[np.bool_]) -> OperationHistory:
    hour = np.floor(calls.ended[own] / 3600.0)
    service, outcome = (calls.ended - calls.started)[own], calls.outcome[own]
    hours = np.unique(hour)
    classes = len(service_bounds()) + 1
    column = np.searchsorted(service_bounds(), service)
    counts = [np.bincount(column[(hour == at) & (outcome == OK)], minlength=classes) for at in hours]
    timeouts = [float(np.count_nonzero((hour == at) & (outcome == TIMEOUT))) for at in hours]
    known = work.timeout if any(timeouts) else None
    ended, logs, well = calls.ended[own], np.log(np.maximum(service, 1e-7)), outcome == OK
    edges = np.append((hours[:, None] * 3600.0 + np.arange(6) * 600.0).ravel(), math.inf)
    spans, _ = np.histogram(ended[well], edges)
    sums, _ = np.histogram(ended[well], edges, weights=logs[well])
    levels = np.where(spans > 0, sums / np.maximum(spans, 1), math.nan)
    return OperationHistory(
        *(hours * 3600.0, np.array(counts), np.array(timeouts), np.zeros(len(hours)), known),
        *(spans.reshape(-1, 6).astype(float), levels.reshape(-1, 6)),
    )


def _buckets(work: Work, calls: Calls, now: float) -> Buckets:
    rows = int(now / BUCKET_S)
    unknown = np.full(rows, math.nan)
    had = ~np.isnan(calls.started)
    at = np.minimum((calls.ended / BUCKET_S).astype(int), rows - 1)
    columns = dict.fromkeys(Buckets._fields, np.zeros(rows)) | {
        "at": np.arange(rows) * BUCKET_S,
        "ended": np.bincount(at[had], minlength=rows).astype(float),
        "service_sum": np.bincount(at[had], (calls.ended - calls.started)[had], rows),
        "wait_sum": np.bincount(at[had], (calls.started - calls.arrived)[had], rows),
        "size": np.full(rows, float(work.size)),
        "ready": np.full(rows, float(work.size)),
    }
    columns |= dict.fromkeys(
        ("cpu", "lag_p99", "throttled_ratio", "host_cpu_ratio", "host_cpus", "own_cpus", "pressure_cpu"), unknown
    )
    columns["busy"] = columns["service_sum"] / BUCKET_S
    return Buckets(**columns)


def with_memory(history: PoolHistory, memories: Mapping[int, Floats]) -> PoolHistory:
    """The same pool, of whose workers the memory was sampled each 10 s since the beginning."""
    by_worker = dict(history.by_worker)
    for slot, memory in memories.items():
        at = np.arange(1, len(memory) + 1) * 10.0
        by_worker[slot] = by_worker[slot]._replace(rss=memory, rss_at=at)
    return history._replace(by_worker=by_worker)


def memory_of(
    seed: int,
    hours: float,
    *,
    leak: float = 0.0,
    noise: float = 1e6,
    ar: float = 0.0,
    warm_up: tuple[float, float] = (0.0, 1.0),
    saw: tuple[float, float] = (0.0, 1.0),
    step: float = 0.0,
) -> Floats:
    """Samples of a process of 200 MB, each 10 s: *leak* bytes an hour, correlated noise, a warm-up of bytes and time
    constant, a saw-tooth of bytes and period, and a step at half time.
    """
    draw = np.random.default_rng(seed)
    at = np.arange(1, round(hours * 360) + 1) * 10.0
    rough = draw.standard_normal(len(at)) * noise * math.sqrt(1 - ar * ar)
    if ar:
        rough = np.array(list(itertools.accumulate(rough.tolist(), lambda last, new: ar * last + new)))
    found = 200e6 + rough + leak / 3600 * at + warm_up[0] * (1 - np.exp(-at / warm_up[1]))
    found += saw[0] * (((at + draw.random() * saw[1]) % saw[1]) / saw[1])
    return np.asarray(found + step * (at > at[-1] / 2))


def with_errors(
    history: PoolHistory, failing: Callable[[np.random.Generator, Calls], NDArray[np.bool_]]
) -> PoolHistory:
    """The same calls, of which some fail with the error of number 0."""
    calls = history.calls
    failed = failing(np.random.default_rng(5), calls) & (calls.outcome == OK)
    outcome = np.where(failed, 1, calls.outcome).astype(np.int32)
    error = np.where(failed, 0, calls.error).astype(np.int32)
    return history._replace(calls=calls._replace(outcome=outcome, error=error))


def with_rows(history: PoolHistory, **columns: object) -> PoolHistory:
    """Other figures of the host, by the name of the column of `Buckets`."""
    rows = len(history.buckets.at)
    found = {name: np.broadcast_to(np.asarray(value, dtype=float), rows).copy() for name, value in columns.items()}
    return history._replace(buckets=history.buckets._replace(**found))
