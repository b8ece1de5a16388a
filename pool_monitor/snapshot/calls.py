"""How calls went: the numbers that a pool, an operation, a worker and a step of a range have alike."""

from __future__ import annotations

from msgspec import Struct


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


class ErrorRate(Struct, frozen=True, kw_only=True):
    """How many of some calls failed."""

    calls: int
    """Those that were accepted and have ended."""
    errors: int
    error_ratio: float | None
    """errors / calls; None without calls."""
