"""The columns of the tables of workers, operations, durations and pools, and the order of their rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from pool_monitor.snapshot import CallStats, Distribution, OperationView, PoolDetail, WorkerState, WorkerView
from pool_monitor.view import chart
from pool_monitor.view import format as fmt
from pool_monitor.view.notices import SYMBOLS, Notice, headline
from pool_monitor.view.table import Column, Row, number
from pool_monitor.view.text import Meaning, Segment, clean, truncate, truncate_middle, truncate_words, width

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
_CANNOT_RUN = frozenset("TtZX")
"""The letters of a process that is stopped or has ended."""
_UNLIMITED = 1000
"""A number of cells that cuts nothing."""


def _state(worker: WorkerView) -> Segment:
    return Segment(*STATES[worker.state])


def _busy_share(worker: WorkerView, cells: int = _PERCENT) -> Segment:
    """Return the busy share in percent, with a bar if there is room for one."""
    share = worker.busy_ratio
    bar = f"{chart.bar(share or 0.0, _BUSY_BAR)} " if cells > _BUSY_BAR + _PERCENT else ""
    return Segment(f"{bar}{fmt.percent(share):>{_PERCENT}}", "dim" if share is None else "data")


def last_error_text(worker: WorkerView, cells: int = _UNLIMITED) -> str:
    """Return a worker's last error and how long ago it occurred, in at most *cells* cells. The error text is cut before
    its age is. Empty: there was no error.
    """
    if worker.last_error is None:
        return ""
    text, ago = clean(worker.last_error), f" {fmt.whole_age(worker.last_error_age or 0.0)}"
    if width(text + ago) + 4 <= cells:
        return f"{text}{ago} ago"
    return truncate(text, cells - len(ago)) + ago


def _last_error(worker: WorkerView, cells: int = _UNLIMITED) -> Segment:
    return Segment(last_error_text(worker, cells), "dim")


def _process_state(worker: WorkerView) -> Segment:
    """Return the letter of the process's state. A process that is stopped or has ended can run no call."""
    letter = worker.state_letter
    if letter is None:
        return Segment(fmt.UNKNOWN, "dim")
    return Segment(clean(letter), "warn" if letter in _CANNOT_RUN else "dim")


_OF_CALLS: tuple[Column[WorkerView], ...] = (
    Column("WORKER", lambda worker: clean(worker.id), 10, "left", grow=6, keep_end=True),
    Column("STATE", _state, 10, "left"),
    Column("OPERATION", lambda worker: clean(worker.operation or ""), 11, "left", grow=9),
    Column("FOR", lambda worker: fmt.age(worker.state_age if worker.call_age is None else worker.call_age), 6),
    Column("CALLS", lambda worker: number(fmt.count(worker.calls)), 5),
    Column("ERR", lambda worker: number(fmt.count(worker.errors)), 5),
    Column("BUSY", _busy_share, _PERCENT, grow=_BUSY_BAR + 1, within=_busy_share),
    Column("p95", lambda worker: number(fmt.percentile(worker.latency.p95, worker.latency.count)), 6),
    Column("RESTARTS", lambda worker: number(fmt.count(worker.restarts)), 8),
)
_CPU: Column[WorkerView] = Column("CPU", lambda worker: number(fmt.percent(worker.cpu_ratio)), 5)
_RSS: Column[WorkerView] = Column("RSS", lambda worker: number(fmt.size(worker.rss)), 6)
_LAST_ERROR: Column[WorkerView] = Column("LAST ERROR", _last_error, 23, "left", grow=27, within=_last_error)
_PID_AND_P99: tuple[Column[WorkerView], ...] = (
    Column("PID", lambda worker: number(fmt.UNKNOWN if worker.pid is None else str(worker.pid)), 8),
    Column("p99", lambda worker: number(fmt.percentile(worker.latency.p99, worker.latency.count)), 6),
)
_OF_PROCESS: tuple[Column[WorkerView], ...] = (
    Column("FDS", lambda worker: number(fmt.count(worker.fds)), 5),
    Column("THREADS", lambda worker: number(fmt.count(worker.threads)), 7),
    Column("USS", lambda worker: number(fmt.size(worker.uss)), 6),
    Column("PS", _process_state, 2),
    Column("CHILDREN", lambda worker: number(fmt.count(worker.children)), 8),
)
_OF_TIMES: tuple[Column[WorkerView], ...] = (
    Column("TIMEOUTS", lambda worker: number(fmt.count(worker.timeouts)), 8),
    Column("AGE", lambda worker: number(fmt.age(worker.age)), 6),
)
WORKERS = (*_OF_CALLS, _CPU, _RSS, _LAST_ERROR, *_PID_AND_P99, *_OF_PROCESS, *_OF_TIMES)
WORKERS_UNMEASURED = (*_OF_CALLS, _LAST_ERROR, _RSS, *_PID_AND_P99, *_OF_TIMES)
"""The columns where no process is measured, such as those of an executor's threads."""


def worker_columns(pool: PoolDetail) -> tuple[Column[WorkerView], ...]:
    """Return the columns of the workers of *pool*: with figures of their processes if any process was measured."""
    return WORKERS if any(map(_measured, pool.workers.values())) else WORKERS_UNMEASURED


