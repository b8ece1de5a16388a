"""Checks of a pool's workers: whether they start, answer, stay alive, and end their calls."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import takewhile

from pool_monitor.findings.finding import Finding, Level
from pool_monitor.findings.limits import HELD_S, LIMITS, Levels
from pool_monitor.snapshot import CRASHED, START_FAILED, PoolDetail, Snapshot, WorkerState, WorkerView


def cannot_start(_snapshot: Snapshot, pool: PoolDetail, _levels: Levels) -> Iterator[Finding]:
    """Yield one finding for all failing slots if the process of any slot does not become ready. The reason is that of
    the latest failed start, so that it is always visible.
    """
    unable = [worker for worker in pool.workers.values() if _unable_to_start(worker)]
    if unable:
        reason = _latest_error(unable, START_FAILED)
        yield Finding("cannot_start", "bad", pool.name, _failing(pool), reason=reason)


def crash_loop(_snapshot: Snapshot, pool: PoolDetail, _levels: Levels) -> Iterator[Finding]:
    """Yield one finding for slots in a crash loop. If any slot cannot start, `cannot_start` covers all of them."""
    looping = [worker for worker in pool.workers.values() if worker.crash_loop]
    if looping and not any(_unable_to_start(worker) for worker in pool.workers.values()):
        reason = _latest_error(looping, CRASHED, START_FAILED)
        yield Finding("crash_loop", "bad", pool.name, _failing(pool), reason=reason)


def held(snapshot: Snapshot, pool: PoolDetail, _levels: Levels) -> Iterator[Finding]:
    """Yield the finding of a pool whose workers are all on calls, while no call has ended for `HELD_S` seconds and for
    as long as the longest call of the window that ended well.
    """
    seconds, limit = held_seconds(snapshot, pool), max(HELD_S, pool.total.execution.max or 0.0)
    if seconds is not None and seconds >= limit:
        counts = {"busy": pool.busy, "waiting": pool.waiting}
        yield Finding("held", "bad" if pool.waiting else "warn", pool.name, value=seconds, limit=limit, counts=counts)


def held_seconds(snapshot: Snapshot, pool: PoolDetail) -> float | None:
    """Return for how many seconds every worker has been on a call and no call has ended. None: a worker is free, a
    call has just ended, or the pool is not running.
    """
    ages = [worker.state_age for worker in pool.workers.values() if worker.state == "busy"]
    if pool.state != "running" or not pool.size or pool.busy < pool.size or pool.idle or not ages:
        return None
    trend = pool.trend
    ended = list(zip(trend.ok, trend.errors, strict=False))
    quiet = sum(1 for _step in takewhile(lambda step: step == (0.0, 0.0), reversed(ended))) * trend.step
    return min(*ages, quiet + max(snapshot.taken_at - trend.end, 0.0)) if quiet else None


def dead(_snapshot: Snapshot, pool: PoolDetail, _levels: Levels) -> Iterator[Finding]:
    return _in_state("dead", "bad", pool, "terminated")


def degraded(_snapshot: Snapshot, pool: PoolDetail, _levels: Levels) -> Iterator[Finding]:
    return _in_state("degraded", "warn", pool, "degraded")


def starting(_snapshot: Snapshot, pool: PoolDetail, _levels: Levels) -> Iterator[Finding]:
    """Yield the finding of workers that start while the pool runs. While the pool itself starts, that is normal."""
    if pool.state != "starting":
        yield from _in_state("starting", "warn", pool, "initializing")


def _in_state(kind: str, level: Level, pool: PoolDetail, state: WorkerState) -> Iterator[Finding]:
    """Yield the finding of workers in *state*, except those that `cannot_start` and `crash_loop` cover. A closed pool
    has no finding.
    """
    slots = tuple(worker.id for worker in pool.workers.values() if worker.state == state and not _fails(worker))
    if slots and pool.state != "closed":
        yield Finding(kind, level, pool.name, slots, value=len(slots), limit=0)


def stuck(_snapshot: Snapshot, pool: PoolDetail, _levels: Levels) -> Iterator[Finding]:
    for worker in pool.workers.values():
        if worker.health == "stuck":
            yield Finding("stuck", "warn", pool.name, (worker.id,))


def died(snapshot: Snapshot, pool: PoolDetail, levels: Levels) -> Iterator[Finding]:
    """Yield the finding of worker processes that ended unplanned in the window."""
    if level := levels.get((pool.name, "died")):
        yield deaths(pool.name, level, pool.deaths, pool.size)._replace(reason=pool.last_death, window=snapshot.window)


def deaths(pool: str | None, level: Level, number: int, size: float) -> Finding:
    """Return the finding of *number* deaths in a pool of *size* workers."""
    limit = LIMITS["died"].of(level) * max(size, 1)
    return Finding("died", level, pool, value=number, limit=limit, counts={"deaths": number})


# -- slots without a living process -----------------------------------------------------------------------------------


def _failing(pool: PoolDetail) -> tuple[str, ...]:
    return tuple(worker.id for worker in pool.workers.values() if _fails(worker))


def _fails(worker: WorkerView) -> bool:
    return worker.crash_loop or _unable_to_start(worker)


def _unable_to_start(worker: WorkerView) -> bool:
    return worker.state in ("initializing", "terminated") and (worker.last_error or "").startswith(START_FAILED)


def _latest_error(workers: Iterable[WorkerView], *beginnings: str) -> str | None:
    """Return the latest error of *workers* that starts with one of *beginnings*, without that beginning."""
    errors = [
        (worker.last_error_age or 0.0, worker.last_error.removeprefix(beginning))
        for worker in workers
        for beginning in beginnings
        if worker.last_error is not None and worker.last_error.startswith(beginning)
    ]
    return min(errors)[1] if errors else None
