"""From windows to the values of a Snapshot: rows are added up per operation and per worker, all at once."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any, NamedTuple

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from pool_monitor.metrics.fold import BUSY, DISTRIBUTIONS, OUTCOMES, SUMS
from pool_monitor.metrics.histogram import BUCKETS, Floats, Ints, bars, quantiles
from pool_monitor.metrics.series import Grouping, Layout
from pool_monitor.metrics.window import WindowStore
from pool_monitor.snapshot import Bar, CallStats, Distribution, OperationView, PoolDetail, PoolView, Trend, WorkerView

_SHARES = (0.5, 0.9, 0.95, 0.99, 0.999)
_EMPTY = Distribution()


class WorkerStats(Struct, frozen=True, kw_only=True):
    """One slot's calls in the window."""

    calls: CallStats
    busy_seconds: float = 0.0
    """Time spent executing by the calls that ended in the window, however they ended."""
    last_error: str | None = None
    last_error_age: float | None = None


class PoolStats(Struct, frozen=True, kw_only=True):
    """What was measured of one pool in one window: all of a PoolDetail that is not a gauge."""

    covered_seconds: float
    total: CallStats
    histogram: tuple[Bar, ...]
    trend: Trend
    deaths: int
    last_death: str | None
    operations: dict[str, OperationView]
    """Every operation called within the longest window, by name."""
    workers: dict[str, WorkerStats]
    """Every slot that calls ended on or that something went wrong on, by id."""


class _Sums(NamedTuple):
    """Rows added up into groups: the first axis of each."""

    counts: Ints
    tallies: Ints
    maxima: Ints


def pool_stats(
    store: WindowStore,
    layout: Layout,
    known: NDArray[np.bool_],
    trend: Trend,
    deaths: int,
    last_death: str | None,
    covered_s: float,
    last_errors: dict[str, tuple[str, float]],
) -> PoolStats:
    """One pool in the window of *store*, which covers *covered_s* seconds.

    *known* says of every row whether its operation is worth naming, *deaths* how many workers died in the window, and
    *last_death* of what the last one did. *last_errors* has the text and the age in seconds of what last went wrong,
    by slot.
    """
    by_operation, by_worker = (_added_up(store, grouping) for grouping in (layout.operations, layout.workers))
    total = _Sums(
        counts=by_operation.counts.sum(axis=0, keepdims=True),
        tallies=by_operation.tallies.sum(axis=0, keepdims=True),
        maxima=by_operation.maxima.max(axis=0, keepdims=True),
    )
    parts = (total, by_operation, by_worker)
    fields = _call_fields(
        _Sums(
            counts=np.concatenate([part.counts for part in parts]),
            tallies=np.concatenate([part.tallies for part in parts]),
            maxima=np.concatenate([part.maxima for part in parts]),
        ),
        covered_s,
    )
    operations, workers = layout.operations.names, layout.workers.names
    of_operation, of_worker = fields[1 : 1 + len(operations)], fields[1 + len(operations) :]
    named = np.logical_or.reduceat(known[layout.operations.rows], layout.operations.starts)
    busy_ns = by_worker.tallies[:, BUSY].tolist()
    return PoolStats(
        covered_seconds=covered_s,
        total=CallStats(**fields[0]),
        histogram=bars(total.counts[0, 0]),
        trend=trend,
        deaths=deaths,
        last_death=last_death if deaths else None,
        operations={
            name: OperationView(operation=name, **values)
            for name, values, wanted in zip(operations, of_operation, named.tolist(), strict=True)
            if wanted
        },
        workers=_with_errors(
            {
                name: WorkerStats(calls=CallStats(**values), busy_seconds=busy / 1e9)
                for name, values, busy in zip(workers, of_worker, busy_ns, strict=True)
            },
            last_errors,
            covered_s,
        ),
    )


def _with_errors(
    workers: dict[str, WorkerStats], last_errors: dict[str, tuple[str, float]], covered_s: float
) -> dict[str, WorkerStats]:
    for name, (text, age_s) in last_errors.items():
        worker = workers.get(name) or _without_calls(covered_s)
        workers[name] = msgspec.structs.replace(worker, last_error=text, last_error_age=age_s)
    return workers


def _without_calls(covered_s: float) -> WorkerStats:
    return WorkerStats(calls=CallStats(rate=0.0 if covered_s else None))


