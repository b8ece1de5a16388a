"""The monitor and its parts: what they hold, and whether their numbers can be trusted."""

from __future__ import annotations

from msgspec import Struct


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
