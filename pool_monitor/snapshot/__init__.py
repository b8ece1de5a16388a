"""What every reader sees: immutable values, assembled on request.

Dashboard, exporters, alerts, the command line and remote viewers all read the same `Snapshot`, so two screens can
never disagree. Times and durations are seconds (float), ratios run from 0 to 1, rates are per second. ``None``
means *unknown*: no call ended, no worker is there; never zero.

The JSON form is the struct as it stands. `SCHEMA_VERSION` grows only when a field changes its meaning or goes
away; readers ignore fields they do not know, so adding one is no change.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

SCHEMA_VERSION = 1
WINDOW_NAMES = ("1m", "5m", "15m", "1h")
"""The windows of a Snapshot, the shortest first."""
CRASHED = "crash: "
START_FAILED = "start: "
"""How ``last_error`` of a worker begins when its process died, and when one could not be started: why stands behind."""

PoolState = Literal["new", "starting", "running", "paused", "draining", "closed"]
Breaker = Literal["closed", "open", "half_open"]
Health = Literal["responsive", "late", "busy", "stuck", "unresponsive"]
WorkerState = Literal["initializing", "ready", "busy", "degraded", "terminating", "terminated"]


class Distribution(Struct, frozen=True, kw_only=True):
    """Durations that ended in the window, in seconds.

    ``count``, ``mean`` and ``max`` are exact. Percentiles are nearest-rank, read from a histogram whose relative
    error is at most 1.1 % (`pool_monitor.metrics.histogram`). All but ``count`` are None when ``count`` is 0.
    """

    count: int = 0
    mean: float | None = None
    max: float | None = None
    p50: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None
    p999: float | None = None


class Bar(Struct, frozen=True):
    """One bar of a coarse histogram: how many durations lie above the bar before and up to ``upper`` seconds, exactly.

    ``upper`` is a power of two (such as 0.0625 and 0.125), and None for the last, open bar.
    """

    upper: float | None
    count: int


class Trend(Struct, frozen=True, kw_only=True):
    """How the window went: one value per step, oldest first, the last one ending at ``end``.

    None marks a step nobody measured (before the monitor started, or while the machine slept). The second in which
    measuring began counts as a whole one: its calls are there, and one of them is never drawn as a hundred a second.
    """

    step: float
    """Seconds per value."""
    end: float
    """Wall-clock time of the end of the last step, seconds since the epoch; a multiple of ``step``."""
    ok: tuple[float | None, ...] = ()
    """Calls per second that ended well."""
    errors: tuple[float | None, ...] = ()
    """Calls per second that failed (error, timeout or worker_lost)."""
    rejected: tuple[float | None, ...] = ()
    """Calls per second that were refused before any worker saw them."""


class CallStats(Struct, frozen=True, kw_only=True):
    """How the calls went that ended in the window.

    ``calls`` counts every call that was accepted and has ended: ``ok`` + ``errors`` + ``cancelled``. ``errors`` are
    those that failed: the target raised (or its answer was unusable), ``timeouts`` among them and ``workers_lost``
    among them. ``rejected`` calls were refused before any worker saw them and stand beside ``calls``.
    """

    calls: int = 0
    ok: int = 0
    errors: int = 0
    timeouts: int = 0
    workers_lost: int = 0
    cancelled: int = 0
    rejected: int = 0
    error_ratio: float | None = None
    """errors / calls; None without calls."""
    rate: float | None = None
    """calls per second of the time the window covers; None when it covers none yet."""
    latency: Distribution = Distribution()
    """From the call to its end, of calls that ended well."""
    queue: Distribution = Distribution()
    """From the call to its hand-over to a worker, of calls that reached one and ended well."""
    execution: Distribution = Distribution()
    """In the worker, of calls that ended well."""


class OperationView(CallStats, frozen=True, kw_only=True):
    """One operation of a pool, over all its workers. ``other`` holds what came after the label budget was spent."""

    operation: str


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


class ServiceView(Struct, frozen=True, kw_only=True):
    """The process the Snapshot was taken in."""

    name: str
    pid: int
    host: str
    python: str
    started_at: float
    """When the monitor was entered, seconds since the epoch, by the wall clock as it is set now."""
    version: str | None = None
    """That of this package."""


class HistoryView(Struct, frozen=True, kw_only=True):
    """The history on disk."""

    path: str
    degraded: str | None
    """Why it cannot be written now, in words; what is counted meanwhile waits in memory. None: it can."""
    held: int
    """Seconds that wait to be written."""
    dropped: int
    """Seconds that were given up because there was no room for them in memory."""
    file_bytes: int | None
    """Of the file and its log; None: not known yet."""
    size_limit: int
    flush_seconds: float | None
    """What the last flush took, in its own thread; None before the first."""


class OtlpView(Struct, frozen=True, kw_only=True):
    """What is sent to an OTLP receiver."""

    endpoint: str
    exported: int
    """Pushes that were taken."""
    failed: int
    """Pushes that were not, retries included; the next one carries everything."""
    rejected: int
    """Data points that were not taken of pushes that were."""
    last_error: str | None
    """Why the last push failed; None when it did not."""


class MonitorView(Struct, frozen=True, kw_only=True):
    """The monitor itself: what it holds, and whether its numbers can be trusted."""

    collecting: bool
    """False once its own handler has been detached because it failed: every number below and above stands still."""
    events: int
    """Events taken in since it started."""
    dropped: int
    """Events left out (malformed, or after ``collecting`` turned False): above 0, counts are lower bounds."""
    clamped: int
    """Durations outside the histogram's range, counted at its edge."""
    handler_failures: int
    """Handlers of anybody that were detached because they raised."""
    series: int
    """Histogram series in use, and their limit; past it calls are counted under ``other``."""
    series_limit: int
    overflowed: int
    """Events that were counted under ``other``."""
    memory_bytes: int
    """Bytes its stores hold now, and the most they can ever hold."""
    memory_limit_bytes: int
    viewers: int
    """Remote viewers attached."""
    history: HistoryView | None = None
    """None: none is kept."""
    otlp: OtlpView | None = None
    """None: nothing is sent."""
    weights: dict[str, int] = {}
    """Events that Snapshots are made of and a filter thins out: how many one that is emitted stands for, and was
    counted as; 0: none is emitted, so what is counted from them stands still.
    """


