"""Rules of the kind rate_of_change."""

from __future__ import annotations

from pool_monitor.alerts.evaluation.memory import Memory
from pool_monitor.alerts.evaluation.plan import Firing, Matching, each, read, value_of
from pool_monitor.alerts.inputs import Input, Inputs, Judgement, Sample
from pool_monitor.alerts.rule import CheckedRule, RateOfChange


class RateOfChangePlan:
    """Compares the value now with the value *against* seconds before.

    It is bad when the value has fallen, or risen, by more than the share that the rule names, of the value before. It
    is unknown where either value is, or the value before is not above 0: nothing is a share of zero.

    The value of a judgement is the change as a share: -0.6 is a fall by 60 %. Its limit is a share too.
    """

    def __init__(self, rule: CheckedRule, kind: RateOfChange) -> None:
        self._now = Input(metric=kind.metric, window=kind.window)
        self._before = Input(metric=kind.metric, window=kind.window, back=kind.against)
        self._lowest = None if kind.falls_by is None else -kind.falls_by
        self._highest = kind.rises_by
        self._min_samples = rule.min_samples
        self._matching = Matching(rule.match)
        self.reads = frozenset({self._now, self._before})

    def judge(self, inputs: Inputs, memory: Memory, firing: Firing) -> list[Judgement]:  # noqa: ARG002
        samples = self._matching.choose(read(inputs, self._now))
        return [self._judge_one(now, before) for now, before in each(samples, read(inputs, self._before))]

    def _judge_one(self, now: Sample, before: Sample | None) -> Judgement:
        value = value_of(now, self._min_samples)
        base = value_of(before, self._min_samples) if before else None
        if value is None or base is None or base <= 0:
            return Judgement(now.labels, None)
        change = (value - base) / base
        if self._lowest is not None and change < self._lowest:
            return Judgement(now.labels, 1, change, "", self._lowest)
        bad = self._highest is not None and change > self._highest
        return Judgement(now.labels, int(bad), change, "", self._lowest if self._highest is None else self._highest)
