"""The two tables of the overview: who works, and on what."""

from __future__ import annotations

from pool_monitor.snapshot import OperationView, PoolDetail, WorkerState, WorkerView
from pool_monitor.view import chart
from pool_monitor.view import format as fmt
from pool_monitor.view.table import Column, number
from pool_monitor.view.text import Meaning, Span, clean

STATES: dict[WorkerState, tuple[str, Meaning]] = {
    "busy": ("● busy", "plain"),
    "ready": ("○ idle", "dim"),
    "initializing": ("◐ starting", "warn"),
    "degraded": ("▲ degraded", "warn"),
    "terminating": ("◌ draining", "dim"),
    "terminated": ("✖ dead", "bad"),
}
"""Symbol, word and meaning of every worker state."""

_BUSY_BAR = 6


def _state(worker: WorkerView) -> Span:
    return Span(*STATES[worker.state])


def _busy_share(worker: WorkerView) -> Span:
    share = worker.busy_ratio
    return Span(f"{chart.bar(share or 0.0, _BUSY_BAR)} {fmt.ratio(share):>4}", "dim" if share is None else "data")


def _last_error(worker: WorkerView) -> Span:
    if worker.last_error is None:
        return Span("")
    return Span(f"{clean(worker.last_error)} {fmt.whole_age(worker.last_error_age or 0.0)} ago", "dim")


def _p95(stats: WorkerView | OperationView) -> Span:
    return number(fmt.percentile(stats.latency.p95, stats.latency.count))


WORKERS: tuple[Column[WorkerView], ...] = (
    Column("WORKER", lambda worker: clean(worker.id), 10, "left", grow=6, keep_end=True),
    Column("STATE", _state, 10, "left"),
    Column("OPERATION", lambda worker: clean(worker.operation or ""), 11, "left", grow=9),
    Column("FOR", lambda worker: fmt.age(worker.state_age), 6),
    Column("CALLS", lambda worker: number(fmt.count(worker.calls)), 5),
    Column("ERR", lambda worker: number(fmt.count(worker.errors)), 5),
    Column("BUSY", _busy_share, _BUSY_BAR + 5, "left"),
    Column("p95", _p95, 6),
    Column("LAST ERROR", _last_error, 26, "left", grow=24),
    Column("RESTARTS", lambda worker: number(fmt.count(worker.restarts)), 8),
    Column("PID", lambda worker: number(fmt.UNKNOWN if worker.pid is None else str(worker.pid)), 8),
    Column("p99", lambda worker: number(fmt.percentile(worker.latency.p99, worker.latency.count)), 6),
    Column("TIMEOUTS", lambda worker: number(fmt.count(worker.timeouts)), 8),
    Column("AGE", lambda worker: number(fmt.age(worker.age)), 6),
)

OPERATIONS: tuple[Column[OperationView], ...] = (
    Column("OPERATION", lambda operation: clean(operation.operation), 14, "left", grow=19),
    Column("CALLS", lambda operation: number(fmt.count(operation.calls)), 6),
    Column("RATE/s", lambda operation: number(fmt.rate(operation.rate)), 6),
    Column("ERR", lambda operation: number(fmt.ratio(operation.error_ratio)), 5),
    Column("p50", lambda operation: number(fmt.percentile(operation.latency.p50, operation.latency.count)), 6),
    Column("p95", _p95, 6),
    Column("p99", lambda operation: number(fmt.percentile(operation.latency.p99, operation.latency.count)), 6),
    Column("QUEUE p95", lambda operation: number(fmt.percentile(operation.queue.p95, operation.queue.count)), 9),
    Column("EXEC p95", lambda operation: number(fmt.percentile(operation.execution.p95, operation.execution.count)), 8),
    Column("MAX", lambda operation: number(fmt.duration(operation.latency.max)), 6),
    Column("TIMEOUTS", lambda operation: number(fmt.count(operation.timeouts)), 8),
    Column("CANCELLED", lambda operation: number(fmt.count(operation.cancelled)), 9),
    Column("REJECTED", lambda operation: number(fmt.count(operation.rejected)), 8),
)


def operations(pool: PoolDetail) -> list[OperationView]:
    """The pool's operations by name, ``other`` last: an order that does not change with the numbers."""
    return sorted(pool.operations.values(), key=lambda view: (view.operation == "other", view.operation))