class Snapshot(Struct, frozen=True, kw_only=True):
    """Everything known at one moment about one window."""

    version: int = SCHEMA_VERSION
    seq: int
    """Grows with every Snapshot of this monitor."""
    taken_at: float
    """Wall-clock time, seconds since the epoch."""
    uptime: float
    """Seconds since the monitor was entered, monotonic."""
    window: str
    """``1m``, ``5m``, ``15m`` or ``1h``."""
    window_seconds: float
    covered_seconds: float
    """What the window really covers: less than ``window_seconds`` until the monitor has run that long."""
    service: ServiceView
    pools: dict[str, PoolDetail]
    monitor: MonitorView


# -- answers to queries ---------------------------------------------------------------------------------------------


class ErrorRate(Struct, frozen=True, kw_only=True):
    """How many of some calls failed."""

    calls: int
    """Those that were accepted and have ended."""
    errors: int
    error_ratio: float | None
    """errors / calls; None without calls."""


class Point(CallStats, frozen=True, kw_only=True):
    """One step of a `Range`: how the calls went that ended in it, and how the pool stood.

    Gauges are means and maxima of samples taken once a second; None where there is none, and where the range is not
    one of whole pools.
    """

    start: float
    """Seconds since the epoch; the step ends where the next one starts."""
    covered_seconds: float
    """How much of the step was measured; ``rate`` is calls per second of that. Where it is 0 nothing is known."""
    deaths: int | None = None
    """Worker processes that ended though nobody wanted them to."""
    size: float | None = None
    busy: float | None = None
    busy_max: int | None = None
    waiting: float | None = None
    waiting_max: int | None = None


class Range(Struct, frozen=True, kw_only=True):
    """How things went over time, step by step, oldest first, without gaps: what nobody measured says so."""

    start: float
    """Seconds since the epoch; a multiple of ``step``."""
    end: float
    """The same: where the last step ends."""
    step: float
    """Seconds per point."""
    pool: str | None
    operation: str | None
    worker: str | None
    """What was asked for; None: all of them together."""
    points: tuple[Point, ...]


class PoolSummary(Struct, frozen=True, kw_only=True):
    """How one pool did over a stretch of time."""

    covered_seconds: float
    """How much of that time was measured."""
    total: CallStats
    operations: dict[str, OperationView]
    """By name, those first that took most of the workers' time."""
    workers: dict[str, CallStats]
    """By slot id."""
    by_category: dict[str, ErrorRate]
    """What failed, by category (docs: errors), those first that failed most; each as a share of all calls."""
    by_session_kind: dict[str, ErrorRate]
    """Calls without a session (``none``) and with one (``hint``, ``strict``)."""
    busy_seconds: float
    """Time the workers spent executing, all of them together."""
    utilisation: float | None
    """Share of the time that the workers wanted spent executing, from the time itself and not from samples. A call
    counts where it ended, for no more than the stretch; calls under way are in it where `Metrics.summary` answers.
    """
    deaths: int
    size: float | None
    busy: float | None
    busy_max: int | None
    waiting: float | None
    waiting_max: int | None
    """Gauges, as in `Point`."""


class Summary(Struct, frozen=True, kw_only=True):
    """How everything did over a stretch of time."""

    version: int = SCHEMA_VERSION
    start: float
    end: float
    """Seconds since the epoch."""
    pools: dict[str, PoolSummary]
