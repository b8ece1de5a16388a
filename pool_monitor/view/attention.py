"""What deserves a look, worst first. Pure rules on one Snapshot or Summary; all thresholds are here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

from pool_monitor.snapshot import (
    CRASHED,
    START_FAILED,
    CallStats,
    PoolDetail,
    PoolSummary,
    Snapshot,
    WorkerState,
    WorkerView,
)
from pool_monitor.view import format as fmt
from pool_monitor.view.mode import Mode
from pool_monitor.view.text import clean

Level = Literal["bad", "warn"]


class Limit(NamedTuple):
    """From where on something deserves a look: soon (``warn``), or now (``bad``)."""

    warn: float
    bad: float


LIMITS: dict[Literal["failed", "died", "waiting"], Limit] = {
    "failed": Limit(0.02, 0.10),  # failed calls per call that ended, once `FAILED_MIN` have failed
    "died": Limit(0.0, 2.0),  # deaths per worker wanted, in the window; the first one is worth a look
    "waiting": Limit(0.5, 0.8),  # waiting calls per place in the queue
}
FAILED_MIN = 3
"""Fewer failed calls say nothing, however large their share is."""
SYMBOLS: dict[Level, str] = {"bad": "✖", "warn": "▲"}

NAMES_MAX = 3
"""So many slots are named; of more, the first and how many there are."""


class Notice(NamedTuple):
    level: Level
    text: str


def error_level(stats: CallStats) -> Level | None:
    """How bad the error ratio is; None too when too few calls failed to say."""
    if stats.error_ratio is None or stats.errors < FAILED_MIN:
        return None
    return _level("failed", stats.error_ratio)


def queue_level(pool: PoolDetail) -> Level | None:
    """How bad the queue is. A pool without a queue has no level."""
    return _level("waiting", pool.waiting / pool.queue_limit) if pool.queue_limit else None


def deaths_level(deaths: int, size: float) -> Level | None:
    """How bad it is that so many workers died in a pool of that size."""
    return _level("died", deaths / max(size, 1)) if deaths else None


def _level(of: Literal["failed", "died", "waiting"], value: float) -> Level | None:
    limit = LIMITS[of]
    return "bad" if value >= limit.bad else "warn" if value >= limit.warn else None


def notices(snapshot: Snapshot, pool: PoolDetail | None, mode: Mode) -> list[Notice]:
    """All that deserves a look, worst first; within a level: what makes the rest doubtful, then causes before what
    comes of them.
    """
    found = [*_about_the_view(mode), *_about_the_monitor(snapshot)]
    if pool is not None:
        found += [
            *_about_failing_workers(pool),
            *_about_the_pool(pool),
            *_about_workers(pool),
            *_about_calls(snapshot, pool),
        ]
    return sorted(found, key=lambda notice: notice.level != "bad")


def looking_back(pool: PoolSummary) -> list[Notice]:
    """What deserved a look over a stretch of time, worst first."""
    total, found = pool.total, []
    if level := deaths_level(pool.deaths, pool.size or 0):
        found.append(Notice(level, f"{fmt.plural(pool.deaths, 'worker')} died"))
    if level := error_level(total):
        most = next(iter(pool.by_category), None)
        found.append(Notice(level, f"{_failed(total)}{f', mostly with category {clean(most)}' if most else ''}"))
    if total.rejected:
        found.append(Notice("warn", f"{fmt.plural(total.rejected, 'call')} rejected"))
    return sorted(found, key=lambda notice: notice.level != "bad")


def _failed(total: CallStats) -> str:
    return f"{fmt.ratio(total.error_ratio)} of {fmt.plural(total.calls, 'call')} failed"


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
    silent = [clean(event) for event, weight in monitor.weights.items() if not weight]
    if silent:
        yield Notice("warn", f"filtered out, and counted as nothing: {', '.join(silent)}")
    if monitor.history is not None and monitor.history.degraded is not None:
        yield Notice("warn", f"the history is not written: {clean(monitor.history.degraded)}")


def _about_the_pool(pool: PoolDetail) -> Iterable[Notice]:
    if pool.state != "running":
        yield Notice("warn", f"pool is {pool.state}")
    if pool.breaker == "open":
        yield Notice("bad", "circuit breaker is open: calls are refused")
    elif pool.breaker == "half_open":
        yield Notice("warn", "circuit breaker is half open: a few calls are let through on trial")


def _about_failing_workers(pool: PoolDetail) -> Iterable[Notice]:
    """Slots that get no process to live, with the reason of the latest try: all in one, so that it is always seen."""
    failing = [worker for worker in pool.workers.values() if _fails(worker)]
    if not failing:
        return
    who = clean(failing[0].id) if len(failing) == 1 else fmt.plural(len(failing), "worker")
    unable = [worker for worker in failing if _unable(worker)]
    if unable:
        yield Notice("bad", f"{who} cannot start: {_latest(unable, START_FAILED)}")
        return
    why = _latest(failing, CRASHED, START_FAILED)
    what = "is in a crash loop" if len(failing) == 1 else "in a crash loop"
    yield Notice("bad", f"{who} {what}{f': {why}' if why else ''}")


def _fails(worker: WorkerView) -> bool:
    return worker.crash_loop or _unable(worker)


def _unable(worker: WorkerView) -> bool:
    return worker.state in ("initializing", "terminated") and (worker.last_error or "").startswith(START_FAILED)


def _latest(workers: Iterable[WorkerView], *beginnings: str) -> str:
    """What stands behind one of *beginnings* in the latest error of *workers* that begins so; empty when none does."""
    said = [
        (worker.last_error_age or 0.0, clean(worker.last_error.removeprefix(beginning)))
        for worker in workers
        for beginning in beginnings
        if worker.last_error is not None and worker.last_error.startswith(beginning)
    ]
    return min(said)[1] if said else ""


def _about_workers(pool: PoolDetail) -> Iterable[Notice]:
    wanted: tuple[tuple[WorkerState, str, Level], ...] = (
        ("terminated", "dead", "bad"),
        ("degraded", "degraded, not answering", "warn"),
        ("initializing", "starting", "warn"),
    )
    for state, word, level in wanted:
        slots = [clean(worker.id) for worker in pool.workers.values() if worker.state == state and not _fails(worker)]
        if slots and not (pool.state == "closed" or (pool.state == "starting" and state == "initializing")):
            named = ", ".join(slots) if len(slots) <= NAMES_MAX else f"{slots[0]}, …"
            yield Notice(level, f"{fmt.plural(len(slots), 'worker')} {word}: {named}")
    for worker in pool.workers.values():
        if worker.health == "stuck":
            yield Notice("warn", f"{clean(worker.id)} neither answers nor computes")


def _about_calls(snapshot: Snapshot, pool: PoolDetail) -> Iterable[Notice]:
    total = pool.total
    if level := deaths_level(pool.deaths, pool.size):
        text = f"{fmt.plural(pool.deaths, 'worker')} died in the last {clean(snapshot.window)}"
        yield Notice(level, f"{text}: {clean(pool.last_death)}" if pool.last_death else text)
    if level := error_level(total):
        yield Notice(level, _failed(total))
    if level := queue_level(pool):
        full = " is full" if pool.waiting >= pool.queue_limit else ""
        yield Notice(level, f"queue{full}: {fmt.count(pool.waiting)} of {fmt.count(pool.queue_limit)} places taken")
    if total.rejected:
        yield Notice("warn", f"{fmt.plural(total.rejected, 'call')} rejected in {snapshot.window}")
