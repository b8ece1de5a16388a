"""The text report of one Snapshot: for pipes, logs, and the end of a run."""

from __future__ import annotations

from msgspec.structs import replace

from pool_monitor.snapshot import CallStats, PoolDetail, Snapshot
from pool_monitor.view import advice_words, columns
from pool_monitor.view import format as fmt
from pool_monitor.view.advice_page import ADVICE_COLUMNS, advice_rows
from pool_monitor.view.alerts_page import alert_columns, alert_rows, evaluation, receiver_lines
from pool_monitor.view.errors_page import ERRORS, group_lines, group_row
from pool_monitor.view.freshness import LIVE
from pool_monitor.view.glyphs import UNICODE, Glyphs
from pool_monitor.view.notices import SYMBOLS, notices
from pool_monitor.view.resources_page import resource_lines
from pool_monitor.view.table import table
from pool_monitor.view.text import Line, Segment, clean, plain

GROUPS_MAX = 10
"""The most error groups of a pool in a report."""
STACK_LINES = 12
"""The most lines of a traceback or stack in a report."""


def report(snapshot: Snapshot, *, width: int = 100, glyphs: Glyphs = UNICODE) -> str:
    """Return totals, percentiles, operations, workers and errors of every pool, and the resources, in lines of at most
    *width* columns.
    """
    service = snapshot.service
    lines = _lines(
        f"{clean(service.name)} pid {service.pid}@{clean(service.host)}, Python {clean(service.python)}, "
        f"up {fmt.age(snapshot.uptime)}"
    )
    if not snapshot.pools:
        lines += _lines("no pool yet")
    for pool in snapshot.pools.values():
        lines += [[], *_pool(snapshot, pool, width)]
    lines += _alerts(snapshot, width)
    lines += _advice(snapshot, width)
    if snapshot.resources.sampled_age is not None:
        lines += [[], *resource_lines(snapshot.resources, snapshot.taken_at, width)]
    monitor = snapshot.monitor
    lines += [
        [],
        *_lines(f"monitor: {fmt.plural(monitor.events, 'event')} received, {fmt.count(monitor.dropped)} dropped"),
    ]
    return plain(glyphs.draw(line) for line in lines)


def _pool(snapshot: Snapshot, pool: PoolDetail, width: int) -> list[Line]:
    total, alone = pool.total, replace(snapshot, pools={pool.name: pool}, alerts=())
    covered = min(snapshot.covered_seconds, snapshot.window_seconds)
    limit = f" of {pool.queue_limit}" if pool.queue_limit else ""
    lines = _lines(
        f"POOL {clean(pool.name)}: {pool.state}, {fmt.plural(pool.size, 'worker')} wanted: {pool.busy} busy, "
        f"{pool.idle} idle, {pool.starting} starting, {pool.draining} draining, {pool.dead} dead",
        f"{pool.waiting} waiting{limit}, {fmt.plural(pool.sessions, 'session')}, "
        f"{fmt.plural(pool.restarts, 'restart')}, {fmt.plural(pool.completed, 'call')} since the start",
        f"last {clean(snapshot.window)}, {fmt.whole_age(covered)} of it measured: {outcomes(total)}",
        outcome_details(total),
    )
    lines += _lines(*(f"{SYMBOLS[notice.level]} {notice.text}" for notice in notices(alone, pool, LIVE)))
    lines += [[], *table(columns.DURATIONS, columns.duration_rows(total), width, 4)]
    operations = columns.sorted_operations(pool)
    if operations:
        lines += [[], *table(columns.OPERATIONS, operations, width, len(operations) + 1)]
    workers = list(pool.workers.values())
    if workers:
        lines += [[], *table(columns.worker_columns(pool), workers, width, len(workers) + 1)]
    return [*lines, *_errors(snapshot, pool, width)]


def _alerts(snapshot: Snapshot, width: int) -> list[Line]:
    """Return what is evaluated, the alerts, and who is told of them."""
    if snapshot.monitor.alerts is None and "alerts" not in snapshot.monitor.degraded:
        return []
    rows = alert_rows(snapshot)
    lines = [[], *_lines(f"ALERTS: {evaluation(snapshot)}")]
    lines += table(alert_columns(snapshot.taken_at), rows, width, len(rows) + 1) if rows else []
    return lines + receiver_lines(snapshot.monitor.alerts, width)


def _advice(snapshot: Snapshot, width: int) -> list[Line]:
    """Return what the tuner does, and what is recommended. Empty where there is nothing of either."""
    tuning = snapshot.tuning
    if not snapshot.recommendations and (tuning is None or not (tuning.pending or tuning.trials)):
        return []
    lines = [[], *_lines(f"ADVICE: {advice_words.tuner_words(tuning, snapshot.taken_at)}")]
    rows = advice_rows(snapshot)
    return lines + table(ADVICE_COLUMNS, rows, width, len(rows) + 1)


def _errors(snapshot: Snapshot, pool: PoolDetail, width: int) -> list[Line]:
    """Return the most frequent error groups: a table, and each of them with its sample."""
    groups, now = pool.error_groups[:GROUPS_MAX], snapshot.taken_at
    if not groups:
        return []
    lines: list[Line] = [[], *table(ERRORS, [group_row(group, now) for group in groups], width, len(groups) + 1)]
    if len(groups) < len(pool.error_groups):
        lines += _lines(f"… {fmt.count(len(pool.error_groups) - len(groups))} more groups")
    for group in groups:
        lines += [[], *group_lines(group, f"the last {clean(snapshot.window)}", now, width, STACK_LINES)]
    return lines


def outcomes(total: CallStats) -> str:
    """Return how many calls ended, and their outcomes, in words."""
    return (
        f"{fmt.plural(total.calls, 'call')}, {fmt.rate(total.rate)}/s; {total.ok} ok, {total.errors} failed "
        f"({fmt.percent(total.error_ratio)}), {total.cancelled} cancelled"
    )


def outcome_details(total: CallStats) -> str:
    """Return the details that `outcomes` leaves out."""
    return (
        f"among the failed: {fmt.plural(total.timeouts, 'timeout')}, {fmt.plural(total.workers_lost, 'lost worker')}; "
        f"beside them: {total.rejected} rejected"
    )


def _lines(*texts: str) -> list[Line]:
    return [[Segment(f" {text}")] for text in texts]
