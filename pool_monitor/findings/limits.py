"""All thresholds, and the levels of the shares that are compared with them.

The level of a share close to its bound would change with every Snapshot. So a pool keeps a level until the share is
well below the bound: `levels` takes the levels of the previous Snapshot.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

from pool_monitor.findings.finding import Level
from pool_monitor.snapshot import CallStats, PoolDetail, Snapshot

Graded = Literal["rejected", "failed", "died", "waiting"]
"""The kinds of findings whose level depends on a share."""
Levels = Mapping[tuple[str, Graded], Level]
"""The level of each share, by pool and kind. A share below its bounds has no entry."""
NO_LEVELS: Levels = MappingProxyType({})


class Limit(NamedTuple):
    """The bounds of a share: from ``warn`` on, look soon; from ``bad`` on, look now."""

    warn: float
    bad: float

    def of(self, level: Level) -> float:
        """Return the bound of *level*."""
        return self.bad if level == "bad" else self.warn


LIMITS: dict[Graded, Limit] = {
    "rejected": Limit(0.0, 0.10),  # refused calls per call offered; the first refusal counts
    "failed": Limit(0.02, 0.10),  # failed calls per call that ended, once `FAILED_MIN` have failed
    "died": Limit(0.0, 2.0),  # deaths in the window per worker wanted; the first death counts
    "waiting": Limit(0.5, 0.8),  # waiting calls per place in the queue
}
KEPT = 0.8
"""A pool keeps a level while the share is at least this fraction of the bound."""
FAILED_MIN = 3
"""With fewer failed (or refused) calls than this, their share is not judged."""
HELD_S = 5.0
"""The bound of ``held``: seconds in which all workers are on calls and no call ends. If a call of the window ended well
after a longer time, that duration is the bound.
"""


def levels(snapshot: Snapshot, before: Levels = NO_LEVELS) -> Levels:
    """Return the levels of the shares of all pools. *before* are the levels of the previous Snapshot."""
    return {
        (pool.name, kind): level
        for pool in snapshot.pools.values()
        for kind, share in _shares(pool).items()
        if (level := level_of(kind, share, before.get((pool.name, kind)))) is not None
    }


def level_of(kind: Graded, share: float | None, before: Level | None = None) -> Level | None:
    """Return the level of one share, whose previous level was *before*. None: no attention needed."""
    if share is None:
        return None
    limit = LIMITS[kind]
    if share >= limit.bad * (KEPT if before == "bad" else 1):
        return "bad"
    return "warn" if share >= limit.warn * (KEPT if before else 1) else None


def rejected_ratio(total: CallStats) -> float | None:
    """Return the share of offered calls that were refused in the window. None: none were."""
    return total.rejected_ratio if total.rejected else None


def rejected_share(total: CallStats) -> float | None:
    """Return `rejected_ratio`, or 0 if too few calls were refused to judge the share."""
    return 0.0 if 0 < total.rejected < FAILED_MIN else rejected_ratio(total)


def failed_share(total: CallStats) -> float | None:
    """Return failed calls per call that ended. None: too few calls failed to judge the share."""
    return total.error_ratio if total.errors >= FAILED_MIN else None


def died_share(deaths: int, size: float) -> float | None:
    """Return deaths per worker wanted. None: there were no deaths."""
    return deaths / max(size, 1) if deaths else None


def waiting_share(pool: PoolDetail) -> float | None:
    """Return waiting calls per place in the queue. None: the queue has no places."""
    return pool.waiting / pool.queue_limit if pool.queue_limit else None


def _shares(pool: PoolDetail) -> dict[Graded, float | None]:
    return {
        "rejected": rejected_share(pool.total),
        "failed": failed_share(pool.total),
        "died": died_share(pool.deaths, pool.size),
        "waiting": waiting_share(pool),
    }
