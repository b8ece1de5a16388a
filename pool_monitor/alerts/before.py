"""What the value of an alert was before the alert began: read from memory, once, so that its course shows the change.

Rules with a threshold on calls, gauges of pools or resources have such a past. A value is what the rule would have
judged a minute ago, two minutes ago, and so on. Where nothing was measured, or too few calls, it is unknown.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from pool_monitor.alerts.catalogue import METRICS, Metric, figure_of
from pool_monitor.alerts.getters import calls_getter
from pool_monitor.alerts.past import COVERED, MOMENT_S, NO_CALLS, summary_getter
from pool_monitor.alerts.rule import Threshold
from pool_monitor.log import logger
from pool_monitor.metrics import WINDOWS
from pool_monitor.parts import retrieve_error
from pool_monitor.telemetry import describe

if TYPE_CHECKING:
    from pool_monitor.alerts.inputs import Labels
    from pool_monitor.alerts.measured import ValueCourse
    from pool_monitor.alerts.rule import CheckedRule
    from pool_monitor.clock import Clock
    from pool_monitor.metrics import LiveMetrics
    from pool_monitor.snapshot import PoolSummary, Summary

STEP_S, STEPS = 60.0, 15
"""The distance of two values in seconds, and how many are read."""
PAUSE_S = 15.0
"""Least time from one reading to the next, in seconds. Alerts that begin meanwhile share one."""
_AT_ONCE = 20  # courses between two moments at which others may work
WAITING = 1000
"""Most alerts that wait for a reading. Those beyond have no past."""


class Begun(NamedTuple):
    """An alert that has begun, and the course that is to have its past."""

    rule: CheckedRule
    instance: Labels
    course: ValueCourse


class Before:
    """Reads the past of alerts that have begun, in a task and a thread of its own. What fails costs the past alone.

    Bound: `WAITING` alerts.
    """

    def __init__(self, metrics: LiveMetrics, clock: Clock) -> None:
        self._metrics, self._clock = metrics, clock
        self._waiting: list[Begun] = []
        self._task: asyncio.Task[None] | None = None
        self._read_s = -PAUSE_S  # when the latest reading began

    def read(self, begun: Iterable[Begun]) -> None:
        """Read the past of these alerts soon. Call it for each evaluation, also if none has begun."""
        wanted = [one for one in begun if _metric(one.rule) is not None]
        self._waiting += wanted[: max(WAITING - len(self._waiting), 0)]
        now_s = self._clock.monotonic_ns() / 1e9
        running = self._task is not None and not self._task.done()
        if self._waiting and not running and now_s - self._read_s >= PAUSE_S:
            self._read_s = now_s
            self._task = asyncio.get_running_loop().create_task(self._read_waiting(), name="pool_monitor alerts before")
            self._task.add_done_callback(retrieve_error)

    async def close(self) -> None:
        """End the reading that goes on. The object can still be used."""
        task, self._task = self._task, None
        self._waiting.clear()
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _read_waiting(self) -> None:
        begun, self._waiting = self._waiting, []
        try:
            await self._read(begun)
        except Exception as error:  # noqa: BLE001 - a course without its past is still one
            logger("alerts").warning("what was before an alert cannot be read", reason=describe(error))

    async def _read(self, begun: Sequence[Begun]) -> None:
        at, wall = self._clock.monotonic_ns() / 1e9, self._clock.wall_ns() / 1e9
        lengths: dict[float, list[Begun]] = {}
        figures: dict[str, list[Begun]] = {}
        for one in begun:
            metric = _metric(one.rule)
            assert metric is not None
            if metric.kept == "calls":
                lengths.setdefault(_length(one.rule), []).append(one)
            elif figure := figure_of(metric.scope, metric.path):
                figures.setdefault(figure[0], []).append(one)
        for length, some in lengths.items():
            await self._of_calls(some, length, at, wall)
        for figure_name, some in figures.items():
            await self._of_figure(some, figure_name, at, wall)

    async def _of_calls(self, begun: Sequence[Begun], length: float, at: float, wall: float) -> None:
        courses: list[list[tuple[float, float | None]]] = [[] for _ in begun]
        for number in range(STEPS, 0, -1):
            back = STEP_S * number
            if self._metrics.since > wall - back - length * COVERED:
                continue
            summary = self._metrics.deferred_summary(wall - back - length, wall - back)
            values = await asyncio.to_thread(_values, begun, summary, length)
            for course, value in zip(courses, values, strict=True):
                course.append((at - back, value))
        await _precede(zip(begun, courses, strict=True))

    async def _of_figure(self, begun: Sequence[Begun], figure: str, at: float, wall: float) -> None:
        read = self._metrics.deferred_resources(wall - STEP_S * STEPS, wall - STEP_S, STEP_S, figure=figure)
        found = await asyncio.to_thread(read)
        by_subject = {series.subject: series for series in found.series if series.figure == figure}
        first = at - wall + found.start + found.step / 2
        courses = []
        for one in begun:
            metric = _metric(one.rule)
            assert metric is not None
            series, figure_is = by_subject.get(_subject(metric, one.instance)), figure_of(metric.scope, metric.path)
            if series is not None and figure_is is not None:
                values = series.mean if figure_is[1] == "mean" else series.high
                courses.append((one, [(first + found.step * step, value) for step, value in enumerate(values)]))
        await _precede(courses)


async def _precede(courses: Iterable[tuple[Begun, Sequence[tuple[float, float | None]]]]) -> None:
    """Put what was before at the beginning of the courses. Others may work meanwhile."""
    for number, (one, values) in enumerate(courses, 1):
        one.course.precede(values)
        if not number % _AT_ONCE:
            await asyncio.sleep(0)


def _values(begun: Sequence[Begun], read: Callable[[], Summary], length: float) -> list[float | None]:
    """Return what the rules would have judged over the time of a Summary."""
    summary = read()
    return [_value(one, summary, length) for one in begun]


def _metric(rule: CheckedRule) -> Metric | None:
    """Return the metric that *rule* measures; None: its past is not known."""
    metric = METRICS.get(rule.kind.metric) if isinstance(rule.kind, Threshold) else None
    return metric if metric is not None and metric.kept else None


def _length(rule: CheckedRule) -> float:
    """Return the seconds that one value of *rule* covers. A metric of one moment is the mean of its readings."""
    assert isinstance(rule.kind, Threshold)
    return WINDOWS[rule.kind.window].seconds if rule.kind.window in WINDOWS else MOMENT_S


def _value(one: Begun, summary: Summary, length: float) -> float | None:
    """Return what the rule would have judged over the time of *summary*."""
    metric, labels = _metric(one.rule), dict(one.instance)
    pool = summary.pools.get(labels.get("pool", ""))
    if metric is None or pool is None or pool.covered_seconds < COVERED * length:
        return None
    view = _view(metric, labels, pool)
    calls_of = calls_getter(metric)
    if calls_of is not None and calls_of(view) < one.rule.min_samples:
        return None
    value = summary_getter(metric)(view)
    return None if value is None else float(value)


def _view(metric: Metric, labels: dict[str, str], pool: PoolSummary) -> Any:
    if metric.scope == "operation":
        return pool.operations.get(labels.get("operation", ""), NO_CALLS)
    return pool.workers.get(labels.get("worker", ""), NO_CALLS) if metric.scope == "worker" else pool


def _subject(metric: Metric, instance: Labels) -> str:
    return f"worker {dict(instance).get('worker', '')}" if metric.scope == "worker" else metric.scope
