"""Where ``pool-monitor report`` has its numbers from: a running service, or the file of a history."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from math import ceil, floor
from typing import NamedTuple

from pool_monitor.errors import ConfigError
from pool_monitor.metrics import WINDOWS, queries
from pool_monitor.metrics.block import Block, merge
from pool_monitor.metrics.queries import Selection
from pool_monitor.metrics.recording import Recording, TimedBlock
from pool_monitor.metrics.timespan import TimeSpan, time_span
from pool_monitor.service.client import Client, open_client, resolve
from pool_monitor.snapshot import CallStats, Range, Snapshot, Summary
from pool_monitor.storage import Reader
from pool_monitor.view import format as fmt
from pool_monitor.view.freshness import LIVE
from pool_monitor.view.notices import notices
from pool_monitor.view.period_report import PeriodReport

DAY = 86_400
STEPS = (1, 5, 10, 30, 60, 300, 600, 1800, 3600, 7200, 21_600, DAY)
"""Default steps."""
ROWS_LIMIT = 1_000_000
"""Most steps of operations."""
CLOCKS_DIFFER_S = 60
"""What begins later than this from now lies in the future: the file may be of another machine."""
MANY = 150
"""Steps of a range, above which a longer step is chosen."""


class ReportQuery(NamedTuple):
    """What time is to be reported on; times and lengths in seconds, None where nothing was said."""

    since: int | None = None
    """How far to look back."""
    start: float | None = None
    end: float | None = None
    step: int | None = None
    by_operation: bool = False
    """Whether `ReportData.steps` is wanted."""


class Step(CallStats, frozen=True, kw_only=True):
    """How the calls of one operation went in one step of the time reported on."""

    start: float
    """Seconds since the epoch."""
    pool: str
    operation: str
    covered_seconds: float
    """How much of the step was measured; ``rate`` is calls per second of that."""


class ReportData(NamedTuple):
    report: PeriodReport
    steps: list[Step]
    """Of every operation, those that were measured. Empty unless asked for."""
    recording: Recording | None
    """With whole histograms, a block per step; None: from a running service, which tells percentiles only."""


# -- from a running service -------------------------------------------------------------------------------------------


async def from_service(address: str | None, query: ReportQuery) -> ReportData:
    """What a running service has in memory. Raises ConnectError, and ConfigError for a time it cannot answer for."""
    async with open_client(resolve(address)) as service:
        now = await service.snapshot("1m")
        window = _window(now, query)
        summary = await service.summary(window)
        length = summary.end - summary.start
        grains = [window.step for window in WINDOWS.values() if window.seconds >= length]
        step = query.step or step_for(length, grains)
        timelines = {name: await _timeline(service, summary, step, name) for name in summary.pools}
        steps: list[Step] = []
        if query.by_operation:
            for pool, operation in _operations(summary):
                steps += _steps(await _timeline(service, summary, step, pool, operation), pool, operation)
    return ReportData(
        PeriodReport(
            source=f"{now.service.name}, pid {now.service.pid}@{now.service.host}, up {fmt.age(now.uptime)}",
            doubts=tuple(notice.text for notice in notices(now, None, LIVE)),
            summary=summary,
            courses=timelines,
        ),
        steps,
        None,
    )


async def _timeline(service: Client, summary: Summary, step: int, pool: str, operation: str | None = None) -> Range:
    end = max(floor(summary.end), floor(summary.start) + 1)  # without the second that is not over
    return await service.range(summary.start, end, step, pool=pool, operation=operation)


def _window(now: Snapshot, query: ReportQuery) -> str:
    since = query.since or WINDOWS["15m"].seconds
    fitting = [name for name, window in WINDOWS.items() if window.seconds == since]
    if query.start is None and query.end is None and fitting:
        return fitting[0]
    history = now.monitor.history
    elsewhere = f"in its history: report on {history.path}" if history else "in a history, and it keeps none"
    raise ConfigError(
        f"{now.service.name}: a running service reports on a --window, the last {', '.join(WINDOWS)}; other times are "
        f"{elsewhere}"
    )


# -- from a file ------------------------------------------------------------------------------------------------------


def is_store(source: str) -> bool:
    """Whether *source* means a file and no service."""
    return not source.startswith(("http://", "https://")) and (source.endswith(".db") or os.path.isfile(source))  # noqa: PTH113 - it raises nothing


def from_store(path: str, query: ReportQuery, now: float | None = None) -> ReportData:
    """What a history on disk holds, up to *now* unless a later time is asked for.

    Raises ConfigError for a file that is none, and where there is nothing in it.
    """
    with Reader(path) as reader:
        future = int((time.time() if now is None else now) + CLOCKS_DIFFER_S)
        kept = reader.extent() if future <= (query.start or 0) else reader.extent(end=future) or reader.extent()
        if kept is None:
            raise ConfigError(f"{path}: nothing has been recorded in it yet")
        doubts = _future_doubts(reader, future)
        start, end = period(kept, query)
        if end <= start:
            raise _nothing(path, f"from {fmt.timestamp(start)} on", kept)
        tiers = [tier for tier in reader.tiers() if tier.since <= start]
        step = query.step or step_for(end - start, [tier.step for tier in tiers])
        grain = max((tier.step for tier in tiers if step % tier.step == 0), default=1)
        first, last = floor(start / grain) * grain, ceil(end / grain) * grain
        recording = reader.read(first, last, step)
        if reader.damaged:
            doubts.append(f"{fmt.plural(reader.damaged, 'block')} of the file cannot be read: counts are lower bounds")
    if not recording.blocks:
        raise _nothing(path, f"from {_from_to(start, end)}", kept)
    span = time_span(first, last, step)
    recording = merged_by_step(recording, span)
    if query.start is None and start == kept[0]:  # where its slot begins, which may be long before what is in it
        measured = [
            point.start for point in queries.range_of(recording, span, Selection()).points if point.covered_seconds
        ]
        span = span._replace(start=int(min(measured, default=span.start)))
        first = max(first, span.start)
    summary = queries.summary(merge([timed.block for timed in recording.blocks]), recording.names, first, last)
    return ReportData(
        PeriodReport(
            source=f"history in {path}",
            doubts=tuple(doubts),
            summary=summary,
            courses=_timelines(recording, span, summary),
        ),
        list(_steps_of_all(recording, span, summary)) if query.by_operation else [],
        recording,
    )


def _nothing(path: str, when: str, kept: tuple[int, int]) -> ConfigError:
    return ConfigError(f"{path}: nothing was recorded {when}; what there is, is from {_from_to(*kept)}")


def _future_doubts(reader: Reader, now: int) -> list[str]:
    """That there are slots which begin at *now* or later, if so."""
    ahead = reader.extent(start=now)
    if ahead is None:
        return []
    slots = f"{fmt.plural(reader.ahead(now), 'slot')} in the future, from {_from_to(*ahead)}"
    return [f"{slots}: a clock was ahead, or this one is behind; --start and --end show them"]


def period(kept: tuple[int, int], query: ReportQuery) -> tuple[float, float]:
    """From when to when, where there is something of the time *kept*: the last day of that if nothing was said."""
    first, last = kept
    end = last if query.end is None else query.end
    if query.start is not None:
        return query.start, end
    start = end - (query.since or DAY)
    return (max(start, first) if first < end else start), end


def step_for(length: float, grains: Sequence[int]) -> int:
    """A step that is a multiple of one of *grains* and of which there are not too many in *length*; all in seconds."""
    fitting = [step for step in (*STEPS, *grains) if any(step % grain == 0 for grain in grains)]
    return min((step for step in fitting if length / step <= MANY), default=max(fitting, default=DAY))


def merged_by_step(recording: Recording, span: TimeSpan) -> Recording:
    """The same with one block per step, so that many questions about it cost less."""
    blocks: dict[int, list[Block]] = defaultdict(list)
    for timed in recording.blocks:
        blocks[(timed.start - span.start) // span.step * span.step + span.start].append(timed.block)
    return Recording(recording.names, [TimedBlock(start, span.step, merge(some)) for start, some in blocks.items()])


def _from_to(start: float, end: float) -> str:
    return f"{fmt.timestamp(start)} to {fmt.timestamp(end)}"


# -- step by step -----------------------------------------------------------------------------------------------------


def _operations(summary: Summary) -> Iterator[tuple[str, str]]:
    for name, pool in summary.pools.items():
        for operation in pool.operations:
            yield name, operation


def _timelines(recording: Recording, span: TimeSpan, summary: Summary) -> dict[str, Range]:
    by_pool = recording.by([pool for pool, _operation, _worker in recording.names.rows], list(summary.pools))
    return {name: queries.range_of(data, span, Selection(name)) for name, data in by_pool.items()}


def _steps_of_all(recording: Recording, span: TimeSpan, summary: Summary) -> Iterator[Step]:
    operations = list(_operations(summary))
    if len(operations) * span.steps > ROWS_LIMIT:
        raise ConfigError(
            f"{len(operations):,} operations in {span.steps:,} steps are more than {ROWS_LIMIT:,} rows; ask for a "
            "larger --step or for less time"
        )
    keys = [(pool, operation) for pool, operation, _worker in recording.names.rows]
    for (pool, operation), data in recording.by(keys, operations).items():
        yield from _steps(queries.range_of(data, span, Selection(pool)), pool, operation)


def _steps(timeline: Range, pool: str, operation: str) -> Iterator[Step]:
    for point in timeline.points:
        if point.covered_seconds:
            calls = {name: getattr(point, name) for name in CallStats.__struct_fields__}
            yield Step(
                start=point.start, pool=pool, operation=operation, covered_seconds=point.covered_seconds, **calls
            )
