"""What needs attention, decided from Snapshots alone: pure checks that return findings as values.

Theory of operation: each kind of finding is one check, and one row in a table below. A check takes a Snapshot (or a
part of it) and yields a `Finding` with names and numbers. It has no I/O, no clock and no memory. Only the levels of
shares depend on the previous Snapshot: see `levels`. `pool_monitor.view.notices` puts findings into words.

A new kind needs a check in a file of this folder, a row in a table here, and a row in `WORDS` of
`pool_monitor.view.notices`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Literal

from pool_monitor.findings import calls, monitor, pool, resources, workers
from pool_monitor.findings.finding import Finding, Kind, Level
from pool_monitor.findings.limits import (
    HELD_S,
    LIMITS,
    NO_LEVELS,
    Graded,
    Levels,
    died_share,
    failed_share,
    level_of,
    levels,
    rejected_ratio,
    rejected_share,
)
from pool_monitor.findings.workers import held_seconds
from pool_monitor.snapshot import MonitorView, PoolDetail, PoolSummary, Snapshot

__all__ = [
    "CAUSES",
    "CONDITIONS",
    "DOUBTS",
    "EFFECTS",
    "HELD_S",
    "LIMITS",
    "NO_LEVELS",
    "STRAINS",
    "VALUES",
    "Finding",
    "Graded",
    "Kind",
    "Level",
    "Levels",
    "causes",
    "doubts",
    "effects",
    "held_seconds",
    "levels",
    "of_pool",
    "of_resources",
    "of_summary",
    "rejected_ratio",
    "worst_first",
]

MonitorCheck = Callable[[MonitorView], Iterator[Finding]]
SnapshotCheck = Callable[[Snapshot], Iterator[Finding]]
PoolCheck = Callable[[Snapshot, PoolDetail, Levels], Iterator[Finding]]

DOUBTS: dict[Kind, MonitorCheck] = {
    "collecting_stopped": monitor.collecting_stopped,
    "mode_reduced": monitor.mode_reduced,
    "events_dropped": monitor.events_dropped,
    "handlers_detached": monitor.handlers_detached,
    "events_filtered_out": monitor.events_filtered_out,
    "history_degraded": monitor.history_degraded,
    "part_degraded": monitor.part_degraded,
    "series_overflowed": monitor.series_overflowed,
    "series_near": monitor.series_near,
    "memory_near": monitor.memory_near,
    "history_near": monitor.history_near,
    "history_disk": monitor.history_disk,
    "rules_failing": monitor.rules_failing,
    "rules_late": monitor.rules_late,
    "rules_stale": monitor.rules_stale,
    "state_degraded": monitor.state_degraded,
    "alerts_refused": monitor.alerts_refused,
    "undelivered": monitor.undelivered,
}
"""The checks for what makes all numbers doubtful."""
CAUSES: dict[Kind, PoolCheck] = {
    "paused": pool.paused,
    "not_running": pool.not_running,
    "cannot_start": workers.cannot_start,
    "crash_loop": workers.crash_loop,
    "breaker_open": pool.breaker_open,
    "breaker_half_open": pool.breaker_half_open,
    "held": workers.held,
    "rejected": calls.rejected,
}
"""The checks for what keeps the calls of a pool from running: each cause before its consequences."""
EFFECTS: dict[Kind, PoolCheck] = {
    "dead": workers.dead,
    "degraded": workers.degraded,
    "starting": workers.starting,
    "stuck": workers.stuck,
    "died": workers.died,
    "failed": calls.failed,
    "waiting": calls.waiting,
}
"""The checks for everything else in a pool that needs attention: often a consequence of a finding of `CAUSES`."""
STRAINS: dict[Kind, SnapshotCheck] = {kind: resources.check(kind) for kind in resources.KINDS}
"""The checks for resources that are at their limit, or that a worker misuses."""
CONDITIONS: dict[Kind, MonitorCheck | PoolCheck | SnapshotCheck] = {**DOUBTS, **CAUSES, **EFFECTS, **STRAINS}
"""Every kind of finding, and its check."""
VALUES: dict[Kind, Literal["ratio", "s", "count"]] = {
    **dict.fromkeys(("rejected", "failed", "waiting", "series_near", "memory_near", "history_near"), "ratio"),
    **dict.fromkeys(("history_disk", "memory", "cpu", "throttled", "disk", "shm", "fds", "processes"), "ratio"),
    **dict.fromkeys(("threads", "hot_idle"), "ratio"),
    **dict.fromkeys(("held", "rules_late", "blocked", "lag", "leak", "fd_leak", "zombie"), "s"),
    **dict.fromkeys(("paused", "dead", "died", "degraded", "starting", "events_dropped", "handlers_detached"), "count"),
    **dict.fromkeys(("events_filtered_out", "series_overflowed", "rules_failing", "alerts_refused", "oom"), "count"),
    "undelivered": "count",
}
"""What the value of a finding is: a share, seconds or a count. A kind that is not here has no value, or a plain number.
"""


def doubts(snapshot: Snapshot) -> list[Finding]:
    """Return the findings that make the numbers of *snapshot* doubtful."""
    return [finding for check in DOUBTS.values() for finding in check(snapshot.monitor)]


def causes(snapshot: Snapshot, pool: PoolDetail, levels: Levels) -> list[Finding]:
    """Return the findings that keep calls of *pool* from running."""
    return [finding for check in CAUSES.values() for finding in check(snapshot, pool, levels)]


def effects(snapshot: Snapshot, pool: PoolDetail, levels: Levels) -> list[Finding]:
    """Return the other findings of *pool*."""
    return [finding for check in EFFECTS.values() for finding in check(snapshot, pool, levels)]


def of_resources(snapshot: Snapshot, pool: str | None = None) -> list[Finding]:
    """Return the findings of the resources of *pool*; None: of those that belong to no pool."""
    return [found for check in STRAINS.values() for found in check(snapshot) if found.pool == pool]


def of_pool(snapshot: Snapshot, pool: PoolDetail, levels: Levels) -> list[Finding]:
    """Return all findings of *pool*, worst first."""
    return worst_first(
        [
            *causes(snapshot, pool, levels),
            *effects(snapshot, pool, levels),
            *of_resources(snapshot, pool.name),
        ]
    )


def of_summary(pool: PoolSummary, name: str | None = None) -> list[Finding]:
    """Return all findings of the pool *name* over the time of a Summary, worst first."""
    total, found = pool.total, []
    if level := level_of("rejected", rejected_share(total)):
        found.append(calls.rejections(name, level, total))
    if level := level_of("died", died_share(pool.deaths, pool.size or 0)):
        found.append(workers.deaths(name, level, pool.deaths, pool.size or 0))
    if level := level_of("failed", failed_share(total)):
        by_category = {category: errors.errors for category, errors in pool.by_category.items()}
        found.append(calls.failures(name, level, total)._replace(causes=by_category))
    return worst_first(found)


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """Return *findings* with the level ``bad`` first. Within a level the order is kept."""
    return sorted(findings, key=lambda finding: finding.level != "bad")
