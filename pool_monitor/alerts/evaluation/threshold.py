"""Rules of the kind threshold."""

from __future__ import annotations

from pool_monitor.alerts.evaluation.levels import Levels
from pool_monitor.alerts.evaluation.memory import Memory
from pool_monitor.alerts.evaluation.plan import Firing, Matching, read
from pool_monitor.alerts.inputs import Input, Inputs, Judgement
from pool_monitor.alerts.rule import CheckedRule, Threshold


class ThresholdPlan:
    """Judges the value of each instance by the levels. See `Levels`."""

    def __init__(self, rule: CheckedRule, kind: Threshold) -> None:
        self._input = Input(metric=kind.metric, window=kind.window)
        self._levels = Levels(kind, rule.min_samples)
        self._matching = Matching(rule.match)
        self.reads = self._levels.reads

    def judge(self, inputs: Inputs, memory: Memory, firing: Firing) -> list[Judgement]:  # noqa: ARG002
        samples = self._matching.choose(read(inputs, self._input))
        return self._levels.judge(samples, inputs, memory)
