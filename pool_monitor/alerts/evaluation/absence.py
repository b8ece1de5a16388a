"""Rules of the kind absence."""

from __future__ import annotations

from pool_monitor.alerts.catalogue import METRICS
from pool_monitor.alerts.evaluation.memory import About, Memory
from pool_monitor.alerts.evaluation.plan import Firing, Matching, read, value_of
from pool_monitor.alerts.inputs import Input, Inputs, Judgement, Labels, labels_of
from pool_monitor.alerts.pattern import is_pattern
from pool_monitor.alerts.rule import Absence, CheckedRule
from pool_monitor.metrics import timespan

FORGET_S = 86_400.0
"""How long an instance that is gone is bad, in seconds. Then it is forgotten, unless the rule names it."""
START_S = 60.0
"""How long a metric of one moment may have nothing to show after a start, in seconds."""
_COUNTED = frozenset({"count", "/s"})


class AbsencePlan:
    """Bad where there is nothing to see: no instance, no known value, or, of a count or a rate, 0.

    An instance is expected if it was there before, or if ``match`` names all of its labels without a pattern. Until the
    monitor has measured for the length of the window, what is not there is as it was before: absent, or else unknown.
    So a start makes nothing fire, and ends nothing.
    """

    def __init__(self, rule: CheckedRule, kind: Absence) -> None:
        metric = METRICS[kind.metric]
        self._input = Input(metric=kind.metric, window=kind.window)
        self._start_s = float(timespan.seconds_of(kind.window)) if kind.window else START_S
        self._counted = metric.unit in _COUNTED
        self._min_samples = rule.min_samples
        self._matching = Matching(rule.match)
        texts = {one.label: one.value for one in rule.match if not is_pattern(one)}
        named = labels_of({label: texts.get(label, "") for label in metric.labels})
        whole = texts.keys() >= set(metric.labels) and self._matching(named)
        self._named: tuple[Labels, ...] = (named,) if whole else ()
        self._what = f"{kind.metric} {kind.window or ''}"
        self.reads = frozenset({self._input})

    def judge(self, inputs: Inputs, memory: Memory, firing: Firing) -> list[Judgement]:  # noqa: ARG002
        measured = inputs.covered >= self._start_s
        found: dict[Labels, Judgement] = {}

        def judge_one(instance: Labels, *, absent: bool, value: float | None = None) -> None:
            level = (1 if measured or memory.held(self._what, instance) else None) if absent else 0
            memory.hold(self._what, instance, level or 0)
            found[instance] = Judgement(instance, level, value)

        for sample in self._matching.choose(read(inputs, self._input)):
            about = About(self._what, sample.labels)
            if memory.seen.get(about) is None:
                memory.changed()
            memory.seen.put(about, memory.now)
            value = value_of(sample, self._min_samples)
            judge_one(sample.labels, absent=value is None or (self._counted and value == 0), value=value)
        for about, at in memory.seen:
            if about.what != self._what or about.instance in found:
                continue
            if memory.now - at <= FORGET_S:
                judge_one(about.instance, absent=True)
            else:
                memory.seen.drop(about)
                memory.changed()
        for named in self._named:
            if named not in found:
                judge_one(named, absent=True)
        for held in memory.holding(self._what):
            if held not in found:
                memory.hold(self._what, held, 0)
        return list(found.values())
