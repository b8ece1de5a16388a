"""A pool and its workers: current gauges, and statistics of the window."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from pool_monitor.snapshot.calls import Bar, CallStats, OperationView, Trend
from pool_monitor.snapshot.error_groups import ErrorGroup

CRASHED = "crash: "
START_FAILED = "start: "
"""Prefixes of a worker's ``last_error`` if its process died or could not be started. The reason follows the prefix."""

PoolState = Literal["new", "starting", "running", "paused", "draining", "closed"]
Breaker = Literal["closed", "open", "half_open"]
Health = Literal["responsive", "late", "busy", "stuck", "unresponsive"]
WorkerState = Literal["initializing", "ready", "busy", "degraded", "terminating", "terminated"]


class WorkerView(CallStats, frozen=True, kw_only=True):
    """One slot: its current gauges, and the statistics of its calls in the window.

    `Pool.workers` sets only the gauges; a Snapshot has both.
    """

    id: str
    """The slot's id, such as ``summarizers-0``; the same after a restart."""
    state: WorkerState
    state_age: float
    """Seconds in this state."""
    pid: int | None
    """The process, or None while there is none."""
    age: float | None
    """Seconds since this process was started."""
    restarts: int
    """Processes started in the slot after the previous one ended unplanned; recycling does not count."""
    operation: str | None
    """The operation it is running now."""
    call_age: float | None = None
    """Seconds since the current call began; None: there is no call, or its age is not known. *state_age* may be longer,
    because the worker stays busy between calls that follow each other at once.
    """
    calls_held: int = 0
    """Calls that were handed to it and not answered: several if it runs calls at once or has calls handed ahead."""
    health: Health | None = None
    """The verdict of its last checkup; None: not checked yet."""
    rss: int | None = None
    """Bytes of resident memory. In a Snapshot, as the monitor last read it; from `Pool.workers`, as the worker last
    reported it.
    """
    rss_limit: int | None = None
    """Bytes of resident memory from which on it is recycled; None: it is not recycled for its memory."""
    uss: int | None = None
    """Bytes of memory that no other process shares. This figure and the next ones are set in a Snapshot only. They are
    None when the last three samples had no reading, and while the process is stopped.
    """
    cpu_ratio: float | None = None
    """Processor time used, as a share of one processor: above 1 where several threads run at once."""
    fds: int | None = None
    """Open descriptors."""
    fds_limit: int | None = None
    """Most open descriptors of this process; None: no limit, or not known."""
    threads: int | None = None
    children: int | None = None
    """Processes that it has started and that still exist, and what these have started."""
    zombies: int | None = None
    """Of these, those that have ended and wait to be reaped."""
    read_bytes: int | None = None
    written_bytes: int | None = None
    """Bytes read from and written to disks since the process was started."""
    leak_rate: float | None = None
    """Bytes per second by which its memory grows, if that is a leak by `pool_monitor.resources.leak`; None: it is
    none, or was not seen for long enough.
    """
    time_to_limit: float | None = None
    """Seconds until a leak reaches `rss_limit`, or without one fills the memory that is left, if it goes on."""
    state_letter: str | None = None
    """The state of the process as ``ps`` shows it: R runs, S sleeps, D waits for a disk, T is stopped, Z has ended."""
    figures_missing: str | None = None
    """Why there are no figures, in words."""
    crash_loop: bool = False
    """Whether its processes end more often than the restart limit allows, so that each start waits for a pause."""
    busy_ratio: float | None = None
    """Share of the window's time spent executing, including the current call."""
    last_error: str | None = None
    """The last failure in the slot within the longest window: the type of a call's error, or a few words after
    `CRASHED` or `START_FAILED`.
    """
    last_error_age: float | None = None
    """Seconds since the last failure."""


class PoolView(Struct, frozen=True, kw_only=True):
    """The current gauges of a pool, as `Pool.status` returns them. ``busy + idle + starting + draining + dead`` is the
    number of slots.
    """

    name: str
    state: PoolState
    size: int
    """Workers wanted."""
    busy: int
    idle: int
    starting: int
    """Slots whose worker is starting, or waits for the next try."""
    draining: int
    """Slots whose worker is ending."""
    dead: int
    """Slots whose process has ended and will not be replaced."""
    waiting: int
    """Calls in the queue."""
    queue_limit: int
    sessions: int
    """Live sessions."""
    sessions_limit: int | None = None
    """Most sessions that are kept; None: not known."""
    wait_limit: float | None = None
    """Seconds that a call may wait at most, unless its options say otherwise: ``max_wait``, or the timeout of calls if
    that is shorter; None: not known.
    """
    restarts: int
    """Processes started after one ended unplanned, since the pool was entered; recycling does not count."""
    completed: int
    """Calls that ended with any outcome since the pool was entered."""
    crash_loops: int = 0
    """Slots in a crash loop."""
    breaker: Breaker | None = None
    """The state of the circuit breaker; None: the pool has none."""
    refusals: dict[str, int] = {}
    """Calls refused since the pool was entered, by reason."""
    relative_time: float | None = None
    """Mean over the latest hand-overs, in seconds. Above 0, calls waited for workers; below, workers for calls."""
    retries_refused: int | None = None
    """Calls that were not sent again because the retry budget was spent, since the pool was entered; None: the pool has
    no retry budget.
    """
    target: str | None = None
    """The target that its workers load; None: the pool has none."""
    instance: str | None = None
    """An id that no other pool has, not even a pool of the same name; None: not known."""
    shares_name: bool = False
    """Whether another pool of this name is watched in this process now: exports then also label both by instance."""

    @property
    def utilisation(self) -> float | None:
        """The share of the wanted workers that are busy; None if no workers are wanted."""
        return self.busy / self.size if self.size else None


class PoolDetail(PoolView, frozen=True, kw_only=True):
    """A pool in a Snapshot: its current gauges and everything that was measured in the window."""

    total: CallStats
    """All operations together."""
    busy_ratio: float | None = None
    """Share of the window's time that the wanted workers spent executing, including current calls. Computed from the
    execution times, not from samples. Calls that overlap on one worker all count, up to the whole time of the worker.
    """
    histogram: tuple[Bar, ...] = ()
    """``total.latency`` in coarse bars whose bounds are powers of two, from the first non-empty bar to the last."""
    trend: Trend
    deaths: int = 0
    """Worker processes that ended unplanned in the window: they crashed, or were killed because they did not answer or
    violated the protocol.
    """
    last_death: str | None = None
    """The cause of the latest of these deaths, such as ``signal 9``; None if there was none."""
    failures: tuple[FailureView, ...] = ()
    """The last 20 kinds of failure of the last hour, latest first, for every window. Refused and cancelled calls do not
    count.
    """
    error_groups: tuple[ErrorGroup, ...] = ()
    """The few errors that the failures are: those of the window, the most frequent first."""
    operations: dict[str, OperationView]
    """By operation name."""
    workers: dict[str, WorkerView]
    """By slot id, in slot order."""


class FailureView(Struct, frozen=True):
    """Failures of one kind: equal in error, message and operation."""

    error: str
    """The type of a call's error; ``crash`` for a process that ended; ``start`` for a process that did not get ready;
    the category, as in errors.py, for any other failure of a worker without a call.
    """
    message: str | None
    """The first 300 characters of its message. Secrets in it are replaced."""
    operation: str | None
    worker: str | None
    """The slot of the latest occurrence."""
    age: float
    """Seconds since the latest occurrence."""
    count: int
    """Occurrences since the failure entered the list."""