def _measured(worker: WorkerView) -> bool:
    return worker.state_letter is not None or worker.cpu_ratio is not None or worker.figures_missing is not None


def call_stats_columns(stats: Callable[[Row], CallStats]) -> tuple[Column[Row], ...]:
    """Return the columns of the `CallStats` that *stats* returns for a row."""

    def percentile(of: str, share: str) -> Callable[[Row], Segment]:
        def show(row: Row) -> Segment:
            spread: Distribution = getattr(stats(row), of)
            return number(fmt.percentile(getattr(spread, share), spread.count))

        return show

    return (
        Column("CALLS", lambda row: number(fmt.count(stats(row).calls)), 6),
        Column("RATE/s", lambda row: number(fmt.rate(stats(row).rate)), 6),
        Column("ERR", lambda row: number(fmt.percent(stats(row).error_ratio)), 5),
        Column("p50", percentile("latency", "p50"), 6),
        Column("p95", percentile("latency", "p95"), 6),
        Column("p99", percentile("latency", "p99"), 6),
        Column("QUEUE p95", percentile("queue", "p95"), 9),
        Column("EXEC p95", percentile("execution", "p95"), 8),
        Column("MAX", lambda row: number(fmt.duration(stats(row).latency.max)), 6),
        Column("TIMEOUTS", lambda row: number(fmt.count(stats(row).timeouts)), 8),
        Column("CANCELLED", lambda row: number(fmt.count(stats(row).cancelled)), 9),
        Column("REJECTED", lambda row: number(fmt.count(stats(row).rejected)), 8),
    )


def _itself(operation: OperationView) -> CallStats:
    return operation


OPERATIONS: tuple[Column[OperationView], ...] = (
    Column("OPERATION", lambda operation: clean(operation.operation), 14, "left", grow=19),
    *call_stats_columns(_itself),
)

DURATIONS: tuple[Column[tuple[str, Distribution]], ...] = (
    Column("DURATION", lambda row: row[0], 10, "left"),
    Column("COUNT", lambda row: fmt.count(row[1].count), 7),
    Column("MEAN", lambda row: fmt.duration(row[1].mean), 7),
    Column("p50", lambda row: fmt.percentile(row[1].p50, row[1].count), 7),
    Column("p90", lambda row: fmt.percentile(row[1].p90, row[1].count), 7),
    Column("p95", lambda row: fmt.percentile(row[1].p95, row[1].count), 7),
    Column("p99", lambda row: fmt.percentile(row[1].p99, row[1].count), 7),
    Column("p99.9", lambda row: fmt.percentile(row[1].p999, row[1].count), 7),
    Column("MAX", lambda row: fmt.duration(row[1].max), 7),
)


def duration_rows(stats: CallStats) -> list[tuple[str, Distribution]]:
    """Return the rows of `DURATIONS`."""
    return [("call", stats.latency), ("queue", stats.queue), ("execution", stats.execution)]


def sorted_workers(pool: PoolDetail) -> list[WorkerView]:
    """Return the workers of *pool*: first those that do not work normally, then those that are busy or ended calls in
    the window, then the others. The start or end of a call does not change the order.
    """
    return sorted(pool.workers.values(), key=_sort_key)


def _sort_key(worker: WorkerView) -> int:
    if worker.state not in ("busy", "ready") or worker.crash_loop or worker.health == "stuck":
        return 0
    return 1 if worker.state == "busy" or worker.calls else 2


class PoolRow(NamedTuple):
    """A pool, and its worst notice."""

    pool: PoolDetail
    worst: Notice | None


def _marked_name(row: PoolRow, cells: int = _UNLIMITED) -> Segment:
    """Return the pool's name after the symbol of its worst notice, which is visible at every width."""
    name = truncate_middle(clean(row.pool.name), cells - 2)
    return Segment(f"  {name}") if row.worst is None else Segment(f"{SYMBOLS[row.worst.level]} {name}", row.worst.level)


def _worst(row: PoolRow, cells: int = _UNLIMITED) -> Segment:
    if row.worst is None:
        return Segment("", "dim")
    return Segment(truncate_words(headline(row.worst), cells), row.worst.level)


POOLS: tuple[Column[PoolRow], ...] = (
    Column("  POOL", _marked_name, 12, "left", grow=14, within=_marked_name),
    Column("STATE", lambda row: row.pool.state, 8, "left"),
    Column("BUSY", lambda row: number(f"{fmt.count(row.pool.busy)}/{fmt.count(row.pool.size)}"), 7),
    Column("QUEUE", lambda row: number(fmt.count(row.pool.waiting)), 5),
    Column("RATE/s", lambda row: number(fmt.rate(row.pool.total.rate)), 6),
    Column("ERR", lambda row: number(fmt.percent(row.pool.total.error_ratio)), 5),
    Column(
        "p95",
        lambda row: number(fmt.percentile(row.pool.total.latency.p95, row.pool.total.latency.count)),
        6,
    ),
    Column("WORST", _worst, 22, "left", grow=_UNLIMITED, within=_worst),
)
"""Several pools at a glance."""


def sorted_operations(pool: PoolDetail) -> list[OperationView]:
    """Return the operations of *pool* by name, ``other`` last. The numbers do not change the order."""
    return sorted(pool.operations.values(), key=lambda view: (view.operation == "other", view.operation))
