"""Rules of the kind anomaly."""

from __future__ import annotations

from pool_monitor.alerts.detectors import DETECTORS, Detector, spacing
from pool_monitor.alerts.evaluation.memory import About, Memory, Watch
from pool_monitor.alerts.evaluation.plan import Firing, Matching, read, value_of
from pool_monitor.alerts.inputs import Input, Inputs, Judgement, Sample
from pool_monitor.alerts.rule import Anomaly, CheckedRule
from pool_monitor.metrics import timespan


class AnomalyPlan:
    """Asks a detector for each instance whether its value is far from what it usually is, on the side of the rule.

    The instance is unknown while the detector has too few values to compare with, or has no room (`memory.SERIES`). A
    value that is unknown never reaches the detector. The wall clock gives it the time of day; how long an anomaly has
    lasted it counts so that a step of the clock has no effect.
    """

    def __init__(self, rule: CheckedRule, kind: Anomaly) -> None:
        self._input = Input(metric=kind.metric, window=kind.window)
        self._side = None if kind.direction == "both" else kind.direction
        self._name = kind.detector or Detector.name
        self._every = spacing(timespan.seconds_of(kind.window) if kind.window else 0)
        self._what = f"{kind.metric} {kind.window or ''} {self._name}"
        self._min_samples = rule.min_samples
        self._matching = Matching(rule.match)
        self.reads = frozenset({self._input})

    def judge(self, inputs: Inputs, memory: Memory, firing: Firing) -> list[Judgement]:  # noqa: ARG002
        samples = self._matching.choose(read(inputs, self._input))
        return [self._judge_one(sample, inputs.at, memory) for sample in samples]

    def _judge_one(self, sample: Sample, at: float, memory: Memory) -> Judgement:
        value = value_of(sample, self._min_samples)
        if value is None:
            return Judgement(sample.labels, None)
        watch = memory.watches.get_or_make(About(self._what, sample.labels), self._watch)
        if watch is None:
            return Judgement(sample.labels, None, value)
        detector = watch.detector
        before = detector.direction
        detector.handle(at, value)
        memory.learned()
        if detector.direction != before:
            memory.changed()
        if detector.direction is None:
            return Judgement(sample.labels, None if detector.deviation is None else 0, value)
        return Judgement(sample.labels, int(self._side in (None, detector.direction)), value)

    def _watch(self) -> Watch:
        return Watch(DETECTORS[self._name](every=self._every), self._name, self._every)