def detail(status: PoolView, workers: Iterable[WorkerView], stats: PoolStats) -> PoolDetail:
    """A pool's gauges and what was measured of it, in one.

    *workers* are the slots there are, with their gauges: a slot without calls gets empty statistics, and calls of a
    slot that is gone stay in the pool's totals only.
    """
    return PoolDetail(
        **msgspec.structs.asdict(status),
        total=stats.total,
        histogram=stats.histogram,
        trend=stats.trend,
        deaths=stats.deaths,
        last_death=stats.last_death,
        operations=stats.operations,
        workers={worker.id: _measured(worker, stats) for worker in workers},
    )


def _measured(worker: WorkerView, stats: PoolStats) -> WorkerView:
    covered_s = stats.covered_seconds
    measured = stats.workers.get(worker.id) or _without_calls(covered_s)
    under_way_s = min(worker.state_age, covered_s) if worker.state == "busy" else 0.0
    return msgspec.structs.replace(
        worker,
        **msgspec.structs.asdict(measured.calls),
        busy_ratio=min((measured.busy_seconds + under_way_s) / covered_s, 1.0) if covered_s else None,
        last_error=measured.last_error,
        last_error_age=measured.last_error_age,
    )


def _added_up(store: WindowStore, grouping: Grouping) -> _Sums:
    """The rows of *store* per group."""
    rows, starts = grouping.rows, grouping.starts
    histograms = store.running.reshape(-1, len(DISTRIBUTIONS) * BUCKETS)[rows]
    counts = np.empty((len(starts), histograms.shape[1]), np.int32)
    # A loop, because np.add.reduceat takes over ten times as long on wide rows.
    for group, (begin, end) in enumerate(pairwise([*starts.tolist(), len(rows)])):
        np.add.reduce(histograms[begin:end], axis=0, dtype=np.int32, out=counts[group])
    return _Sums(
        counts=counts.reshape(-1, len(DISTRIBUTIONS), BUCKETS),
        tallies=np.add.reduceat(store.tallies[rows], starts),
        maxima=np.maximum.reduceat(store.maxima()[rows], starts),
    )


def _call_fields(sums: _Sums, covered_s: float) -> list[dict[str, Any]]:
    """The fields of a CallStats for each group."""
    outcomes = sums.tallies[:, : len(OUTCOMES)].tolist()
    return [
        {**_outcome_fields(*counts, covered_s=covered_s), **dict(zip(DISTRIBUTIONS, distributions, strict=True))}
        for counts, distributions in zip(outcomes, _distributions(sums), strict=True)
    ]


def _outcome_fields(
    ok: int, error: int, timeout: int, worker_lost: int, cancelled: int, rejected: int, *, covered_s: float
) -> dict[str, Any]:
    errors = error + timeout + worker_lost
    calls = ok + errors + cancelled
    return {
        "calls": calls,
        "ok": ok,
        "errors": errors,
        "timeouts": timeout,
        "workers_lost": worker_lost,
        "cancelled": cancelled,
        "rejected": rejected,
        "error_ratio": errors / calls if calls else None,
        "rate": calls / covered_s if covered_s else None,
    }


def _distributions(sums: _Sums) -> list[list[Distribution]]:
    """Latency, queue and execution of each group."""
    used = np.flatnonzero(sums.counts.any(axis=(0, 1)))
    first, last = (int(used[0]), int(used[-1])) if len(used) else (0, 0)
    counts = sums.counts[..., first : last + 1]
    sizes = counts.sum(axis=-1)
    maxima_s = sums.maxima / 1e9
    means_s = sums.tallies[:, SUMS] / np.maximum(sizes, 1) / 1e9
    # An estimate may lie above the longest duration there was; that one is known exactly.
    percentiles_s: Floats = np.minimum(quantiles(counts, _SHARES, first), maxima_s[..., None])
    return [
        [_distribution(*values) for values in zip(*group, strict=True)]
        for group in zip(sizes.tolist(), means_s.tolist(), maxima_s.tolist(), percentiles_s.tolist(), strict=True)
    ]


def _distribution(count: int, mean: float, longest: float, percentiles: list[float]) -> Distribution:
    if not count:
        return _EMPTY
    p50, p90, p95, p99, p999 = percentiles
    return Distribution(count=count, mean=mean, max=longest, p50=p50, p90=p90, p95=p95, p99=p99, p999=p999)
