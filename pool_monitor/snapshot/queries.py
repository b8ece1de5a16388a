"""Answers to queries over a stretch of time, from memory or from the history."""

from __future__ import annotations

from msgspec import Struct

from pool_monitor.snapshot.calls import CallStats, ErrorRate, OperationView
from pool_monitor.snapshot.schema import SCHEMA_VERSION


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
