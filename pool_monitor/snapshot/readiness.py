"""Whether a service can take calls: the answer of ``/readyz``."""

from __future__ import annotations

from msgspec import Struct

from pool_monitor.snapshot.monitor import MonitorMode
from pool_monitor.snapshot.pool import PoolState, PoolView


class SlotCounts(Struct, frozen=True, kw_only=True):
    """The slots of one pool."""

    busy: int
    idle: int
    size: int
    """Workers wanted."""
    slots_used: int
    """Slots whose worker is on a call, and how many there can be: the workers wanted."""
    slots_limit: int


class PoolReadiness(Struct, frozen=True, kw_only=True):
    """Whether one pool can take calls. All fields are None when its gauges cannot be read."""

    state: PoolState | None = None
    workers: SlotCounts | None = None
    waiting: int | None = None
    """Calls in the queue."""
    queue_limit: int | None = None


class Readiness(Struct, frozen=True, kw_only=True):
    """Whether the service can take calls. What is degraded does not make it unready: the pools work without it."""

    ready: bool
    """Whether every pool is running and has a worker that can take a call."""
    reason: str | None
    """Why it is not ready, in words; None: it is."""
    live: bool
    """Whether the event loop runs. The answer comes from it, so this is always true."""
    since: float
    """When the monitor was entered, seconds since the epoch."""
    degraded: tuple[str, ...]
    """What is degraded, and why, in words."""
    mode: MonitorMode
    pools: dict[str, PoolReadiness]


def pool_readiness(status: PoolView | None) -> PoolReadiness:
    """The readiness of a pool with these gauges; None: they cannot be read."""
    if status is None:
        return PoolReadiness()
    return PoolReadiness(
        state=status.state,
        workers=SlotCounts(
            busy=status.busy,
            idle=status.idle,
            size=status.size,
            slots_used=status.busy,
            slots_limit=status.size,
        ),
        waiting=status.waiting,
        queue_limit=status.queue_limit,
    )
