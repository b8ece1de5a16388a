"""What deserves a look, worst first. Pure rules on one Snapshot or Summary; all thresholds are here.

A share that wanders about a bound would change its level with every Snapshot. So a level once reached is kept until
the share is well below its bound: `levels` takes those of the Snapshot before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import takewhile
from types import MappingProxyType
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
Graded = Literal["rejected", "failed", "died", "waiting"]
Levels = Mapping[tuple[str, Graded], Level]
"""By pool and share: how bad it is. What deserves no look is not in it."""
NO_LEVELS: Levels = MappingProxyType({})


class Limit(NamedTuple):
    """From where on something deserves a look: soon (``warn``), or now (``bad``)."""

    warn: float
    bad: float


LIMITS: dict[Graded, Limit] = {
    "rejected": Limit(0.0, 0.10),  # refused calls per call offered; the first one is worth a look
    "failed": Limit(0.02, 0.10),  # failed calls per call that ended, once `FAILED_MIN` have failed
    "died": Limit(0.0, 2.0),  # deaths per worker wanted, in the window; the first one is worth a look
    "waiting": Limit(0.5, 0.8),  # waiting calls per place in the queue
}
KEPT = 0.8
"""A level is kept while the share is at least this part of its bound."""
FAILED_MIN = 3
"""Fewer failed (or refused) calls say nothing, however large their share is."""
HELD_S = 5.0
"""Seconds for which all workers may be on calls of which none ends, where no call that ended well took longer."""
SYMBOLS: dict[Level, str] = {"bad": "✖", "warn": "▲"}

NAMES_MAX = 3
"""So many slots are named; of more, the first and how many there are."""


class Notice(NamedTuple):
    level: Level
    text: str


def levels(snapshot: Snapshot, before: Levels = NO_LEVELS) -> Levels:
    """How bad the shares of all pools are, *before* being those of the Snapshot before this one."""
    return {
        (pool.name, of): level
        for pool in snapshot.pools.values()
        for of, share in _shares(pool).items()
        if (level := _level(of, share, before.get((pool.name, of)))) is not None
    }


def rejected_ratio(total: CallStats) -> float | None:
    """Refused calls per call offered: of those that ended in the window, and those refused in it."""
    return total.rejected / (total.calls + total.rejected) if total.rejected else None


def _shares(pool: PoolDetail) -> dict[Graded, float | None]:
    return {
        "rejected": _rejected_share(pool.total),
        "failed": _failed_share(pool.total),
        "died": _died_share(pool.deaths, pool.size),
        "waiting": pool.waiting / pool.queue_limit if pool.queue_limit else None,
    }


def _rejected_share(total: CallStats) -> float | None:
    return 0.0 if 0 < total.rejected < FAILED_MIN else rejected_ratio(total)


def _failed_share(total: CallStats) -> float | None:
    return total.error_ratio if total.errors >= FAILED_MIN else None


def _died_share(deaths: int, size: float) -> float | None:
    return deaths / max(size, 1) if deaths else None


def _level(of: Graded, share: float | None, before: Level | None = None) -> Level | None:
    if share is None:
        return None
    limit = LIMITS[of]
    if share >= limit.bad * (KEPT if before == "bad" else 1):
        return "bad"
    return "warn" if share >= limit.warn * (KEPT if before else 1) else None


def notices(snapshot: Snapshot, pool: PoolDetail | None, mode: Mode, found: Levels | None = None) -> list[Notice]:
    """All that deserves a look, worst first. *pool* is the one that is looked at; of each other pool in trouble there
    is one notice. *found* are the `levels`, if they are known.

    Within a level: whether there are numbers at all, what keeps calls from being done, the other pools, what makes
    numbers doubtful, and what came of it all. The first sentence of a text says it; what follows goes into detail.
    """
    found = levels(snapshot) if found is None else found
    doubts = list(_about_the_monitor(snapshot))
    if pool is None:
        return _worst_first([*_about_the_view(mode), *doubts])
    others = [other for other in snapshot.pools.values() if other is not pool]
    return _worst_first(
        [
            *_about_the_view(mode),
            *_what_holds_up(snapshot, pool, found),
            *(notice for other in others for notice in _in_short(snapshot, other, found)),
            *doubts,
            *_what_came_of_it(snapshot, pool, found),
        ]
    )


def of_pool(snapshot: Snapshot, pool: PoolDetail, found: Levels) -> list[Notice]:
    """All that deserves a look in one pool, worst first."""
    return _worst_first([*_what_holds_up(snapshot, pool, found), *_what_came_of_it(snapshot, pool, found)])


def in_short(notice: Notice) -> str:
    """The first sentence of a notice."""
    return notice.text.partition("; ")[0]


def _worst_first(found: Iterable[Notice]) -> list[Notice]:
    return sorted(found, key=lambda notice: notice.level != "bad")


def _in_short(snapshot: Snapshot, pool: PoolDetail, found: Levels) -> Iterable[Notice]:
    for notice in of_pool(snapshot, pool, found)[:1]:
        yield Notice(notice.level, f"pool {clean(pool.name)}: {in_short(notice)}")


def _what_holds_up(snapshot: Snapshot, pool: PoolDetail, found: Levels) -> Iterable[Notice]:
    """What keeps calls from being done: causes before what comes of them."""
    yield from _about_the_pool(pool)
    yield from _about_failing_workers(pool)
    yield from _about_the_breaker(pool)
    held = held_for(snapshot, pool)
    if held is not None and held >= max(HELD_S, pool.total.execution.max or 0.0):
        waiting = f"; {_waiting(pool)}" if pool.waiting else ""
        text = f"all {fmt.plural(pool.busy, 'worker')} busy, nothing has ended for {fmt.whole_age(held)}{waiting}"
        yield Notice("bad" if pool.waiting else "warn", text)
    if level := found.get((pool.name, "rejected")):
        yield Notice(level, f"{_rejected(pool.total)}{_since_the_start(pool)}")


def _what_came_of_it(snapshot: Snapshot, pool: PoolDetail, found: Levels) -> Iterable[Notice]:
    yield from _about_workers(pool)
    yield from _about_calls(snapshot, pool, found)


def held_for(snapshot: Snapshot, pool: PoolDetail) -> float | None:
    """For how many seconds every worker has been on a call while none has ended; None where that is not so."""
    ages = [worker.state_age for worker in pool.workers.values() if worker.state == "busy"]
    if pool.state != "running" or not pool.size or pool.busy < pool.size or pool.idle or not ages:
        return None
    trend = pool.trend
    ended = list(zip(trend.ok, trend.errors, strict=False))
    quiet = sum(1 for _step in takewhile(lambda step: step == (0.0, 0.0), reversed(ended))) * trend.step
    return min(*ages, quiet + max(snapshot.taken_at - trend.end, 0.0)) if quiet else None


def looking_back(pool: PoolSummary) -> list[Notice]:
    """What deserved a look over a stretch of time, worst first."""
    total, found = pool.total, []
    if level := _level("died", _died_share(pool.deaths, pool.size or 0)):
        found.append(Notice(level, f"{fmt.plural(pool.deaths, 'worker')} died"))
    if level := _level("failed", _failed_share(total)):
        most = next(iter(pool.by_category), None)
        found.append(Notice(level, f"{_failed(total)}{f', mostly with category {clean(most)}' if most else ''}"))
    if level := _level("rejected", _rejected_share(total)):
        found.insert(0, Notice(level, _rejected(total)))
    return _worst_first(found)


def _failed(total: CallStats) -> str:
    return f"{fmt.ratio(total.error_ratio)} of {fmt.plural(total.calls, 'call')} failed"


def _rejected(total: CallStats) -> str:
    offered = fmt.plural(total.calls + total.rejected, "call")
    return f"{fmt.count(total.rejected)} of {offered} rejected ({fmt.ratio(rejected_ratio(total))})"


def _since_the_start(pool: PoolDetail) -> str:
    reasons = [f"{fmt.count(number)} {clean(reason)}" for reason, number in pool.refusals.items() if number]
    return f"; since the start: {', '.join(reasons)}" if reasons else ""


def _waiting(pool: PoolDetail) -> str:
    return f"{fmt.plural(pool.waiting, 'call')} {'waits' if pool.waiting == 1 else 'wait'}"


def _about_the_view(mode: Mode) -> Iterable[Notice]:
    if mode.reason:
        yield Notice("bad", f"connection lost: {' '.join(clean(mode.reason).split())}")
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
    if pool.state == "paused" and pool.waiting:
        yield Notice("bad", f"pool is paused: {_waiting(pool)}")
    elif pool.state != "running":
        yield Notice("warn", f"pool is {pool.state}")


def _about_the_breaker(pool: PoolDetail) -> Iterable[Notice]:
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


def _about_calls(snapshot: Snapshot, pool: PoolDetail, found: Levels) -> Iterable[Notice]:
    if level := found.get((pool.name, "died")):
        text = f"{fmt.plural(pool.deaths, 'worker')} died in the last {clean(snapshot.window)}"
        how = ": " if pool.deaths == 1 else ", the latest: "  # the others may have died of something else
        yield Notice(level, f"{text}{how}{clean(pool.last_death)}" if pool.last_death else text)
    if level := found.get((pool.name, "failed")):
        yield Notice(level, _failed(pool.total))
    if level := found.get((pool.name, "waiting")):
        full = " is full" if pool.waiting >= pool.queue_limit else ""
        yield Notice(level, f"queue{full}: {fmt.count(pool.waiting)} of {fmt.count(pool.queue_limit)} places taken")
