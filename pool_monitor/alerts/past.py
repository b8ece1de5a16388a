"""Reads what rules need of the past: from memory, or, where that does not reach, from the history on disk.

Theory of operation
-------------------
An input of the past is about a stretch: its *length* in seconds, which ended *back* seconds ago. Summaries of calls
are read once for a stretch, whatever the number of metrics; everything else is read once for an input. An answer is
used again for `max(interval, length / 240)` seconds, because it hardly changes in less.

One task reads, one stretch after the other, and computes in a thread. An evaluation waits for it a moment. When the
disk takes longer, the evaluations go on with the answers of before, until these are too old. What fails, or is too old,
costs only the rules that use it.

Time that was not measured is unknown, never 0: a stretch of which less than half was measured has no value.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from math import ceil, fsum
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from pool_monitor.alerts.catalogue import METRICS, Metric, Scope, figure_of, find
from pool_monitor.alerts.getters import calls_getter
from pool_monitor.alerts.inputs import Input, Labels, Sample, Samples
from pool_monitor.alerts.instances import Instances, labels_for
from pool_monitor.alerts.line import fit
from pool_monitor.alerts.rule import DEFAULT_WINDOW
from pool_monitor.errors import PoolError
from pool_monitor.metrics import WINDOWS
from pool_monitor.metrics.gauges import LEVELS
from pool_monitor.metrics.queries import PoolCounts
from pool_monitor.snapshot import CallStats, ErrorRate, Summary
from pool_monitor.telemetry import describe

if TYPE_CHECKING:
    from pool_monitor.clock import Clock
    from pool_monitor.config import HistoryConfig
    from pool_monitor.metrics import LiveMetrics
    from pool_monitor.metrics.queries import Selection
    from pool_monitor.snapshot import Range, ResourceRange
    from pool_monitor.storage import HistoryMetrics

MEMORY_S = 3600
"""How far back memory reaches, in seconds."""
POINTS = 240
"""Most points of a line, and how often a stretch is read anew while it passes."""
PATIENCE_S = 1.0
"""How long an evaluation waits for answers."""
_LATE_S = 60.0
"""How much longer than usual an answer is used while the next one does not come."""
_RETRY_S = 30.0
"""Longest pause before a reading that failed is tried again."""
_WINDOW_STEPS = tuple((window.step, int(window.seconds)) for window in WINDOWS.values())
MOMENT_S = 60.0
"""The stretch that stands for a moment of the past: a metric that covers no window is the mean of its readings."""
_CELLS = 12
_CELL_S = 60.0
"""A stretch is divided into so many parts, or into minutes. A part is measured if there is any reading in it: readings
are up to a minute apart."""
COVERED = 0.5
"""Least share of a stretch that must have been measured."""
COURSES = frozenset(name for name, metric in METRICS.items() if metric.kept == "calls" and name != "pool.busy_ratio")
"""Metrics of pools and calls that are known step by step."""


class Lookback(NamedTuple):
    """Seconds: a time in the past, relative to the evaluation."""

    back: float
    length: float

    @property
    def reach(self) -> float:
        return self.back + self.length


def is_past(one: Input) -> bool:
    """Return whether *one* is about the past, and not of a Snapshot."""
    return one.back > 0 or one.kind in ("calls", "fit")


def stretch_of(one: Input) -> Lookback:
    """Return the time that *one*, an input of the past, is about."""
    if one.kind in ("calls", "fit"):
        return Lookback(one.back, one.over)
    return Lookback(one.back, WINDOWS[one.window].seconds if one.window in WINDOWS else MOMENT_S)


_Key: TypeAlias = Lookback | Input


class _Value(NamedTuple):
    """A sample without its labels."""

    value: float | None
    calls: int | None = None
    more: tuple[float, ...] = ()


class _Answer(NamedTuple):
    at_s: float
    """When it was read, on the monotonic clock."""
    found: Any
    """A Summary, `PoolCounts` by pool, or values by what `_name_of` returns; a text: why it could not be read."""


_UNKNOWN = _Value(None)
NO_CALLS = CallStats(rate=0.0)
"""No calls while it was measured are no calls."""
_NOTHING = PoolCounts(0.0, ErrorRate(calls=0, errors=0, error_ratio=None), {})


class Past:
    """Reads inputs of the past. *history* returns the queries of the history, or None while there is none.

    Bound: one answer for each stretch and input that the rules in force use, with a value for each instance.
    """

    def __init__(
        self,
        metrics: LiveMetrics,
        history: Callable[[], HistoryMetrics | None],
        clock: Clock,
        interval: float,
        kept: HistoryConfig,
    ) -> None:
        self._metrics, self._history, self._clock = metrics, history, clock
        self._interval, self._kept = interval, kept
        self._answers: dict[_Key, _Answer] = {}
        self._task: asyncio.Task[None] | None = None

    async def prepare(self, wanted: Iterable[Input]) -> None:
        """Read what of *wanted* is due. Waits at most `PATIENCE_S`, and not at all while an earlier reading goes on."""
        keys = {_key(one): stretch_of(one) for one in wanted}
        for key in self._answers.keys() - keys:
            del self._answers[key]
        if self._task is not None and not self._task.done():
            return
        now_s = self._clock.monotonic_ns() / 1e9
        due = [
            (key, stretch)
            for key, stretch in keys.items()
            if (answer := self._answers.get(key)) is None or now_s - answer.at_s >= self._lifetime(answer, stretch)
        ]
        if due:
            self._task = asyncio.get_running_loop().create_task(self._read_all(due), name="pool_monitor alerts past")
            await asyncio.wait([self._task], timeout=PATIENCE_S)

    async def settled(self) -> None:
        """Wait until the reading that goes on has ended, however long it takes."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def close(self) -> None:
        """End the reading that goes on."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    def samples(self, one: Input, instances: Instances) -> Samples:
        """Return the samples of *one*, one for each instance that exists now, and for each operation that was called
        then. Raises LookupError with the reason why it could not be read.
        """
        key, stretch, metric = _key(one), stretch_of(one), find(one.metric)
        answer = self._answers.get(key)
        if answer is None:
            raise LookupError("it is not read yet")
        if isinstance(answer.found, str):
            raise LookupError(answer.found)
        age_s = self._clock.monotonic_ns() / 1e9 - answer.at_s
        if age_s > 2 * self._lifetime(answer, stretch) + _LATE_S:
            raise LookupError(f"the history has not answered for {age_s:.0f} s")
        if isinstance(answer.found, Summary):
            return Samples(_of_summary(metric, answer.found, stretch, instances))
        if one.kind == "calls":
            return Samples(_of_counts(metric.scope, answer.found, stretch, instances))
        return Samples(
            Sample(labels, *answer.found.get(_name_of(metric, labels), _UNKNOWN))
            for labels, _view in instances.of(metric.scope)
        )

    def _lifetime(self, answer: _Answer, stretch: Lookback) -> float:
        lifetime = max(self._interval, stretch.length / POINTS)
        return min(lifetime, max(self._interval, _RETRY_S)) if isinstance(answer.found, str) else lifetime

    # -- reading ------------------------------------------------------------------------------------------------

    async def _read_all(self, due: Sequence[tuple[_Key, Lookback]]) -> None:
        for key, stretch in due:
            at_s = self._clock.monotonic_ns() / 1e9
            try:
                found = await self._read(key, stretch)
            except PoolError as error:
                found = str(error)
            except Exception as error:  # noqa: BLE001 - it costs the rules that use it, not the others
                found = f"it could not be read: {describe(error)}"
            self._answers[key] = _Answer(at_s, found)

    async def _read(self, key: _Key, stretch: Lookback) -> Any:
        now = self._clock.wall_ns() / 1e9
        start, end = now - stretch.reach, now - stretch.back
        history = self._history()
        in_memory = stretch.reach <= MEMORY_S and (history is None or self._metrics.since <= start)
        if not in_memory and history is None:
            return f"it reaches back {stretch.reach:.0f} s, and there is no history now"
        if isinstance(key, Lookback):
            if in_memory:
                return await asyncio.to_thread(self._metrics.deferred_summary(start, end))
            assert history is not None
            return await history.summary(*self._aligned(start, stretch))
        if key.kind == "calls":
            if in_memory:
                return await asyncio.to_thread(self._metrics.deferred_counts(start, end))
            assert history is not None
            return await history.counts(*self._aligned(start, stretch))
        metric = find(key.metric)
        figure = figure_of(metric.scope, metric.path)
        if figure is not None:
            step = _step(stretch, LEVELS if in_memory else self._kept.tiers)
            if in_memory:
                found = await asyncio.to_thread(self._metrics.deferred_resources(start, end, step, figure=figure[0]))
            else:
                assert history is not None
                found = await history.resources(start, end, step, figure=figure[0])
            return await asyncio.to_thread(_of_figures, key, metric, found, stretch, now)
        if metric.name not in COURSES:
            return f"the course of {metric.name} is not kept"
        by: Any = metric.scope
        step = _step(stretch, _WINDOW_STEPS if in_memory else self._kept.tiers)
        if in_memory:
            ranges = await asyncio.to_thread(self._metrics.deferred_ranges(start, end, step, by=by))
        else:
            assert history is not None
            ranges = await history.ranges(start, end, step, by=by)
        return await asyncio.to_thread(_of_ranges, key, metric, ranges, stretch, now)

    def _aligned(self, start: float, stretch: Lookback) -> tuple[float, float]:
        """Return the steps of the history that come nearest to *stretch*, and together are as long."""
        kept = self._kept.tiers
        step = next((step for step, retention in kept if retention >= stretch.reach), kept[-1].step)
        first = round(start / step) * step
        return first, first + max(round(stretch.length / step), 1) * step


def _key(one: Input) -> _Key:
    """Return what is read for *one*: where several inputs have one answer, the same for all of them."""
    if one.kind == "calls":
        return Input(metric="", kind="calls", back=one.back, over=one.over)
    metric = METRICS.get(one.metric)
    return stretch_of(one) if one.kind == "value" and metric is not None and metric.kept == "calls" else one


def _step(stretch: Lookback, kept: Iterable[tuple[int, int]]) -> int:
    """Return the step for at most `POINTS` points of *stretch*: a multiple of the finest step that is *kept* for as
    long. *kept* has steps, and for how many seconds each of them is kept, ascending.
    """
    step = next((step for step, seconds in kept if seconds >= stretch.reach), None)
    if step is None:
        *_, (step, _seconds) = kept
    return step * max(ceil(stretch.length / POINTS / step), 1)


# -- from answers to samples ------------------------------------------------------------------------------------------


def _of_summary(metric: Metric, found: Summary, stretch: Lookback, instances: Instances) -> Iterator[Sample]:
    value_of, calls_of = summary_getter(metric), calls_getter(metric)
    for name, now in instances.snapshot.pools.items():
        pool = found.pools.get(name)
        views: dict[Labels, Any] = {}
        if metric.scope == "pool":
            views[labels_for("pool", name)] = pool
        elif metric.scope == "operation":
            then = {} if pool is None else pool.operations
            views = {labels_for("operation", name, one): then.get(one, NO_CALLS) for one in (*now.operations, *then)}
        else:
            slots = {} if pool is None else pool.workers
            views = {labels_for("worker", name, slot): slots.get(slot, NO_CALLS) for slot in now.workers}
        known = pool is not None and pool.covered_seconds >= COVERED * stretch.length
        for labels, view in views.items():
            value = value_of(view) if known else None
            calls = None if calls_of is None or pool is None else calls_of(view)
            yield Sample(labels, None if value is None else float(value), calls)


def _of_counts(
    scope: Scope, found: Mapping[str, PoolCounts], stretch: Lookback, instances: Instances
) -> Iterator[Sample]:
    for name, now in instances.snapshot.pools.items():
        pool = found.get(name, _NOTHING)
        covered_s = min(pool.covered_s, stretch.length)
        rates = {labels_for("pool", name): pool.total}
        if scope == "operation":
            names = dict.fromkeys((*now.operations, *pool.operations))
            rates = {labels_for("operation", name, one): pool.operations.get(one, _NOTHING.total) for one in names}
        for labels, rate in rates.items():
            value = rate.error_ratio if covered_s >= COVERED * stretch.length else None
            yield Sample(labels, value, rate.calls, (float(rate.calls), float(rate.errors), covered_s))


def summary_getter(metric: Metric) -> Callable[[Any], float | None]:
    """Return what gets *metric* from a pool of a Summary, or from an operation or worker of it."""
    if metric.name == "pool.busy_ratio":
        return attrgetter("utilisation")
    if metric.name == "pool.utilisation":
        return _busy_share
    return attrgetter(".".join(metric.path))


def _busy_share(view: Any) -> float | None:
    """Return the mean share of the wanted workers that were busy, of a summary or a step."""
    return view.busy / view.size if view.busy is not None and view.size else None


def _of_figures(
    one: Input, metric: Metric, found: ResourceRange, stretch: Lookback, now: float
) -> dict[str | Labels, _Value]:
    figure, statistic = figure_of(metric.scope, metric.path) or ("", "mean")
    answer: dict[str | Labels, _Value] = {}
    for series in found.series:
        kind, _, slot = series.subject.partition(" ")
        if kind == metric.scope and series.figure == figure:
            values = series.mean if statistic == "mean" else series.high
            points = _points(found.start - now, found.step, values, stretch)
            answer[slot if kind == "worker" else ()] = _value(one, points, _is_measured(points, stretch), statistic)
    return answer


def _of_ranges(
    one: Input, metric: Metric, found: Mapping[Selection, Range], stretch: Lookback, now: float
) -> dict[str | Labels, _Value]:
    path = metric.path[1:] if metric.path[0] == "total" else metric.path
    value_of: Callable[[Any], Any] = _busy_share if path == ("utilisation",) else attrgetter(".".join(path))
    window_s = WINDOWS[one.window or DEFAULT_WINDOW].seconds
    grows = metric.unit == "count" and metric.windowed  # with the length of the step
    answer: dict[str | Labels, _Value] = {}
    for key, course in found.items():
        values: list[float | None] = []
        for point in course.points:
            value = value_of(point) if point.covered_seconds >= course.step * COVERED else None
            values.append(value * window_s / point.covered_seconds if grows and value is not None else value)
        covered_s = fsum(point.covered_seconds for point in course.points)
        points = _points(course.start - now, course.step, values, stretch)
        labels = labels_for(metric.scope, key.pool or "", key.operation or key.worker or "")
        answer[labels] = _value(one, points, covered_s >= COVERED * stretch.length, "mean")
    return answer


def _points(start: float, step: float, values: Iterable[float | None], stretch: Lookback) -> list[tuple[float, float]]:
    """Return the known values with the seconds from now to the middle of their steps, within *stretch*."""
    times = ((start + step * (number + 0.5), value) for number, value in enumerate(values))
    return [
        (time, value)
        for time, value in times
        if value is not None and -stretch.reach - step / 2 <= time <= step / 2 - stretch.back
    ]


def _is_measured(points: Iterable[tuple[float, float]], stretch: Lookback) -> bool:
    """Return whether enough of *stretch* has readings."""
    cells = max(min(_CELLS, int(stretch.length // _CELL_S)), 1)
    known = {min(max(int((time + stretch.reach) / stretch.length * cells), 0), cells - 1) for time, _ in points}
    return len(known) >= cells * COVERED


def _value(one: Input, points: Sequence[tuple[float, float]], measured: bool, statistic: str) -> _Value:
    if not measured or not points:
        return _UNKNOWN
    if one.kind == "fit":
        line = fit(points)
        if line is None:
            return _UNKNOWN
        return _Value(line.value, None, (line.slope, line.slope_error, line.explained, float(line.points)))
    values = [value for _time, value in points]
    return _Value(max(values) if statistic == "high" else fsum(values) / len(values))


def _name_of(metric: Metric, labels: Labels) -> str | Labels:
    """Return the key of an instance in an answer. The figures of workers do not name the pool."""
    return labels[1][1] if metric.scope == "worker" and metric.kept == "figures" else labels
