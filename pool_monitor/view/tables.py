"""The two tables of the overview: who works, and on what."""

from __future__ import annotations

from pool_monitor.snapshot import OperationView, PoolDetail, WorkerState, WorkerView
from pool_monitor.view import chart
from pool_monitor.view import format as fmt
from pool_monitor.view.table import Column, number
from pool_monitor.view.text import Meaning, Span, clean, cut, width

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
_PERCENT = 5
_MUCH = 1000
"""Cells, where there are as many as wanted."""


def _state(worker: WorkerView) -> Span:
    return Span(*STATES[worker.state])


def _busy_share(worker: WorkerView, cells: int = _PERCENT) -> Span:
    """In percent, and as a bar where there is room for one."""
    share = worker.busy_ratio
    bar = f"{chart.bar(share or 0.0, _BUSY_BAR)} " if cells > _BUSY_BAR + _PERCENT else ""
    return Span(f"{bar}{fmt.ratio(share):>{_PERCENT}}", "dim" if share is None else "data")


def error_in_words(worker: WorkerView, cells: int = _MUCH) -> str:
    """A worker's last error and how long ago that was, in at most *cells* cells: rather less of what it was than
    nothing of when. Empty when there was none.
    """
    if worker.last_error is None:
        return ""
    text, ago = clean(worker.last_error), f" {fmt.whole_age(worker.last_error_age or 0.0)}"
    if width(text + ago) + 4 <= cells:
        return f"{text}{ago} ago"
    return cut(text, cells - len(ago)) + ago


def _last_error(worker: WorkerView, cells: int = _MUCH) -> Span:
    return Span(error_in_words(worker, cells), "dim")


def _p95(stats: WorkerView | OperationView) -> Span:
    return number(fmt.percentile(stats.latency.p95, stats.latency.count))


WORKERS: tuple[Column[WorkerView], ...] = (
    Column("WORKER", lambda worker: clean(worker.id), 10, "left", grow=6, keep_end=True),
    Column("STATE", _state, 10, "left"),
    Column("OPERATION", lambda worker: clean(worker.operation or ""), 11, "left", grow=9),
    Column("FOR", lambda worker: fmt.age(worker.state_age), 6),
    Column("CALLS", lambda worker: number(fmt.count(worker.calls)), 5),
    Column("ERR", lambda worker: number(fmt.count(worker.errors)), 5),
    Column("BUSY", _busy_share, _PERCENT, grow=_BUSY_BAR + 1, within=_busy_share),
    Column("p95", _p95, 6),
    Column("RESTARTS", lambda worker: number(fmt.count(worker.restarts)), 8),
    Column("LAST ERROR", _last_error, 23, "left", grow=27, within=_last_error),
    Column("RSS", lambda worker: number(fmt.size(worker.rss)), 6),
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
