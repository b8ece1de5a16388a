"""The state of the monitor and its parts, and whether their numbers can be trusted."""

from __future__ import annotations

from msgspec import Struct


class ServiceView(Struct, frozen=True, kw_only=True):
    """The process in which the Snapshot was taken."""

    name: str
    pid: int
    host: str
    python: str
    started_at: float
    """When the monitor was entered: seconds since the epoch, by the current setting of the wall clock."""
    version: str | None = None
    """The version of pool_monitor."""


class HistoryView(Struct, frozen=True, kw_only=True):
    """The history on disk."""

    path: str
    degraded: str | None
    """Why the file cannot be written now, in words; counts wait in memory until it can. None: it can be written."""
    held: int
    """Seconds of counts that wait to be written."""
    dropped: int
    """Seconds of counts that were dropped because memory had no room for them."""
    file_bytes: int | None
    """Size of the file and its log; None: not known yet."""
    size_limit: int
    flush_seconds: float | None
    """How long the last flush took, in its own thread; None before the first."""


class OtlpView(Struct, frozen=True, kw_only=True):
    """The pushes to an OTLP receiver."""

    endpoint: str
    exported: int
    """Pushes that the receiver accepted."""
    failed: int
    """Pushes that failed, including retries. Nothing is lost: the next push carries everything."""
    rejected: int
    """Data points that the receiver rejected from accepted pushes."""
    last_error: str | None
    """Why the last push failed; None if it did not."""


class SamplingView(Struct, frozen=True, kw_only=True):
    """The measuring of resources. Times are seconds."""

    interval: float
    """From one sample to the next, now."""
    wanted_interval: float
    """As configured. `interval` is longer where a sample costs so much that sampling would take more than 2 % of a
    processor.
    """
    cpu_ratio: float | None
    """Processor time of sampling, on the event loop and in its threads, as a share of one processor; None before the
    first sample.
    """
    sample_cpu: float | None
    """Processor time of the latest sample."""
    sample_seconds: float | None
    """How long the latest sample took, with what it waited for."""
    workers: int
    """Slots that it covered."""
    overdue: float | None
    """For how long the present sample has been running, if that is longer than 10 s; else None."""


class MonitorView(Struct, frozen=True, kw_only=True):
    """The state of the monitor itself, and whether its numbers can be trusted."""

    collecting: bool
    """False after the handler of the monitor failed and was detached. No number of the Snapshot changes after that."""
    events: int
    """Events received since the monitor started."""
    dropped: int
    """Events not counted: malformed, or after ``collecting`` became False. Above 0, counts are lower bounds."""
    clamped: int
    """Durations outside the range of the histogram, counted at its edge."""
    handler_failures: int
    """Handlers in this process, also of other code, that were detached because they raised."""
    series: int
    """Histogram series in use, and their limit. Beyond it, calls are counted under ``other``."""
    series_limit: int
    overflowed: int
    """Events that were counted under ``other``."""
    memory_bytes: int
    """Bytes that the stores hold now, and the most they can ever hold."""
    memory_limit_bytes: int
    viewers: int
    """Remote viewers attached."""
    history: HistoryView | None = None
    """None: no history is kept."""
    otlp: OtlpView | None = None
    """None: nothing is pushed."""
    resources: SamplingView | None = None
    """None: resources are not measured."""
    weights: dict[str, int] = {}
    """Weights of the events that Snapshots are made from and a filter reduces: how many executions each emitted one
    stands for, and is counted as. 0: none is emitted, so counts from that event do not change.
    """
