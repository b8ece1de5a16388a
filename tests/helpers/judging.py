"""One rule that is evaluated again and again on inputs that a test writes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pool_monitor.alerts.evaluation import Memory, evaluate, inputs_of
from pool_monitor.alerts.inputs import Input, Inputs, Judgement, Labels, Sample, Samples, labels_of
from pool_monitor.alerts.rule import (
    Absolute,
    Bound,
    CheckedRule,
    Kind,
    Level,
    Matcher,
    OfLimit,
    OwnBaseline,
    Threshold,
)

DAY = 86_400.0
BAD_VALUES = [None, float("nan"), float("inf"), -float("inf")]


def pool(name: str = "p") -> Labels:
    return (("pool", name),)


def operation(name: str, of: str = "p") -> Labels:
    return (("operation", name), ("pool", of))


def threshold(
    *bounds: float | Bound,
    metric: str = "operation.error_ratio",
    window: str | None = "1m",
    above: bool = True,
    clear: Sequence[float | Bound | None] = (),
) -> Threshold:
    """A threshold with *bounds*, the mildest first, and what clears them."""

    def bound(one: float | Bound) -> Bound:
        return one if isinstance(one, Absolute | OwnBaseline | OfLimit) else Absolute(float(one))

    clears = [None if one is None else bound(one) for one in clear] + [None] * (len(bounds) - len(clear))
    names = ("warning", "critical", "emergency")
    levels = tuple(Level(name, bound(one), end) for name, one, end in zip(names, bounds, clears, strict=False))
    return Threshold(metric=metric, window=window, above=above, levels=levels)


def rule(kind: Kind, match: Mapping[str, str] | None = None, **fields: Any) -> CheckedRule:
    matchers = tuple(Matcher(label, value) for label, value in (match or {}).items())
    return CheckedRule(alert="R", kind=kind, match=matchers, severities=("warning", "critical"), **fields)


class Judge:
    """Evaluates *checked*, each time *interval* seconds later."""

    def __init__(self, checked: CheckedRule, interval: float = 5.0) -> None:
        self.rule, self.interval = checked, interval
        self.memory = Memory()
        self.at = 1_700_000_000.0
        self.firing: dict[str, list[Labels]] = {}
        self.covered = DAY

    def read(self, samples: Mapping[Input, Iterable[Sample]], elapsed: float | None = None) -> dict[Labels, Judgement]:
        """Evaluate on *samples*; inputs that are not among them have none."""
        elapsed = self.interval if elapsed is None else elapsed
        self.at += elapsed
        read = {one: Samples(samples.get(one, ())) for one in inputs_of(self.rule)}
        found = evaluate(
            self.rule,
            Inputs(self.at, elapsed, read, self.covered),
            self.memory,
            lambda alert: self.firing.get(alert, []),
        )
        assert len({one.labels for one in found}) == len(found), "one judgement for an instance"
        return {one.labels: one for one in found}

    def levels(
        self,
        values: Mapping[Labels, float | None],
        calls: int | None = None,
        elapsed: float | None = None,
    ) -> dict[Labels, int | None]:
        """Evaluate where every input has *values*, and return the levels."""
        samples = [Sample(labels, value, calls) for labels, value in values.items()]
        found = self.read(dict.fromkeys(inputs_of(self.rule), samples), elapsed)
        return {labels: one.level for labels, one in found.items()}

    def level(self, value: float | None, calls: int | None = None, elapsed: float | None = None) -> int | None:
        """The same for one instance."""
        return self.levels({operation("a"): value}, calls, elapsed)[operation("a")]


__all__ = ["BAD_VALUES", "DAY", "Judge", "labels_of", "operation", "pool", "rule", "threshold"]
