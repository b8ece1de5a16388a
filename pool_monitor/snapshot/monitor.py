"""The state of the monitor and its parts, and whether their numbers can be trusted."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from pool_monitor.snapshot.alerts import AlertingView

MonitorMode = Literal["full", "sampled", "counters", "off"]
"""What the collector keeps of each call, from everything to nothing. It keeps less before it exceeds its memory budget.

- ``full``: everything.
- ``sampled``: counts, means and maxima are exact. Percentiles come from a sample: one duration in 16 stands for all.
- ``counters``: counts of calls are exact. No duration is recorded: means, maxima and percentiles cover only the
  durations that were recorded before, and so does ``Distribution.count``.
- ``off``: nothing is counted, and the windows are empty. Totals keep what was counted before.
"""


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
    held_bytes: int = 0
    """Memory of the counts that wait to be written."""
    disk_free: int | None = None
    """Bytes that we may still write on the disk of the file, after the last flush; None: not known, as
    while it cannot be written."""
    disk_total: int | None = None
    """Size of that disk in bytes; None: not known."""


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
    """False in the mode ``off``, and after a handler of the monitor failed and was detached. No count of the Snapshot
    changes while it is False.
    """
    events: int
    """Events received since the monitor started."""
    dropped: int
    """Events not counted: malformed, or after ``collecting`` became False. Also values of resources that were malformed
    or found no room. Above 0, counts are lower bounds."""
    clamped: int
    """Durations outside the range of the histogram, counted at its edge."""
    handler_failures: int
    """Handlers in this process, also of other code, that were detached because they raised."""
    series: int
    """Histogram series in use, and their limit. Beyond it, calls are counted under ``other``."""
    series_limit: int
    overflowed: int
    """Events that were counted under ``other``."""
    dropped_recent: int = 0
    """By how much `dropped` has grown in the last 5 minutes; *handler_failures_recent* and *overflowed_recent* are the
    same for their counters. Alerts read these: the counters themselves never return to 0.
    """
    handler_failures_recent: int = 0
    overflowed_recent: int = 0
    memory_bytes: int
    """Bytes that all stores of the monitor hold now, and the budget for them. The blocks that wait for a disk have a
    limit of their own (``[history] memory_limit``); only what they take beyond a quarter of the budget can exceed it.
    """
    memory_limit_bytes: int
    viewers: int
    """Remote viewers attached."""
    history: HistoryView | None = None
    """None: no history is kept."""
    otlp: OtlpView | None = None
    """None: nothing is pushed."""
    resources: SamplingView | None = None
    """None: resources are not measured."""
    alerts: AlertingView | None = None
    """None: no rules are evaluated."""
    weights: dict[str, int] = {}
    """Weights of the events that Snapshots are made from and a filter reduces: how many executions each emitted one
    stands for, and is counted as. 0: none is emitted, so counts from that event do not change.
    """
    mode: MonitorMode = "full"
    """What is kept of each call now."""
    reduced_age: float | None = None
    """Seconds since the mode was last below ``full``, 0 while it is; None: never. The percentiles of a window that
    reaches back further are partly from a sample, or cover only part of the calls.
    """
    off_seconds: float = 0.0
    """Time in the mode ``off`` since the monitor was entered. Above 0, totals are lower bounds."""
    lag: float | None = None
    """The longest time that a call waited in the buffer until it was counted, over the last 10 s, in seconds; None: no
    call ended in that time. Reading a Snapshot counts all calls that have ended, so it never misses the buffered ones.
    """
    lag_median: float | None = None
    """The median over the folds of the last 10 s, of the longest wait in each."""
    buffered: int = 0
    """Calls that were in the buffer when the Snapshot was made, and the most that it holds."""
    buffer_limit: int = 0
    cpu_ratio: float | None = None
    """Processor time of the monitor's own work since the last tick but one, as a share of one processor: ticks,
    Snapshots, encoding for viewers, the ticks of parts, and the threads of the history and of the measuring. Not in it:
    the handlers that run when an event is emitted, and the HTTP server. None: not measured yet.
    """
    tick_seconds: float | None = None
    """How long the work of the last tick took; None before the first."""
    tick_late: float | None = None
    """How late the last tick began, because the event loop was busy; None before the first."""
    snapshot_seconds: float | None = None
    """How long it took to make the last Snapshot; None for the first."""
    encode_seconds: float | None = None
    """How long it took to encode the last Snapshot for a viewer, and its size; None: none was encoded."""
    encode_bytes: int | None = None
    degraded: dict[str, str] = {}
    """Why each degraded part is degraded, by part: collector, history, otlp, socket, resources, alerts,
    advisor, tuner, ticker."""
