"""One rule in force, and what follows from its kind: what it measures, and which rules come before it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pool_monitor.alerts.alert import Alert, fingerprint_of
from pool_monitor.alerts.evaluation import Firing, Memory, NotRead, evaluate, inputs_of
from pool_monitor.alerts.evaluation.plan import Matching
from pool_monitor.alerts.inputs import Inputs, Judgement, Labels
from pool_monitor.alerts.rule import (
    AlertFires,
    AllOf,
    AnyOf,
    CheckedRule,
    Condition,
    FindingIs,
    Forecast,
    Kind,
    Not,
    RateOfChange,
    SloBurn,
    Threshold,
)
from pool_monitor.alerts.rule_file.shape import alerts_named, leaves

_WORDS = 500
"""Characters of the reason why a rule fails."""


class Ruling:
    """One rule in force: what it reads, its memory, and its alerts by instance.

    Where the rule is to fire for an instance that vanishes, the good instances are among the alerts, as inactive ones.
    """

    __slots__ = (
        "_matching",
        "after",
        "alerts",
        "inputs",
        "lower_is_worse",
        "measure",
        "memory",
        "refused",
        "rule",
        "silence_is_good",
        "watches",
    )

    def __init__(self, rule: CheckedRule, interval: float) -> None:
        self.rule = rule
        self.inputs = inputs_of(rule)
        self.memory = Memory()
        self.alerts: dict[Labels, Alert] = {}
        self.measure = measure_of(rule.kind)
        self.after = 3 * interval if rule.no_data_for is None else rule.no_data_for
        self.watches = "fire" in {rule.on_no_data, rule.on_error}
        self.lower_is_worse = lower_is_worse(rule.kind)
        self.silence_is_good = not _measures(rule.kind)
        self.refused = 0
        self._matching = Matching(rule.match)

    def evaluate(self, inputs: Inputs, firing: Firing) -> Sequence[Judgement] | str:
        """Return what the rule says about each of its instances, or in words why it cannot be evaluated."""
        for one in self.inputs if inputs.errors else ():
            if one in inputs.errors:
                return inputs.errors[one][:_WORDS]
        try:
            return evaluate(self.rule, inputs, self.memory, firing)
        except NotRead as error:
            return str(error)[:_WORDS]
        except Exception as error:  # noqa: BLE001  a rule that fails must not stop the others
            return f"{type(error).__name__}: {error}"[:_WORDS]

    def labels(self, instance: Labels) -> dict[str, str]:
        return {**dict(instance), **{name: value for name, value in self.rule.labels if name != "severity"}}

    def make(self, instance: Labels) -> Alert:
        """Return a new alert, which is inactive."""
        labels = self.labels(instance)
        return Alert(
            alert=self.rule.alert,
            instance=instance,
            labels=labels,
            fingerprint=fingerprint_of(self.rule.alert, labels),
            bad_for=[-1.0] * len(self.rule.severities),
            measure=self.measure,
        )

    def has(self, instance: Labels) -> bool:
        """Whether the rule matches *instance*."""
        return self._matching(instance)

    def restore(self, dump: Any) -> str | None:
        """Take over a memory that was dumped. Return why that is impossible; then the memory is empty."""
        try:
            self.memory.restore(dump)
        except ValueError as error:
            self.memory = Memory()
            return str(error)
        return None

    def suits_alerts_of(self, old: Ruling) -> bool:
        """Whether the alerts of *old*, which measures the same, can stay as they are. Bounds and times may differ."""
        new, before = self.rule, old.rule
        return (new.match, new.labels, len(new.severities), self.watches) == (
            before.match,
            before.labels,
            len(before.severities),
            old.watches,
        )

    def fit(self, alert: Alert) -> None:
        """Give *alert* as many levels as the rule has."""
        levels = len(self.rule.severities)
        alert.bad_for = (alert.bad_for + [-1.0] * levels)[:levels]
        alert.level = min(alert.level, levels)
        alert.measure = self.measure


def lower_is_worse(kind: Kind) -> bool:
    """Whether the lowest value of a rule of *kind* is the worst one."""
    return (
        isinstance(kind, Forecast)
        or (isinstance(kind, Threshold) and not kind.above)
        or (isinstance(kind, RateOfChange) and kind.rises_by is None)
    )


def measure_of(kind: Kind | Condition) -> str:
    """Return what a rule of *kind* measures, without its bounds and windows, such as ``threshold(pool.rate)``.

    A rule that measures something else than before starts anew: its alerts and its memory say nothing about it. The
    order of conditions means nothing.
    """
    match kind:
        case AllOf(conditions=conditions) | AnyOf(conditions=conditions):
            inner = ", ".join(sorted(map(measure_of, conditions)))
        case Not(condition=condition):
            inner = measure_of(condition)
        case FindingIs(kinds=kinds):
            inner = ", ".join(sorted(kinds))
        case AlertFires(alert=alert):
            inner = alert
        case SloBurn(pool=pool, operation=operation):
            inner = f"{pool}, {operation or ''}"
        case _:
            inner = kind.metric
    return f"{kind.__struct_config__.tag}({inner})"


def _measures(kind: Kind) -> bool:
    """Whether *kind* reads metrics. Findings and alerts are there only while something is bad: that one is not there is
    no missing value.
    """
    return not all(isinstance(leaf, FindingIs | AlertFires) for _, leaf in leaves(kind))


def names_in(kind: Kind) -> frozenset[str]:
    """Return the rules that *kind* names (`AlertFires`)."""
    return frozenset(alert for _, alert in alerts_named(kind))


def in_order(rules: dict[str, CheckedRule]) -> list[str]:
    """Return the names of *rules* so that each comes after those that it names, and else as they are.

    Names in a cycle are in some order; the checker refuses cycles.
    """
    done: dict[str, None] = {}
    seen: set[str] = set()
    for first in rules:
        stack = [(first, False)]
        while stack:
            name, named_are_done = stack.pop()
            if named_are_done:
                done[name] = None
            elif name in rules and name not in seen:
                seen.add(name)
                stack.append((name, True))
                stack += ((named, False) for named in sorted(names_in(rules[name].kind), reverse=True))
    return list(done)
