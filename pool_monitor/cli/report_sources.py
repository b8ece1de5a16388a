"""The sources of ``pool-monitor report``: a running service, or the file of a history."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from math import ceil, floor
from typing import NamedTuple

from msgspec.structs import replace

from pool_monitor.alerts.recording import decode_transitions
from pool_monitor.errors import ConfigError, ConnectError
from pool_monitor.metrics import WINDOWS, queries
from pool_monitor.metrics.block import Block, merge
from pool_monitor.metrics.gauges import LEVELS, resource_range
from pool_monitor.metrics.queries import Selection
from pool_monitor.metrics.recording import Recording, TimedBlock
from pool_monitor.metrics.timespan import TimeSpan, seconds_of, time_span
from pool_monitor.service import TRANSITIONS_MAX
from pool_monitor.service.client import Client, open_client, resolve
from pool_monitor.snapshot import AlertTransition, CallStats, Range, ResourceRange, Snapshot, Summary, TrialView
from pool_monitor.storage import Reader
from pool_monitor.storage.error_groups import with_pending
from pool_monitor.view import format as fmt
from pool_monitor.view.freshness import LIVE
from pool_monitor.view.notices import notices
from pool_monitor.view.period_report import PeriodReport

DAY = 86_400
STEPS = (1, 5, 10, 30, 60, 300, 600, 1800, 3600, 7200, 21_600, DAY)
"""Default steps."""
ROWS_LIMIT = 1_000_000
"""The most rows, one per operation and step, of a report."""
CLOCKS_DIFFER_S = 60
"""Blocks that begin more than this many seconds from now are in the future: another machine may have written them."""
MANY = 150
"""With more steps than this in the period, a longer step is chosen."""


class ReportQuery(NamedTuple):
    """The requested period. Times and durations are in seconds. None: not requested."""

    since: int | None = None
    """The length of the period, up to its end."""
    start: float | None = None
    end: float | None = None
    step: int | None = None
    by_operation: bool = False
    """Whether to fill `ReportData.steps`."""


class Step(CallStats, frozen=True, kw_only=True):
    """The calls of one operation in one step of the period."""

    start: float
    """Seconds since the epoch."""
    pool: str
    operation: str
    covered_seconds: float
    """How much of the step was measured; ``rate`` is calls per measured second."""


class ReportData(NamedTuple):
    report: PeriodReport
    steps: list[Step]
    """The measured steps of every operation. Empty unless requested."""
    recording: Recording | None
    """The whole histograms, one block per step. None: the source is a running service, which has only percentiles."""


# -- from a running service -------------------------------------------------------------------------------------------


async def from_service(address: str | None, query: ReportQuery) -> ReportData:
    """Report what a running service has in memory. Raises ConnectError, and ConfigError for any other period."""
    async with open_client(resolve(address)) as service:
        now = await service.snapshot("1m")
        window = _window(now, query)
        summary = await service.summary(window)
        latest = await service.snapshot(window)
        length = summary.end - summary.start
        grains = [window.step for window in WINDOWS.values() if window.seconds >= length]
        step = query.step or step_for(length, grains)
        timelines = {name: await _timeline(service, summary, step, name) for name in summary.pools}
        figures = await _figures(service, summary, length)
        changes = await _changes(service, summary)
        tuned = await _tuned(service, summary)
        steps: list[Step] = []
        if query.by_operation:
            for pool, operation in _operations(summary):
                steps += _steps(await _timeline(service, summary, step, pool, operation), pool, operation)
    return ReportData(
        PeriodReport(
            source=f"{now.service.name}, pid {now.service.pid}@{now.service.host}, up {fmt.age(now.uptime)}",
            doubts=tuple(notice.text for notice in notices(replace(now, alerts=()), None, LIVE)),
            summary=summary,
            courses=timelines,
            error_groups={name: pool.error_groups for name, pool in latest.pools.items() if pool.error_groups},
            figures=figures,
            transitions=changes,
            recommendations=latest.recommendations,
            changes=tuned,
            alerts=latest.alerts if latest.monitor.alerts is not None else None,
            receivers=latest.monitor.alerts.receivers if latest.monitor.alerts is not None else (),
            resources=latest.resources if latest.resources.sampled_age is not None else None,
        ),
        steps,
        None,
    )


async def _changes(service: Client, summary: Summary) -> tuple[AlertTransition, ...]:
    """The changes of alerts in the time of *summary*, the oldest first, as far as the service has them in memory."""
    try:
        found = (await service.alerts(limit=TRANSITIONS_MAX)).transitions
    except (ConfigError, ConnectError):  # it is of a version that has none
        return ()
    return tuple(change for change in reversed(found) if summary.start <= change.at <= summary.end)


async def _tuned(service: Client, summary: Summary) -> tuple[TrialView, ...]:
    """The changes of settings that were proposed, made or ended in the time of *summary*, the newest first."""
    try:
        found = (await service.tuning(limit=TRANSITIONS_MAX)).history
    except (ConfigError, ConnectError):  # it is of a version that has none
        return ()
    return tuple(one for one in found if one.changed_at >= summary.start and one.started_at <= summary.end)


async def _figures(service: Client, summary: Summary, length: float) -> ResourceRange | None:
    """The figures of resources in the time of *summary*. None: the service is of a version that has none."""
    step = next((step for step, seconds in LEVELS if seconds >= length), LEVELS[-1][0])
    start, end = ceil(summary.start / step) * step, floor(summary.end)
    try:
        return await service.resources(start, end, step)
    except (ConfigError, ConnectError):
        return None


async def _timeline(service: Client, summary: Summary, step: int, pool: str, operation: str | None = None) -> Range:
    end = max(floor(summary.end), floor(summary.start) + 1)  # without the current second
    return await service.range(summary.start, end, step, pool=pool, operation=operation)


def _window(now: Snapshot, query: ReportQuery) -> str:
    since = query.since or WINDOWS["15m"].seconds
    fitting = [name for name, window in WINDOWS.items() if window.seconds == since]
    if query.start is None and query.end is None and fitting:
        return fitting[0]
    history = now.monitor.history
    elsewhere = (
        f"for other periods, report on its history, {history.path}"
        if history
        else "other periods need a history, and this service keeps none"
    )
    raise ConfigError(
        f"{now.service.name}: a running service reports only on a --window, the last {', '.join(WINDOWS)}; {elsewhere}"
    )


# -- from a file ------------------------------------------------------------------------------------------------------


def seconds_back(window: str | None, since: str | None) -> int | None:
    """Return the seconds that ``--window`` or ``--since`` gives. None: neither was given. Raises ConfigError."""
    if window is not None:
        return int(WINDOWS[window].seconds)
    return None if since is None else seconds_of(since, "--since")


def is_store(source: str) -> bool:
    """Return whether *source* is a file, not a service."""
    return not source.startswith(("http://", "https://")) and (source.endswith(".db") or os.path.isfile(source))  # noqa: PTH113 - raises nothing


def from_store(path: str, query: ReportQuery, now: float | None = None) -> ReportData:
    """Report what a history on disk holds, up to *now* unless the query names a later time.

    Raises ConfigError if the file is not a history, or if it has nothing for the period.
    """
    with Reader(path) as reader:
        future, kept = recorded(reader, path, query, now)
        doubts = _future_doubts(reader, future)
        start, end = period(kept, query)
        if end <= start:
            raise nothing_recorded(path, f"from {fmt.timestamp(start)} on", kept)
        tiers = [tier for tier in reader.tiers() if tier.since <= start]
        step = query.step or step_for(end - start, [tier.step for tier in tiers])
        grain = max((tier.step for tier in tiers if step % tier.step == 0), default=1)
        first, last = floor(start / grain) * grain, ceil(end / grain) * grain
        recording = reader.read(first, last, step)
        found = reader.error_groups(first, last)
        changes = _stored_changes(reader, first, last, doubts)
        figures = _stored_figures(reader, time_span(first, last, step), doubts)
        if reader.damaged:
            doubts.append(f"{fmt.plural(reader.damaged, 'block')} of the file cannot be read: counts are lower bounds")
    if not recording.blocks:
        raise nothing_recorded(path, f"from {from_to(start, end)}", kept)
    span = time_span(first, last, step)
    recording = merged_by_step(recording, span)
    if query.start is None and start == kept[0]:  # the first block may begin long before its content
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
            error_groups=with_pending(found[2], (), max(found[1] - found[0], 1)),
            transitions=changes,
            figures=figures,
        ),
        list(_steps_of_all(recording, span, summary)) if query.by_operation else [],
        recording,
    )


def _stored_changes(reader: Reader, first: float, last: float, doubts: list[str]) -> tuple[AlertTransition, ...]:
    """The changes of alerts from *first* to *last*. Those that cannot be read are left out, with a doubt."""
    try:
        found, bad = decode_transitions(body for _at, body in reader.transitions(first, last))
    except ConfigError as error:
        doubts.append(f"alerts are left out: {error}")
        return ()
    if bad:
        doubts.append(f"{fmt.plural(bad, 'change')} of alerts cannot be read")
    return tuple(found)


def _stored_figures(reader: Reader, span: TimeSpan, doubts: list[str]) -> ResourceRange | None:
    """The figures of resources in *span*. If there are too many to read, None, and a doubt."""
    try:
        return resource_range(reader.gauges(span.start, span.end, span.step), span, None)
    except ConfigError as error:
        doubts.append(f"resources are left out: {error}")
        return None


def recorded(reader: Reader, path: str, query: ReportQuery, now: float | None = None) -> tuple[int, tuple[int, int]]:
    """Return the time from which on blocks are in the future, and the extent of the history without those, unless
    *query* or the file has no others. Raises ConfigError if the file has no blocks.
    """
    future = int((time.time() if now is None else now) + CLOCKS_DIFFER_S)
    kept = reader.extent() if future <= (query.start or 0) else reader.extent(end=future) or reader.extent()
    if kept is None:
        raise ConfigError(f"{path}: nothing has been recorded in it yet")
    return future, kept


def nothing_recorded(path: str, when: str, kept: tuple[int, int]) -> ConfigError:
    """The error for a period, *when*, of which the history has nothing. *kept*: what it has."""
    return ConfigError(f"{path}: nothing was recorded {when}; the recorded period is from {from_to(*kept)}")


def _future_doubts(reader: Reader, now: int) -> list[str]:
    """Return a doubt about blocks that begin at *now* or later, if there are any."""
    ahead = reader.extent(start=now)
    if ahead is None:
        return []
    blocks = f"{fmt.plural(reader.ahead(now), 'block')} in the future, from {from_to(*ahead)}"
    return [f"{blocks}: the clock was ahead then, or is behind now; --start and --end select them"]


def period(kept: tuple[int, int], query: ReportQuery) -> tuple[float, float]:
    """Return start and end of the period of *query*, within *kept* where possible. The default is its last day."""
    first, last = kept
    end = last if query.end is None else query.end
    if query.start is not None:
        return query.start, end
    start = end - (query.since or DAY)
    return (max(start, first) if first < end else start), end


def step_for(length: float, grains: Sequence[int]) -> int:
    """Return the smallest step that is a multiple of one of *grains* and fits at most `MANY` times into *length*. All
    are in seconds.
    """
    fitting = [step for step in (*STEPS, *grains) if any(step % grain == 0 for grain in grains)]
    return min((step for step in fitting if length / step <= MANY), default=max(fitting, default=DAY))


def merged_by_step(recording: Recording, span: TimeSpan) -> Recording:
    """Return *recording* with one block per step of *span*, which makes many queries cheaper."""
    blocks: dict[int, list[Block]] = defaultdict(list)
    for timed in recording.blocks:
        blocks[(timed.start - span.start) // span.step * span.step + span.start].append(timed.block)
    return Recording(recording.names, [TimedBlock(start, span.step, merge(some)) for start, some in blocks.items()])


def from_to(start: float, end: float) -> str:
    """The period in words."""
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
