"""Thresholds, and the levels of the shares that are compared with them. All thresholds are here.

A share close to its bound would change its level with every Snapshot. So a pool keeps a level until the share is well
below the bound: `levels` takes the levels of the Snapshot before.
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
"""The level of each share, by pool and kind. A share below its bounds is not in it."""
NO_LEVELS: Levels = MappingProxyType({})


class Limit(NamedTuple):
    """The bounds of a share: from ``warn`` on it deserves a look soon, from ``bad`` on a look now."""

    warn: float
    bad: float

    def of(self, level: Level) -> float:
        """The bound of that level."""
        return self.bad if level == "bad" else self.warn


LIMITS: dict[Graded, Limit] = {
    "rejected": Limit(0.0, 0.10),  # refused calls per call offered; the first one is worth a look
    "failed": Limit(0.02, 0.10),  # failed calls per call that ended, once `FAILED_MIN` have failed
    "died": Limit(0.0, 2.0),  # deaths per worker wanted, in the window; the first one is worth a look
    "waiting": Limit(0.5, 0.8),  # waiting calls per place in the queue
}
KEPT = 0.8
"""A pool keeps a level while the share is at least this part of the bound."""
FAILED_MIN = 3
"""Below this number of failed (or refused) calls, their share is not judged."""
HELD_S = 5.0
"""Seconds without the end of a call, while all workers are on calls, that deserve a look. Where a call of the window
that ended well took longer, that duration counts.
"""


def levels(snapshot: Snapshot, before: Levels = NO_LEVELS) -> Levels:
    """The levels of the shares of all pools. *before* are the levels of the Snapshot before this one."""
    return {
        (pool.name, kind): level
        for pool in snapshot.pools.values()
        for kind, share in _shares(pool).items()
        if (level := level_of(kind, share, before.get((pool.name, kind)))) is not None
    }


def level_of(kind: Graded, share: float | None, before: Level | None = None) -> Level | None:
    """The level of one share, whose level was *before*. None: it deserves no look."""
    if share is None:
        return None
    limit = LIMITS[kind]
    if share >= limit.bad * (KEPT if before == "bad" else 1):
        return "bad"
    return "warn" if share >= limit.warn * (KEPT if before else 1) else None


def rejected_ratio(total: CallStats) -> float | None:
    """Refused calls per call offered: of the calls that ended in the window and the calls refused in it."""
    return total.rejected / (total.calls + total.rejected) if total.rejected else None


def rejected_share(total: CallStats) -> float | None:
    """`rejected_ratio`, but 0 where too few calls were refused to judge it."""
    return 0.0 if 0 < total.rejected < FAILED_MIN else rejected_ratio(total)


def failed_share(total: CallStats) -> float | None:
    """Failed calls per call that ended. None where too few calls failed to judge it."""
    return total.error_ratio if total.errors >= FAILED_MIN else None


def died_share(deaths: int, size: float) -> float | None:
    """Deaths per worker wanted. None without deaths."""
    return deaths / max(size, 1) if deaths else None


def waiting_share(pool: PoolDetail) -> float | None:
    """Waiting calls per place in the queue. None where the queue has no places."""
    return pool.waiting / pool.queue_limit if pool.queue_limit else None


def _shares(pool: PoolDetail) -> dict[Graded, float | None]:
    return {
        "rejected": rejected_share(pool.total),
        "failed": failed_share(pool.total),
        "died": died_share(pool.deaths, pool.size),
        "waiting": waiting_share(pool),
    }
