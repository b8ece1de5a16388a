"""Checks of a pool as a whole: its state and its circuit breaker."""

from __future__ import annotations

from collections.abc import Iterator

from pool_monitor.findings.finding import Finding
from pool_monitor.findings.limits import Levels
from pool_monitor.snapshot import PoolDetail, Snapshot


def paused(_snapshot: Snapshot, pool: PoolDetail, _levels: Levels) -> Iterator[Finding]:
    """Yield the finding of a paused pool with waiting calls. Without waiting calls, `not_running` covers the pause."""
    if pool.state == "paused" and pool.waiting:
        yield Finding("paused", "bad", pool.name, value=pool.waiting, limit=0, counts={"waiting": pool.waiting})


def not_running(_snapshot: Snapshot, pool: PoolDetail, _levels: Levels) -> Iterator[Finding]:
    if pool.state != "running" and not (pool.state == "paused" and pool.waiting):
        yield Finding("not_running", "warn", pool.name, reason=pool.state)


def breaker_open(_snapshot: Snapshot, pool: PoolDetail, _levels: Levels) -> Iterator[Finding]:
    if pool.breaker == "open":
        yield Finding("breaker_open", "bad", pool.name)


def breaker_half_open(_snapshot: Snapshot, pool: PoolDetail, _levels: Levels) -> Iterator[Finding]:
    if pool.breaker == "half_open":
        yield Finding("breaker_half_open", "warn", pool.name)
