"""Checks of a pool's calls: the shares of refused, failed and waiting calls."""

from __future__ import annotations

from collections.abc import Iterator

from pool_monitor.findings.finding import Finding, Level
from pool_monitor.findings.limits import LIMITS, Levels, rejected_ratio, waiting_share
from pool_monitor.snapshot import CallStats, PoolDetail, Snapshot


def rejected(snapshot: Snapshot, pool: PoolDetail, levels: Levels) -> Iterator[Finding]:
    """Yield the finding of refused calls in the window. Its causes count all refusals since the pool was entered."""
    if level := levels.get((pool.name, "rejected")):
        found = rejections(pool.name, level, pool.total)
        yield found._replace(causes=pool.refusals, window=snapshot.window)


def rejections(pool: str | None, level: Level, total: CallStats) -> Finding:
    """Return the finding of the refused calls in *total*."""
    limit, counts = LIMITS["rejected"].of(level), {"calls": total.calls, "rejected": total.rejected}
    return Finding("rejected", level, pool, value=rejected_ratio(total), limit=limit, counts=counts)


def failed(snapshot: Snapshot, pool: PoolDetail, levels: Levels) -> Iterator[Finding]:
    """Yield the finding of failed calls in the window."""
    if level := levels.get((pool.name, "failed")):
        yield failures(pool.name, level, pool.total)._replace(window=snapshot.window)


def failures(pool: str | None, level: Level, total: CallStats) -> Finding:
    """Return the finding of the failed calls in *total*."""
    limit, counts = LIMITS["failed"].of(level), {"calls": total.calls, "errors": total.errors}
    return Finding("failed", level, pool, value=total.error_ratio, limit=limit, counts=counts)


def waiting(_snapshot: Snapshot, pool: PoolDetail, levels: Levels) -> Iterator[Finding]:
    """Yield the finding of a queue whose places are taken."""
    if level := levels.get((pool.name, "waiting")):
        limit, counts = LIMITS["waiting"].of(level), {"waiting": pool.waiting, "queue_limit": pool.queue_limit}
        yield Finding("waiting", level, pool.name, value=waiting_share(pool), limit=limit, counts=counts)
