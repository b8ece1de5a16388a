"""Rules of the kind finding: they read what the dashboard reads."""

from __future__ import annotations

from pool_monitor.alerts.evaluation.memory import Memory
from pool_monitor.alerts.evaluation.plan import Firing, Matching, read
from pool_monitor.alerts.inputs import Input, Inputs, Judgement, Labels, Sample, labels_of
from pool_monitor.alerts.rule import CheckedRule, FindingIs


class FindingPlan:
    """A finding that is there is bad: ``warn`` is the first level, ``bad`` the second. Nothing is said about one that
    is not there, which is good (`Ruling.silence_is_good`). A rule of several kinds has the label ``finding``.
    """

    def __init__(self, rule: CheckedRule, kind: FindingIs) -> None:
        self._inputs = [Input(metric=one, kind="finding") for one in kind.kinds]
        self._most = len(rule.severities)
        self._matching = Matching(rule.match)
        self.reads = frozenset(self._inputs)

    def judge(self, inputs: Inputs, memory: Memory, firing: Firing) -> list[Judgement]:  # noqa: ARG002
        found: dict[Labels, Judgement] = {}
        for one in self._inputs:
            for sample in read(inputs, one):
                labels = sample.labels if len(self._inputs) == 1 else _with(sample.labels, one.metric)
                if self._matching(labels):
                    found[labels] = self._judge_one(labels, sample)
        return list(found.values())

    def _judge_one(self, labels: Labels, sample: Sample) -> Judgement:
        level = int(sample.more[0]) if sample.more else 1
        limit = sample.more[1] if len(sample.more) > 1 else None
        return Judgement(labels, min(level, self._most), sample.value, sample.note, limit)


def _with(labels: Labels, kind: str) -> Labels:
    return labels_of({**dict(labels), "finding": kind})
