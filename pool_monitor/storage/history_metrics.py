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
from pool_monitor.metrics.queries import Selection, check_known
from pool_monitor.metrics.recording import Recording
from pool_monitor.metrics.series import Names
from pool_monitor.metrics.timespan import TimeSpan, time_span
from pool_monitor.snapshot import ErrorRate, Range, Summary
from pool_monitor.storage.history import History, HistoryStats

_EDGE = 100
"""A summary is cut at steps of at most this part of its length."""

T = TypeVar("T")


class HistoryMetrics:
    """What was measured as long ago as the file reaches, with the types and errors of `LiveMetrics`.

    Every answer waits for the disk, in another thread; nothing blocks the event loop. It is up to the last second that
    closed, those that are not written yet included. A cancelled query is dropped.
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
        """How calls went from *start* to *end* (now, if None), one `Point` per *step*, as `LiveMetrics.range`.

        Raises ConfigError when steps as fine as *step* are not kept from *start* on, naming those that are.
        """
        asked = time_span(start, self._now() if end is None else end, step)
        selection = Selection(pool, operation, worker)

        def answered(recording: Recording) -> Range:
            check_known(recording.names, selection)
            return queries.range_of(recording, asked, selection)

        recording = await self._history.read(asked.start, asked.end, asked.step)
        return await asyncio.to_thread(answered, recording)

    async def summary(self, start: float | datetime = 0.0, end: float | datetime | None = None) -> Summary:
        """How every pool did from *start* (0: the beginning) to *end* (now, if None), cut at whole steps, as
        `LiveMetrics.summary`.
        """
        return await self._answer_whole(
            start, end, lambda asked, recording: queries.summary(*_merged(recording), asked.start, asked.end)
        )

    async def error_rates(
        self,
        by: str = "operation",
        start: float | datetime = 0.0,
        end: float | datetime | None = None,
        *,
        pool: str | None = None,
    ) -> dict[str, ErrorRate]:
        """How many calls failed from *start* (0: the beginning) to *end* (now, if None).

        As `LiveMetrics.error_rates`.
        """

        def answered(_asked: TimeSpan, recording: Recording) -> dict[str, ErrorRate]:
            check_known(recording.names, Selection(pool))
            return queries.error_rates(*_merged(recording), by, pool)

        return await self._answer_whole(start, end, answered)

    async def extent(self) -> tuple[int, int] | None:
        """From when to when there is anything, in seconds since the epoch; None when there is nothing."""
        return await self._history.extent()

    def stats(self) -> HistoryStats:
        """How the history is doing: what waits, what was lost, how large it is. Does not wait."""
        return self._history.stats()

    async def _answer_whole(
        self,
        start: float | datetime,
        end: float | datetime | None,
        answered: Callable[[TimeSpan, Recording], T],
    ) -> T:
        """From *start* to *end*, cut at whole steps: as large ones as cut off little, or the finest still kept."""
        extent = await self._history.extent()
        exact = time_span(start, self._now() if end is None else end, 1, limit=None)
        first = max(exact.start, extent[0]) if extent else exact.start
        steps = [tier.step for tier in self._history.config.tiers]
        fitting = [step for step in steps if step * _EDGE <= exact.end - first]
        for step in steps[max(len(fitting) - 1, 0) :]:
            asked = time_span(min(first, exact.end - 1), exact.end, step, limit=None)
            try:
                recording = await self._history.read(asked.start, asked.end, asked.step)
            except ConfigError:  # of that time only larger steps are kept
                if step == steps[-1]:
                    raise
                continue
            return await asyncio.to_thread(answered, asked, recording)
        raise AssertionError("there is always a tier")

    def _now(self) -> float:
        return self._clock.wall_ns() / 1e9


def _merged(recording: Recording) -> tuple[Block, Names]:
    return merge([timed.block for timed in recording.blocks]), recording.names
