"""What deserves a look, worst first. Pure rules on one Snapshot; the thresholds are here and nowhere else."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

from pool_monitor.snapshot import CallStats, PoolDetail, Snapshot, WorkerState
from pool_monitor.view import format as fmt
from pool_monitor.view.mode import Mode
from pool_monitor.view.text import clean

Level = Literal["bad", "warn"]
SYMBOLS: dict[Level, str] = {"bad": "✖", "warn": "▲"}

ERRORS_WARN, ERRORS_BAD = 0.05, 0.10
"""Error ratio, over at least `CALLS_MIN` calls."""
CALLS_MIN = 20
QUEUE_WARN, QUEUE_BAD = 0.5, 0.8
"""Waiting calls per place in the queue."""
NAMES_MAX = 3
"""So many slots are named; of more, the first and how many there are."""


class Notice(NamedTuple):
    level: Level
    text: str


def error_level(stats: CallStats) -> Level | None:
    """How bad the error ratio is; None too when too few calls ended to say."""
    if stats.error_ratio is None or stats.calls < CALLS_MIN or stats.error_ratio < ERRORS_WARN:
        return None
    return "bad" if stats.error_ratio >= ERRORS_BAD else "warn"


def queue_level(pool: PoolDetail) -> Level | None:
    """How bad the queue is. A pool without a queue has no level."""
    if not pool.queue_limit or pool.waiting < QUEUE_WARN * pool.queue_limit:
        return None
    return "bad" if pool.waiting >= QUEUE_BAD * pool.queue_limit else "warn"


def notices(snapshot: Snapshot, pool: PoolDetail | None, mode: Mode) -> list[Notice]:
    """All that deserves a look, worst first; within a level: what makes the rest doubtful comes first."""
    found = [*_about_the_view(mode), *_about_the_monitor(snapshot)]
    if pool is not None:
        found += [*_about_the_pool(pool), *_about_workers(pool), *_about_calls(snapshot, pool)]
    return sorted(found, key=lambda notice: notice.level != "bad")


def _about_the_view(mode: Mode) -> Iterable[Notice]:
    if mode.reason:
        yield Notice("bad", f"connection lost: {clean(mode.reason)}")
    elif mode.word == "STALE":
        yield Notice("warn", f"no snapshot for {fmt.whole_age(mode.seconds)}: these numbers are old")


def _about_the_monitor(snapshot: Snapshot) -> Iterable[Notice]:
    monitor = snapshot.monitor
    if not monitor.collecting:
        yield Notice("bad", "monitor stopped collecting: numbers stand still")
    if monitor.dropped:
        yield Notice("warn", f"{fmt.plural(monitor.dropped, 'event')} dropped: counts are lower bounds")
    if monitor.handler_failures:
        yield Notice("warn", f"{fmt.plural(monitor.handler_failures, 'telemetry handler')} failed and detached")


def _about_the_pool(pool: PoolDetail) -> Iterable[Notice]:
    if pool.state != "running":
        yield Notice("warn", f"pool is {pool.state}")
    if pool.breaker == "open":
        yield Notice("bad", "circuit breaker is open: calls are refused")
    elif pool.breaker == "half_open":
        yield Notice("warn", "circuit breaker is half open: a few calls are let through on trial")


def _about_workers(pool: PoolDetail) -> Iterable[Notice]:
    wanted: tuple[tuple[WorkerState, str, Level], ...] = (
        ("terminated", "dead", "bad"),
        ("degraded", "degraded", "warn"),
        ("initializing", "starting", "warn"),
    )
    for state, word, level in wanted:
        slots = [clean(worker.id) for worker in pool.workers.values() if worker.state == state]
        if slots and not (pool.state == "closed" or (pool.state == "starting" and state == "initializing")):
            named = ", ".join(slots) if len(slots) <= NAMES_MAX else f"{slots[0]}, …"
            yield Notice(level, f"{fmt.plural(len(slots), 'worker')} {word}: {named}")
    for worker in pool.workers.values():
        if worker.crash_loop:
            yield Notice("bad", f"{clean(worker.id)} ends again and again, and is started after a pause each time")
        if worker.health == "stuck":
            yield Notice("warn", f"{clean(worker.id)} neither answers nor computes")


def _about_calls(snapshot: Snapshot, pool: PoolDetail) -> Iterable[Notice]:
    total = pool.total
    if level := error_level(total):
        yield Notice(level, f"{fmt.ratio(total.error_ratio)} of {fmt.plural(total.calls, 'call')} failed")
    if level := queue_level(pool):
        full = " is full" if pool.waiting >= pool.queue_limit else ""
        yield Notice(level, f"queue{full}: {fmt.count(pool.waiting)} of {fmt.count(pool.queue_limit)} places taken")
    if total.rejected:
        yield Notice("warn", f"{fmt.plural(total.rejected, 'call')} rejected in {snapshot.window}")
