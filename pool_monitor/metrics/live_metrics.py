"""Queries of what is in memory: `Monitor.metrics`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import partial

from msgspec.structs import replace

from pool_monitor.errors import ConfigError
from pool_monitor.metrics import queries
from pool_monitor.metrics.collector import Collector
from pool_monitor.metrics.error_groups import ALL_SAMPLES
from pool_monitor.metrics.gauges import LEVELS, resource_range, step_reaching
from pool_monitor.metrics.queries import Selection, check_known, unknown_name
from pool_monitor.metrics.recording import Recording
from pool_monitor.metrics.timespan import TimeSpan, instant, time_span
from pool_monitor.metrics.totals import Totals
from pool_monitor.metrics.window import LONGEST, WINDOWS, Window, parse_window
from pool_monitor.snapshot import ErrorRate, ErrorReport, Range, ResourceRange, Snapshot, Summary, WorkerView


class LiveMetrics:
    """Queries of the last hour. Times are seconds, ratios lie between 0 and 1.

    No method blocks or waits. Answers include every call that has ended, and are immutable. `Monitor.history` answers
    queries of earlier times. Queries raise ConfigError for a step, window or time that does not fit (the text names one
    that does), and UnknownName for a pool, operation or worker without measurements.
    """

    def __init__(self, collector: Collector, snapshot: Callable[[str], Snapshot]) -> None:
        self._collector = collector
        self._snapshot = snapshot

    def range(
        self,
        start: float | datetime,
        end: float | datetime | None = None,
        step: str | float | None = None,
        *,
        pool: str | None = None,
        operation: str | None = None,
        worker: str | None = None,
    ) -> Range:
        """The calls from *start* to *end* (None: now), one `Point` per *step* (None: the finest step available).

        *step* may be any multiple of 1 s for the last minute, of 5 s for the last 5 minutes, of 10 s for the last 15
        minutes, of 60 s for the last hour. Counts, means and percentiles of a step are those of its calls alone. Steps
        begin at multiples of *step*, the first at or before *start*. *pool*, *operation* and *worker* select calls.
        """
        now_s = self._collector.wall_s()
        if step is None:
            first = instant(start, "start")
            reaching = (window.step for window in WINDOWS.values() if first > now_s - window.seconds)
            step = next(reaching, LONGEST.step)
        asked = time_span(start, now_s if end is None else end, step)
        recording = self._recording(asked)
        selection = Selection(pool, operation, worker)
        check_known(recording.names, selection)
        return queries.range_of(recording, asked, selection)

    def resources(
        self,
        start: float | datetime,
        end: float | datetime | None = None,
        step: str | float | None = None,
        *,
        subject: str | None = None,
        figure: str | None = None,
    ) -> ResourceRange:
        """The figures of resources from *start* to *end* (None: now), step by step: mean and highest reading.

        *subject* is ``host``, ``process``, ``loop``, ``gpu INDEX`` or ``worker SLOT``, *figure* a field of its view,
        such as ``rss``; None: all. *step* is any multiple of 1 s for the last 5 minutes, of 10 s for the last hour;
        None: the finest of them. Memory keeps less than an hour when there are hundreds of workers. Steps begin at
        multiples of *step*.
        """
        return self.deferred_resources(start, end, step, subject=subject, figure=figure)()

    def deferred_resources(
        self,
        start: float | datetime,
        end: float | datetime | None = None,
        step: str | float | None = None,
        *,
        subject: str | None = None,
        figure: str | None = None,
    ) -> Callable[[], ResourceRange]:
        """Return a function that computes `resources` from what is known now. Any thread may call it."""
        now_s = self._collector.wall_s()
        if step is None:
            step = step_reaching(instant(start, "start"), now_s)
        asked = time_span(start, now_s if end is None else end, step)
        if not any(asked.step % kept == 0 and asked.start + asked.step > now_s - reach for kept, reach in LEVELS):
            kept_steps = ", ".join(f"{kept} s for {reach // 60} min" for kept, reach in LEVELS)
            raise ConfigError(
                f"resources(start={asked.start}, step={asked.step}): memory keeps steps of {kept_steps} (and multiples "
                "of them); ask for a larger step or a later start, or let [history] keep more and ask monitor.history"
            )
        return partial(resource_range, self._collector.gauges(asked.start, asked.step), asked, subject, figure)

    def deferred_ranges(
        self, start: float | datetime, end: float | datetime, step: str | float, *, by: queries.Group
    ) -> Callable[[], dict[Selection, Range]]:
        """Return a function that computes the `range` of every pool, operation or worker from what is known now, by
        what selects it. Any thread may call it.
        """
        asked = time_span(start, end, step)
        return partial(queries.ranges, self._recording(asked), asked, by)

    def deferred_summary(self, start: float | datetime, end: float | datetime) -> Callable[[], Summary]:
        """Return a function that computes a summary of every pool from *start* to *end*, from what is known now. Any
        thread may call it.

        The times are rounded to the nearest steps of the finest window that reaches back to *start*.
        """
        return partial(queries.summary_of, *self._between(start, end))

    def deferred_counts(
        self, start: float | datetime, end: float | datetime
    ) -> Callable[[], dict[str, queries.PoolCounts]]:
        """Return a function that counts the calls of every pool from *start* to *end*, as `deferred_summary` does."""
        return partial(queries.counts, queries.between(*self._between(start, end)))

    def _between(self, start: float | datetime, end: float | datetime) -> tuple[Recording, TimeSpan]:
        exact = time_span(start, end, 1)
        window = self._finest(exact._replace(step=LONGEST.step), self._collector.wall_s())
        first = round(exact.start / window.step) * window.step
        length = max(round((exact.end - exact.start) / window.step), 1) * window.step
        return self._collector.recording(window), TimeSpan(first, first + length, window.step)

    @property
    def since(self) -> float:
        """When measuring began, in seconds since the epoch, by the current setting of the wall clock."""
        return self._collector.since_s

    def worker(self, worker_id: str, window: str = "5m") -> WorkerView:
        """One slot by its id, such as ``summarizers-1``: its gauges now and its calls in *window*."""
        pools = self._snapshot(window).pools.values()
        for pool in pools:
            if worker_id in pool.workers:
                return pool.workers[worker_id]
        raise unknown_name("worker", worker_id, (name for pool in pools for name in pool.workers))

    def error_rates(
        self, by: str = "operation", window: str = "5m", *, pool: str | None = None
    ) -> dict[str, ErrorRate]:
        """How many calls failed in *window*, by ``operation``, ``worker``, ``category`` or ``session_kind``.

        The errors of a category are divided by all calls. Operations of the same name in several pools are added up,
        unless *pool* is given. Names without a call are left out.
        """
        block, names = self._collector.block(parse_window(window))
        check_known(names, Selection(pool))
        return queries.error_rates(block, names, by, pool)

    def summary(self, window: str = "15m") -> Summary:
        """A summary of every pool in *window*: totals, operations, workers, errors by category, gauges.

        ``utilisation`` equals the ``busy_ratio`` in a Snapshot of the same window.
        """
        chosen = parse_window(window)
        block, names = self._collector.block(chosen)
        end = self._collector.wall_s()
        found = queries.summary(block, names, end - self._collector.covered_seconds(chosen), end)
        # The busy ratio of a Snapshot also includes the calls under way.
        busy = {name: pool.busy_ratio for name, pool in self._snapshot(window).pools.items()}
        pools = {
            name: replace(pool, utilisation=busy.get(name, pool.utilisation)) for name, pool in found.pools.items()
        }
        return replace(found, pools=pools)

    def error_groups(self, window: str = "5m", *, pool: str | None = None) -> ErrorReport:
        """The error groups of every pool, or of *pool*, in *window*: the few errors that the failures are."""
        chosen, errors = parse_window(window), self._collector.errors
        if pool is not None and pool not in errors.pools:
            raise unknown_name("pool", pool, errors.pools)
        end, covered_s = self._collector.wall_s(), self._collector.covered_seconds(chosen)
        return ErrorReport(
            start=end - covered_s,
            end=end,
            covered_seconds=covered_s,
            pools={
                name: errors.of(name, chosen, samples=ALL_SAMPLES)
                for name in (errors.pools if pool is None else [pool])
            },
        )

    def totals(self) -> Totals:
        """Everything counted since the monitor was entered, with full histograms: the source of all exports."""
        return self._collector.totals()

    def _recording(self, asked: TimeSpan) -> Recording:
        return self._collector.recording(self._finest(asked, self._collector.wall_s()))

    def _finest(self, asked: TimeSpan, now_s: float) -> Window:
        """The finest window whose steps add up to those of *asked* and which reaches back to the start of *asked*.

        If no fitting window reaches back that far, the one that reaches back furthest.
        """
        fitting = [
            window
            for window in WINDOWS.values()
            if asked.step % window.step == 0 and asked.start + asked.step > now_s - window.seconds
        ]
        if not fitting:
            kept = ", ".join(f"{window.step} s for {window.name}" for window in WINDOWS.values())
            raise ConfigError(
                f"range(start={asked.start}, step={asked.step}): memory keeps steps of {kept} (and multiples of them); "
                "ask for a larger step or a later start, or let [history] keep more and ask monitor.history"
            )
        reaches = {window.name: self._collector.reach(window) for window in fitting}
        for window in fitting:
            since, everything = reaches[window.name]
            if everything or since <= asked.start:
                return window
        return min(fitting, key=lambda window: reaches[window.name][0])
