"""The inputs of rules from the series that a test writes, in place of a service."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import NamedTuple

from pool_monitor.alerts.catalogue import METRICS
from pool_monitor.alerts.getters import calls_getter
from pool_monitor.alerts.inputs import Input, Inputs, Labels, Sample, Samples
from pool_monitor.alerts.line import fit
from pool_monitor.alerts.rule_tests.series import Course

FINDING = "finding."
"""What the name of a series that is a finding begins with. Its value is the level: 1 warn, 2 bad."""
UNLIMITED = 1e9
"""Calls of a point for which no series says how many there were."""
_POINTS = 240
"""Most points of a line."""
_MEASURED = 0.5


class WrittenSeries(NamedTuple):
    metric: str
    window: str | None
    """None: for every window."""
    labels: Labels
    course: Course


class _Totals:
    """Calls and failed calls of one instance from the beginning on, point by point."""

    def __init__(self) -> None:
        self.calls, self.failed, self.known = [0.0], [0.0], [0]

    def add(self, ratio: float | None, calls: float) -> None:
        known = ratio is not None and math.isfinite(ratio)
        self.calls.append(self.calls[-1] + (calls if known else 0.0))
        self.failed.append(self.failed[-1] + (ratio * calls if known and ratio is not None else 0.0))
        self.known.append(self.known[-1] + known)


class WrittenReader:
    """Reads inputs from *series*, which have a point every *interval* seconds. *start* is the time of the beginning.

    Call it with times that ascend. It keeps the sums of the points so far of those series that objectives need.
    """

    def __init__(self, series: Iterable[WrittenSeries], interval: float, start: float) -> None:
        self._interval, self._start = interval, start
        self._series: dict[str, list[WrittenSeries]] = {}
        for one in series:
            self._series.setdefault(one.metric, []).append(one)
        self._before: dict[Input, Samples] = {}
        self._totals: dict[tuple[str, Labels], _Totals] = {}

    def inputs(self, wanted: Iterable[Input], time: float, elapsed: float) -> Inputs:
        """Return all *wanted* at *time*, in seconds after the beginning."""
        samples: dict[Input, tuple[Sample, ...]] = {}
        for one in wanted:
            found, before = Samples(self._samples(one, time)), self._before.get(one)
            samples[one] = self._before[one] = before if before == found and before is not None else found
        return Inputs(self._start + time, elapsed, samples, covered=math.inf)

    def _samples(self, one: Input, time: float) -> Iterator[Sample]:
        if one.kind == "finding":
            for series in self._series.get(FINDING + one.metric, ()):
                level = series.course.at(time)
                if level is not None and level >= 1:
                    yield Sample(series.labels, None, None, (2.0 if level >= 2 else 1.0,))
            return
        for series in self._of_window(one.metric, one.window):
            value = series.course.at(time)
            if value is None:
                continue
            if one.kind == "calls":
                yield self._calls_over(series, one.over, time)
            elif one.kind == "fit":
                yield self._line(series, one.over, time)
            else:
                value = series.course.at(time - one.back) if one.back <= time else None
                yield Sample(series.labels, _known(value), self._calls(series, one.window, time - one.back))

    def _of_window(self, metric: str, window: str | None) -> Iterator[WrittenSeries]:
        """Yield the series of *metric*: of an instance, the one for *window*, or else the one for every window."""
        some = self._series.get(metric, ())
        own = {one.labels for one in some if one.window is not None and one.window == window}
        for one in some:
            if one.window == window if one.labels in own else one.window is None:
                yield one

    def _calls(self, series: WrittenSeries, window: str | None, time: float) -> int | None:
        """Return the calls that a value is from; None: it is not from calls, or no series says how many."""
        metric = METRICS[series.metric]
        if calls_getter(metric) is None:
            return None
        names = [f"{metric.scope}.calls"]
        if series.metric.count(".") > 1:  # a statistic, such as operation.latency.p95
            names.insert(0, f"{series.metric.rpartition('.')[0]}.count")
        for name in names:
            for one in self._of_window(name, window):
                if one.labels == series.labels:
                    found = _known(one.course.at(time))
                    return 0 if found is None else int(found)
        return None

    def _calls_over(self, series: WrittenSeries, over: float, time: float) -> Sample:
        totals = self._totals.setdefault((series.metric, series.labels), _Totals())
        last = math.floor(time / self._interval + 1e-9)
        for index in range(len(totals.known) - 1, last + 1):
            at = index * self._interval
            weight = self._calls(series, None, at)
            totals.add(series.course.at(at), UNLIMITED if weight is None else float(weight))
        first = max(math.floor((time - over) / self._interval + 1e-9) + 1, 0)
        calls, failed = totals.calls[last + 1] - totals.calls[first], totals.failed[last + 1] - totals.failed[first]
        known = totals.known[last + 1] - totals.known[first]
        covered = min(known * self._interval, over)
        ratio = failed / calls if calls and covered >= _MEASURED * over else None
        return Sample(series.labels, ratio, int(calls), (calls, failed, covered))

    def _line(self, series: WrittenSeries, over: float, time: float) -> Sample:
        length = min(over, time)
        step = max(self._interval, length / _POINTS)
        number = int(length / step) + 1
        times = accumulate([step] * (number - 1), initial=time - step * (number - 1))
        points = [(at - time, value) for at in times if (value := _known(series.course.at(at))) is not None]
        line = fit(points) if len(points) * step >= _MEASURED * over else None
        if line is None:
            return Sample(series.labels, None)
        return Sample(
            series.labels, line.value, None, (line.slope, line.slope_error, line.explained, float(line.points))
        )


def _known(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value
