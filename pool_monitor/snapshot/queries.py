"""Answers to queries over a span of time, from memory or from the history."""

from __future__ import annotations

from msgspec import Struct

from pool_monitor.snapshot.calls import CallStats, ErrorRate, OperationView
from pool_monitor.snapshot.schema import SCHEMA_VERSION


class Point(CallStats, frozen=True, kw_only=True):
    """One step of a `Range`: the statistics of the calls that ended in it, and the gauges of the pool.

    Gauges are means and maxima of samples that are taken once a second. They are None if there is no sample, or if the
    range is of an operation or a worker.
    """

    start: float
    """Seconds since the epoch; the step ends where the next one starts."""
    covered_seconds: float
    """Seconds of the step that were measured. ``rate`` is calls per second of that time. 0: nothing is known."""
    deaths: int | None = None
    """Worker processes that ended unplanned."""
    size: float | None = None
    busy: float | None = None
    busy_max: int | None = None
    waiting: float | None = None
    waiting_max: int | None = None


class Range(Struct, frozen=True, kw_only=True):
    """The statistics of a span of time, step by step, oldest first.

    There are no gaps: a step that was not measured has a `Point` whose ``covered_seconds`` is 0.
    """

    start: float
    """Seconds since the epoch; a multiple of ``step``."""
    end: float
    """The same, for the end of the last step."""
    step: float
    """Seconds per point."""
    pool: str | None
    operation: str | None
    worker: str | None
    """The pool, operation and worker of the query; None: all together."""
    points: tuple[Point, ...]


class GaugeSeries(Struct, frozen=True, kw_only=True):
    """One figure of one subject, step by step."""

    subject: str
    """``host``, ``process``, ``loop``, ``gpu INDEX`` or ``worker SLOT``."""
    figure: str
    """The field of the subject's view, such as ``rss``; of the loop, ``lag`` in seconds."""
    mean: tuple[float | None, ...]
    """The mean of the readings of each step. None: there was no reading."""
    high: tuple[float | None, ...]
    """The highest of these readings."""


class ResourceRange(Struct, frozen=True, kw_only=True):
    """The figures of resources over a span of time, step by step, oldest first. They have seven digits."""

    version: int = SCHEMA_VERSION
    start: float
    """Seconds since the epoch; a multiple of ``step``."""
    end: float
    """The same, for the end of the last step."""
    step: float
    """Seconds per value."""
    subject: str | None
    """The subject of the query; None: all."""
    series: tuple[GaugeSeries, ...]
    """Ordered by subject and figure. A figure without a reading in that time has no series."""


class PoolSummary(Struct, frozen=True, kw_only=True):
    """The statistics of one pool over a span of time."""

    covered_seconds: float
    """Seconds of that time that were measured."""
    total: CallStats
    operations: dict[str, OperationView]
    """By name, ordered by the workers' time they took, most first."""
    workers: dict[str, CallStats]
    """By slot id."""
    by_category: dict[str, ErrorRate]
    """Failed calls by category, as in errors.py, most frequent first; each as a share of all calls."""
    by_session_kind: dict[str, ErrorRate]
    """Failed calls without a session (``none``) and with a session (``hint``, ``strict``)."""
    busy_seconds: float
    """Time that all workers together spent executing."""
    utilisation: float | None
    """Share of the time that the wanted workers spent executing, computed from the execution times, not from samples.
    A call counts in the span in which it ended, for at most the length of the span. `Metrics.summary` includes current
    calls.
    """
    deaths: int
    size: float | None
    busy: float | None
    busy_max: int | None
    waiting: float | None
    waiting_max: int | None
    """Gauges, as in `Point`."""


class Summary(Struct, frozen=True, kw_only=True):
    """The statistics of all pools over a span of time."""

    version: int = SCHEMA_VERSION
    start: float
    end: float
    """Seconds since the epoch."""
    pools: dict[str, PoolSummary]
