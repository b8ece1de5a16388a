"""From windows to the values of a Snapshot. Rows are added up by operation and by worker in one pass."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from pool_monitor.metrics.block import CHUNK
from pool_monitor.metrics.call_stats import GroupSums, busy_share, call_fields
from pool_monitor.metrics.columns import (
    BUSY,
    DEATHS,
    DISTRIBUTIONS,
    GAUGE_SUMS,
    GAUGES,
    SAMPLES,
    TALLIES,
)
from pool_monitor.metrics.histogram import Ints, bars
from pool_monitor.metrics.series import Grouping, PoolRows
from pool_monitor.metrics.window import Window, Windows
from pool_monitor.snapshot import (
    Bar,
    CallStats,
    ErrorGroup,
    FailureView,
    OperationView,
    PoolDetail,
    PoolView,
    Trend,
    WorkerView,
)

_ROWS_AT_ONCE = 64


class WorkerStats(Struct, frozen=True, kw_only=True):
    """The calls of one slot in a window."""

    calls: CallStats
    busy_seconds: float = 0.0
    """Execution time of the calls that ended in the window, with any outcome."""
    last_error: str | None = None
    last_error_age: float | None = None


class PoolStats(Struct, frozen=True, kw_only=True):
    """The measurements of one pool in one window: every field of a PoolDetail that is not a gauge."""

    covered_seconds: float
    total: CallStats
    histogram: tuple[Bar, ...]
    trend: Trend
    deaths: int
    last_death: str | None
    failures: tuple[FailureView, ...]
    error_groups: tuple[ErrorGroup, ...]
    size: float | None
    """Mean of the samples of the number of workers wanted; None: not sampled yet."""
    operations: dict[str, OperationView]
    """Every operation called within the longest window, by name."""
    workers: dict[str, WorkerStats]
    """Every slot on which calls ended or an error occurred, by id."""


def pool_stats(
    windows: Windows,
    window: Window,
    pool_rows: PoolRows,
    trend: Trend,
    sums: Ints,
    last_death: str | None,
    failures: tuple[FailureView, ...],
    covered_s: float,
    last_errors: dict[str, tuple[str, float]],
    error_groups: tuple[ErrorGroup, ...],
) -> PoolStats:
    """The measurements of one pool in *window*, which covers *covered_s* seconds.

    *sums* are the sums of the pool (`pool_monitor.metrics.columns`). *last_death* is how the last worker that died
    ended. *failures* are the last failures. *last_errors* has the text of the last error and its age in seconds, by
    slot. *error_groups* are those of the window.
    """
    deaths = int(sums[DEATHS])
    operations, workers = pool_rows.operations, pool_rows.workers
    by_operation, by_worker = window_sums(windows, window, pool_rows.rows, operations, workers)
    total = by_operation._replace(
        counts=by_operation.counts.sum(axis=0, keepdims=True, dtype=np.int32),
        tallies=by_operation.tallies.sum(axis=0, keepdims=True),
        maxima=by_operation.maxima.max(axis=0, keepdims=True),
    )
    parts = (total, by_operation, by_worker)
    every = GroupSums(
        counts=np.concatenate([part.counts for part in parts]),
        tallies=np.concatenate([part.tallies for part in parts]),
        maxima=np.concatenate([part.maxima for part in parts]),
        first=total.first,
    )
    fields = call_fields(every, [covered_s] * len(every.tallies))
    of_operation, of_worker = fields[1 : 1 + len(operations.names)], fields[1 + len(operations.names) :]
    used = windows.used()[pool_rows.rows].tolist()
    called = {group for group, is_used in zip(operations.groups, used, strict=True) if is_used}
    busy_ns = by_worker.tallies[:, BUSY].tolist()
    return PoolStats(
        covered_seconds=covered_s,
        total=CallStats(**fields[0]),
        histogram=bars(total.counts[0, 0], total.first),
        trend=trend,
        deaths=deaths,
        last_death=last_death if deaths else None,
        failures=failures,
        error_groups=error_groups,
        size=float(sums[GAUGE_SUMS][GAUGES.index("size")] / sums[SAMPLES]) if sums[SAMPLES] else None,
        operations={
            name: OperationView(operation=name, **values)
            for group, (name, values) in enumerate(zip(operations.names, of_operation, strict=True))
            if group in called
        },
        workers=_with_errors(
            {
                name: WorkerStats(calls=CallStats(**values), busy_seconds=busy / 1e9)
                for name, values, busy in zip(workers.names, of_worker, busy_ns, strict=True)
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
    """Combine the gauges of a pool with its measurements.

    *workers* are the gauges of the present slots. A slot without calls gets empty statistics. Calls of a slot that no
    longer exists count in the pool's totals only.
    """
    workers = list(workers)
    busy_s = {name: worker.busy_seconds for name, worker in stats.workers.items()}
    busy_s |= {worker.id: _busy_seconds(worker, stats) for worker in workers}
    return PoolDetail(
        **msgspec.structs.asdict(status),
        busy_ratio=busy_share(
            busy_s.values(), status.size if stats.size is None else stats.size, stats.covered_seconds
        ),
        total=stats.total,
        histogram=stats.histogram,
        trend=stats.trend,
        deaths=stats.deaths,
        last_death=stats.last_death,
        failures=stats.failures,
        error_groups=stats.error_groups,
        operations=stats.operations,
        workers={worker.id: _measured(worker, stats) for worker in workers},
    )


def _measured(worker: WorkerView, stats: PoolStats) -> WorkerView:
    covered_s = stats.covered_seconds
    measured = stats.workers.get(worker.id) or _without_calls(covered_s)
    return msgspec.structs.replace(
        worker,
        **msgspec.structs.asdict(measured.calls),
        busy_ratio=busy_share([_busy_seconds(worker, stats)], 1, covered_s),
        last_error=measured.last_error,
        last_error_age=measured.last_error_age,
    )


def _busy_seconds(worker: WorkerView, stats: PoolStats) -> float:
    """The seconds that a slot spent executing: the calls that ended and the call under way."""
    measured = stats.workers.get(worker.id)
    ended_s = measured.busy_seconds if measured is not None else 0.0
    if worker.state != "busy":
        return ended_s
    under_way_s = worker.state_age if worker.call_age is None else worker.call_age
    return ended_s + min(under_way_s, stats.covered_seconds)


def window_sums(windows: Windows, window: Window, rows: NDArray[np.intp], *groupings: Grouping) -> list[GroupSums]:
    """The sums of *rows* in *window*, added up by each of *groupings*."""
    store, pages, opened = windows[window], windows.pages, windows.open
    chunk_range = pages.chunk_range(rows)
    tallies = store.running.tallies[rows] + opened.sums.tallies[rows]
    maxima = np.maximum(store.high_water().maxima[rows], opened.high_water.maxima[rows])
    found = [_by_group(tallies, maxima, chunk_range, grouping) for grouping in groupings]
    # A few rows at a time: the histograms of all rows are megabytes, which the system would have to allocate for every
    # Snapshot. And row by row: np.add.at and np.add.reduceat take over ten times as long on wide rows.
    for at in range(0, len(rows), _ROWS_AT_ONCE):
        some = rows[at : at + _ROWS_AT_ONCE]
        dense = pages.dense(store.running.counts, some, chunk_range)
        dense += pages.dense(opened.sums.counts, some, chunk_range)
        for grouping, grouped in zip(groupings, found, strict=True):
            counts = grouped.counts
            for row, group in zip(dense, grouping.groups[at : at + _ROWS_AT_ONCE], strict=True):
                if group >= 0:
                    counts[group] += row
    return found


def _by_group(tallies: Ints, maxima: Ints, chunk_range: slice, grouping: Grouping) -> GroupSums:
    """Sums and maxima of rows per group. The histograms are still empty."""
    groups = np.array(grouping.groups, np.intp)
    grouped = GroupSums(
        counts=np.zeros(
            (len(grouping.names), len(DISTRIBUTIONS), (chunk_range.stop - chunk_range.start) * CHUNK), np.int32
        ),
        tallies=np.zeros((len(grouping.names), TALLIES), np.int64),
        maxima=np.zeros((len(grouping.names), len(DISTRIBUTIONS)), np.int64),
        first=chunk_range.start * CHUNK,
    )
    np.add.at(grouped.tallies, groups[groups >= 0], tallies[groups >= 0])
    np.maximum.at(grouped.maxima, groups[groups >= 0], maxima[groups >= 0])
    return grouped
