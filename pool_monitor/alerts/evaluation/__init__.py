"""What a rule says about each of its instances: pure functions of the rule, its inputs, and the memory of the rule."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from pool_monitor.alerts.inputs import Input, Inputs, Judgement, Labels
from pool_monitor.alerts.rule import Absolute, CheckedRule, Threshold

Firing = Callable[[str], Iterable[Labels]]
"""Returns the instance labels of the firing alerts of the rule with a name. Rules that are named come first."""


class Memory:
    """What the evaluation of one rule keeps from one evaluation to the next: latches, baselines, detectors."""

    def __init__(self) -> None:
        self.levels: dict[Labels, int] = {}
        """The level that each instance had, for bounds with hysteresis."""

    def dump(self) -> Any:
        """Return the memory as plain values, for `restore`."""
        return [[list(map(list, labels)), level] for labels, level in self.levels.items()]

    def restore(self, saved: Any) -> None:
        """Take over what `dump` returned. Raises ValueError for anything else; then nothing has changed."""
        self.levels = {tuple((str(k), str(v)) for k, v in labels): int(level) for labels, level in saved}


def inputs_of(rule: CheckedRule) -> frozenset[Input]:
    """Return what has to be read to evaluate *rule*."""
    kind = rule.kind
    if isinstance(kind, Threshold):
        return frozenset({Input(metric=kind.metric, window=kind.window)})
    raise NotImplementedError(type(kind).__name__)


def evaluate(rule: CheckedRule, inputs: Inputs, memory: Memory, firing: Firing) -> list[Judgement]:  # noqa: ARG001
    """Return a judgement for each instance that *rule* matches in *inputs*."""
    kind = rule.kind
    assert isinstance(kind, Threshold)
    found = []
    for sample in inputs.samples[Input(metric=kind.metric, window=kind.window)]:
        level: int | None = None
        if sample.value is not None and (sample.calls is None or sample.calls >= rule.min_samples):
            bounds = [one.bound.value for one in kind.levels if isinstance(one.bound, Absolute)]
            level = sum(sample.value > bound if kind.above else sample.value < bound for bound in bounds)
        found.append(Judgement(sample.labels, level, sample.value))
    return found
