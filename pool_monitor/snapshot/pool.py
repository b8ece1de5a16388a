"""A pool and its workers: their gauges now, and how they did in the window."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from pool_monitor.snapshot.calls import Bar, CallStats, OperationView, Trend

CRASHED = "crash: "
START_FAILED = "start: "
"""How ``last_error`` of a worker begins when its process died, and when one could not be started: why stands behind."""

PoolState = Literal["new", "starting", "running", "paused", "draining", "closed"]
Breaker = Literal["closed", "open", "half_open"]
Health = Literal["responsive", "late", "busy", "stuck", "unresponsive"]
WorkerState = Literal["initializing", "ready", "busy", "degraded", "terminating", "terminated"]


class WorkerView(CallStats, frozen=True, kw_only=True):
    """One slot: its gauges now, and how its calls went in the window.

    From `Pool.workers` only the gauges are set; a Snapshot has both.
    """

    id: str
    """The slot's id, such as ``summarizers-0``: stable over restarts."""
    state: WorkerState
    state_age: float
    """Seconds in this state."""
    pid: int | None
    """The process, or None while there is none."""
    age: float | None
    """Seconds since this process was started."""
    restarts: int
    """Processes started on it because the one before had ended unplanned; recycling is no such end."""
    operation: str | None
    """What it is doing now."""
    call_age: float | None = None
    """Seconds since it got to the call under way; None: there is none, or that is not known. Between calls that follow
    at once it stays busy, so *state_age* may be longer.
    """
    calls_held: int = 0
    """Calls it has been handed and not answered: more than one where it runs several at once, or has some ahead."""
    health: Health | None = None
    """How it answered when it was asked for a sign of life; None: not asked yet."""
    rss: int | None = None
    """Bytes of resident memory, as it said last."""
    crash_loop: bool = False
    """Its processes end more often than the restart limit allows, and are started after a pause."""
    busy_ratio: float | None = None
    """Share of the window's time spent executing, the call under way included."""
    last_error: str | None = None
    """What went wrong on it last, within the longest window: the type of a call's error, or a few words after
    `CRASHED` or `START_FAILED`.
    """
    last_error_age: float | None = None
    """Seconds since then."""


class PoolView(Struct, frozen=True, kw_only=True):
    """A pool's gauges now: what `Pool.status` returns. ``busy + idle + starting + draining + dead`` = slots."""

    name: str
    state: PoolState
    size: int
    """Workers the pool wants."""
    busy: int
    idle: int
    starting: int
    """Being started, or waiting for the next try."""
    draining: int
    """On their way out."""
    dead: int
    """Slots whose process has ended and is not replaced."""
    waiting: int
    """Calls in the queue."""
    queue_limit: int
    sessions: int
    """Sessions alive."""
    restarts: int
    """Processes started because one had ended unplanned, since the pool was entered; recycling is no such end."""
    completed: int
    """Calls that ended, however, since the pool was entered."""
    crash_loops: int = 0
    """Slots in a crash loop."""
    breaker: Breaker | None = None
    """The circuit breaker; None: there is none."""
    refusals: dict[str, int] = {}
    """Calls refused since the pool was entered, by reason."""
    relative_time: float | None = None
    """Mean over the latest hand-overs, in seconds: above 0 calls waited for workers, below workers for calls."""
    retries_refused: int | None = None
    """Calls that were not sent again because the budget for retries was spent, since the pool was entered; None where
    there is no such budget.
    """
    target: str | None = None
    """What its workers load; None where there is no such thing."""
    instance: str | None = None
    """An id that no other pool has, also none of the same name; None: not known."""
    shares_name: bool = False
    """Another pool of this name is watched in this process now: exports then label both with their instance, too."""

    @property
    def utilisation(self) -> float | None:
        """The share of the wanted workers that are busy; None for a pool of none."""
        return self.busy / self.size if self.size else None


class PoolDetail(PoolView, frozen=True, kw_only=True):
    """A pool in a Snapshot: its gauges now and everything that was measured in the window."""

    total: CallStats
    """All its operations together."""
    busy_ratio: float | None = None
    """Share of the window's time that the workers wanted spent executing, calls under way included: from the time
    itself, not from samples. Calls that run side by side on one worker count each, up to all of its time.
    """
    histogram: tuple[Bar, ...] = ()
    """``total.latency`` in coarse bars whose bounds are powers of two, from the first to the last that is not empty."""
    trend: Trend
    deaths: int = 0
    """Worker processes that ended in the window though nobody wanted them to: crashed, or did not answer or spoke
    nonsense and were killed for it.
    """
    last_death: str | None = None
    """What the latest of them died of, such as ``signal 9``; None when there was none."""
    failures: tuple[FailureView, ...] = ()
    """What went wrong last, the latest first: the last 20 kinds of failure of the last hour, whatever the window.
    Neither refused calls nor cancelled ones are among them.
    """
    operations: dict[str, OperationView]
    """By operation name."""
    workers: dict[str, WorkerView]
    """By slot id, in slot order."""


class FailureView(Struct, frozen=True):
    """Failures of one kind: equal in error, message and operation."""

    error: str
    """The type of the error; ``crash`` of a process that ended, ``start`` of one that did not get as far as ready, and
    the category (docs: errors) of anything else that befell a worker without a call.
    """
    message: str | None
    """What it says, its beginning: at most 300 characters."""
    operation: str | None
    worker: str | None
    """The slot it was seen on last."""
    age: float
    """Seconds since it was seen last."""
    count: int
    """How often it was seen, since it entered the list."""
