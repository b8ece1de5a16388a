"""Rules of the kind forecast: a metric that goes on as it did reaches a bound."""

from __future__ import annotations

import math

from pool_monitor.alerts.catalogue import METRICS
from pool_monitor.alerts.evaluation.memory import Memory
from pool_monitor.alerts.evaluation.plan import Firing, Matching, each, read, value_of
from pool_monitor.alerts.inputs import Input, Inputs, Judgement, Sample
from pool_monitor.alerts.rule import Absolute, CheckedRule, Forecast, OfLimit

LEAST_POINTS = 10
"""The least points that a line is laid through."""
LEAST_EXPLAINED = 0.5
"""The least share of the variance that a line must explain to be a trend, unless its slope is certain."""
CERTAIN = 3.0
"""From how many standard errors on a slope is certain."""
_DOWN = ("_free", "time_to_limit")
"""The ends of the names of metrics of which less is worse."""


class ForecastPlan:
    """Bad when the straight line through the last *window* seconds reaches the bound *within* seconds, or is there.

    A metric that ends in ``_free`` or ``time_to_limit`` runs down to its bound, any other runs up. The line is a trend
    if it explains half of the variance, or if its slope is beyond three standard errors. Without a trend, or with one
    that leads away from the bound, it is not bad. With fewer than `LEAST_POINTS` points it is unknown, unless the value
    is beyond the bound already. A bound relative to the own past of an instance is unknown: no baseline is kept for it.

    The value of a judgement is the time that is left, in seconds: 0 beyond the bound, None without a trend. Its limit
    is *within*.
    """

    def __init__(self, rule: CheckedRule, kind: Forecast) -> None:
        self._fit = Input(metric=kind.metric, kind="fit", over=kind.window)
        self._bound = kind.reaches
        self._limit = Input(metric=_limit_of(kind)) if isinstance(kind.reaches, OfLimit) else None
        self._within = kind.within
        self._sign = -1.0 if kind.metric.endswith(_DOWN) else 1.0
        self._matching = Matching(rule.match)
        self.reads = frozenset({self._fit} | ({self._limit} if self._limit else set()))

    def judge(self, inputs: Inputs, memory: Memory, firing: Firing) -> list[Judgement]:  # noqa: ARG002
        samples = self._matching.choose(read(inputs, self._fit))
        if self._limit is None:
            return [self._judge_one(sample, None) for sample in samples]
        return [self._judge_one(sample, limit) for sample, limit in each(samples, read(inputs, self._limit))]

    def _judge_one(self, sample: Sample, limit: Sample | None) -> Judgement:
        value, bound = value_of(sample, 0), self._bound_at(limit)
        if value is None or bound is None:
            return Judgement(sample.labels, None)
        left = self._sign * (bound - value)
        if left <= 0:
            return Judgement(sample.labels, 1, 0.0, "", self._within)
        if len(sample.more) < 4 or sample.more[3] < LEAST_POINTS:
            return Judgement(sample.labels, None)
        slope, error, explained, _ = sample.more
        towards = self._sign * slope
        trend = towards > 0 and (explained >= LEAST_EXPLAINED or towards > CERTAIN * error)
        seconds = left / towards if trend else math.inf
        value = seconds if seconds < math.inf else None
        return Judgement(sample.labels, int(seconds <= self._within), value, "", self._within)

    def _bound_at(self, limit: Sample | None) -> float | None:
        match self._bound:
            case Absolute(value=value):
                return value
            case OfLimit(ratio=ratio):
                found = value_of(limit, 0) if limit else None
                return ratio * found if found is not None and found > 0 else None
            case _:
                return None


def _limit_of(kind: Forecast) -> str:
    limit = METRICS[kind.metric].limit
    assert limit is not None, "the checker refuses this"
    return limit
