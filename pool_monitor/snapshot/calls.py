"""Statistics of calls, the same for a pool, an operation, a worker and a step of a range."""

from __future__ import annotations

from msgspec import Struct


class Distribution(Struct, frozen=True, kw_only=True):
    """The durations of calls that ended in the window, in seconds.

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
    """One bar of a coarse histogram: the exact number of durations above the previous bar and up to ``upper`` seconds.

    ``upper`` is a power of two (such as 0.0625 or 0.125). It is None for the last bar, which has no upper bound.
    """

    upper: float | None
    count: int


class Trend(Struct, frozen=True, kw_only=True):
    """The course of the window: one value per step, oldest first. The last step ends at ``end``.

    None marks a step that was not measured (before the monitor started, or while the machine slept). The second in
    which measuring began counts as a whole second, so that one call in it is not drawn as a hundred per second.
    """

    step: float
    """Seconds per value."""
    end: float
    """Wall-clock time of the end of the last step, seconds since the epoch; a multiple of ``step``."""
    ok: tuple[float | None, ...] = ()
    """Calls per second that succeeded."""
    errors: tuple[float | None, ...] = ()
    """Calls per second that failed (error, timeout or worker_lost)."""
    rejected: tuple[float | None, ...] = ()
    """Calls per second that were refused before they reached a worker."""


class CallStats(Struct, frozen=True, kw_only=True):
    """Counts and durations of the calls that ended in the window.

    ``calls`` counts every call that was accepted and has ended: ``ok`` + ``errors`` + ``cancelled``. ``errors`` counts
    the calls that failed: the target raised or its answer was unusable, and also ``timeouts`` and ``workers_lost``.
    ``rejected`` calls were refused before they reached a worker; they are not part of ``calls``.
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
    """Calls per second of the time that the window covers; None if it covers none yet."""
    latency: Distribution = Distribution()
    """From the start of a call to its end, for calls that succeeded."""
    queue: Distribution = Distribution()
    """From the start of a call to its hand-over to a worker, for calls that succeeded."""
    execution: Distribution = Distribution()
    """The time in the worker, for calls that succeeded."""

    @property
    def rejected_ratio(self) -> float | None:
        """Refused calls per call offered: calls that ended plus calls that were refused. None without any."""
        offered = self.calls + self.rejected
        return self.rejected / offered if offered else None


class OperationView(CallStats, frozen=True, kw_only=True):
    """One operation of a pool, over all its workers. ``other`` has the calls that exceed the limit on series."""

    operation: str


class ErrorRate(Struct, frozen=True, kw_only=True):
    """How many calls of a group failed."""

    calls: int
    """Calls that were accepted and have ended."""
    errors: int
    error_ratio: float | None
    """errors / calls; None without calls."""
