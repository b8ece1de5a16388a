"""Queries of what is on disk: `Monitor.history`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

from pool_monitor.clock import Clock
from pool_monitor.errors import ConfigError
from pool_monitor.metrics import queries
from pool_monitor.metrics.block import Block, merge
from pool_monitor.metrics.gauges import resource_range
from pool_monitor.metrics.queries import Selection, check_known
from pool_monitor.metrics.recording import Recording
from pool_monitor.metrics.series import Names
from pool_monitor.metrics.timespan import TimeSpan, time_span
from pool_monitor.snapshot import ErrorRate, ErrorReport, Range, ResourceRange, Summary
from pool_monitor.storage.history import History, HistoryStats

_EDGE = 100
"""A summary uses steps of at most its length divided by this, so that little is cut off at its edges."""

T = TypeVar("T")


class HistoryMetrics:
    """Queries of the history, as far back as its file reaches, with the types and errors of `LiveMetrics`.

    Queries read the disk in another thread, so they never block the event loop. Answers include every closed second,
    also seconds that are not written yet. The result of a cancelled query is discarded.
    """

    def __init__(self, history: History, clock: Clock) -> None:
        self._history = history
        self._clock = clock

    async def range(
        self,
        start: float | datetime,
        end: float | datetime | None = None,
        step: str | float = "1m",
        *,
        pool: str | None = None,
        operation: str | None = None,
        worker: str | None = None,
    ) -> Range:
        """The calls from *start* to *end* (None: now), one `Point` per *step*, as `LiveMetrics.range`.

        Raises ConfigError when steps as fine as *step* are not kept from *start* on. The error names the kept steps.
        """
        asked = time_span(start, self._now() if end is None else end, step)
        selection = Selection(pool, operation, worker)

        def answer(recording: Recording) -> Range:
            check_known(recording.names, selection)
            return queries.range_of(recording, asked, selection)

        recording = await self._history.read(asked.start, asked.end, asked.step)
        return await asyncio.to_thread(answer, recording)

    async def resources(
        self,
        start: float | datetime,
        end: float | datetime | None = None,
        step: str | float = "1m",
        *,
        subject: str | None = None,
        figure: str | None = None,
    ) -> ResourceRange:
        """The figures of resources from *start* to *end* (None: now), step by step, as `LiveMetrics.resources`.

        *step* must be a multiple of the step of a tier. A file has them from the version on that measures them.
        """
        asked = time_span(start, self._now() if end is None else end, step)
        found = await self._history.read_gauges(asked.start, asked.end, asked.step)
        return await asyncio.to_thread(resource_range, found, asked, subject, figure)

    async def ranges(
        self, start: float | datetime, end: float | datetime, step: str | float, *, by: queries.Group
    ) -> dict[Selection, Range]:
        """The `range` of every pool, operation or worker, by what selects it."""
        asked = time_span(start, end, step)
        recording = await self._history.read(asked.start, asked.end, asked.step)
        return await asyncio.to_thread(queries.ranges, recording, asked, by)

    async def summary(self, start: float | datetime = 0.0, end: float | datetime | None = None) -> Summary:
        """A summary of every pool from *start* (0: the beginning) to *end* (None: now), as `LiveMetrics.summary`.

        The times are rounded to whole steps.
        """
        return await self._answer_whole(
            start, end, lambda asked, recording: queries.summary(*_merged(recording), asked.start, asked.end)
        )

    async def counts(self, start: float | datetime, end: float | datetime) -> dict[str, queries.PoolCounts]:
        """The calls of every pool from *start* to *end*, counted. The times are rounded to whole steps."""
        return await self._answer_whole(start, end, lambda _asked, recording: queries.counts(recording))

    async def error_rates(
        self,
        by: str = "operation",
        start: float | datetime = 0.0,
        end: float | datetime | None = None,
        *,
        pool: str | None = None,
    ) -> dict[str, ErrorRate]:
        """How many calls failed from *start* (0: the beginning) to *end* (None: now), as `LiveMetrics.error_rates`.

        The times are rounded to whole steps.
        """

        def answer(_asked: TimeSpan, recording: Recording) -> dict[str, ErrorRate]:
            check_known(recording.names, Selection(pool))
            return queries.error_rates(*_merged(recording), by, pool)

        return await self._answer_whole(start, end, answer)

    async def error_groups(
        self, start: float | datetime = 0.0, end: float | datetime | None = None, *, pool: str | None = None
    ) -> ErrorReport:
        """The error groups of every pool, or of *pool*, from *start* (0: the beginning) to *end* (None: now).

        The times are rounded outwards to whole steps, and the beginning to that of the history. Empty for a *pool* that
        had no failures.
        """
        exact = time_span(start, self._now() if end is None else end, 1, limit=None)
        extent = await self._history.extent()
        first = max(exact.start, extent[0]) if extent else exact.start
        return await self._history.error_groups(min(first, exact.end - 1), exact.end, pool)

    async def extent(self) -> tuple[int, int] | None:
        """The times of the first and the last block, in seconds since the epoch; None when there is no block."""
        return await self._history.extent()

    def stats(self) -> HistoryStats:
        """The state of the history: blocks in memory, blocks lost, size of the file. Does not wait."""
        return self._history.stats()

    async def _answer_whole(
        self,
        start: float | datetime,
        end: float | datetime | None,
        answer: Callable[[TimeSpan, Recording], T],
    ) -> T:
        """What *answer* returns for the blocks from *start* to *end*, rounded to whole steps.

        The steps are the largest that are at most 1/`_EDGE` of that time, or the finest that are still kept.
        """
        extent = await self._history.extent()
        exact = time_span(start, self._now() if end is None else end, 1, limit=None)
        first = max(exact.start, extent[0]) if extent else exact.start
        steps = [tier.step for tier in self._history.config.tiers]
        fitting = [step for step in steps if step * _EDGE <= exact.end - first]
        for step in steps[max(len(fitting) - 1, 0) :]:
            asked = time_span(min(first, exact.end - 1), exact.end, step, limit=None)
            try:
                recording = await self._history.read(asked.start, asked.end, asked.step)
            except ConfigError:  # only larger steps are kept of that time
                if step == steps[-1]:
                    raise
                continue
            return await asyncio.to_thread(answer, asked, recording)
        raise AssertionError("there is always a tier")

    def _now(self) -> float:
        return self._clock.wall_ns() / 1e9


def _merged(recording: Recording) -> tuple[Block, Names]:
    return merge([timed.block for timed in recording.blocks]), recording.names
