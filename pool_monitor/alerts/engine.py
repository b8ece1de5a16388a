"""Steps the lives of all alerts from one evaluation to the next. No I/O and no clock: the time is in the inputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from pool_monitor.alerts.alert import Alert
from pool_monitor.alerts.evaluation import Memory, evaluate, inputs_of
from pool_monitor.alerts.inputs import Input, Inputs, Judgement, Labels
from pool_monitor.alerts.lifecycle import Phase
from pool_monitor.alerts.rule import CheckedRule
from pool_monitor.snapshot import AlertTransition


class Key(NamedTuple):
    alert: str
    instance: Labels


class Engine:
    """All rules and all alerts of a service. *interval* is the time between evaluations, in seconds."""

    def __init__(self, interval: float) -> None:
        self.interval = interval
        self.rules: dict[str, CheckedRule] = {}
        self.alerts: dict[Key, Alert] = {}
        """The alerts that are not inactive."""
        self.failing: dict[str, str] = {}
        """Why the evaluation of a rule fails, by its name."""
        self.seq = 0
        """The number of the latest transition."""
        self._memory: dict[str, Memory] = {}

    def set_rules(self, rules: Sequence[CheckedRule], at: float) -> list[AlertTransition]:  # noqa: ARG002
        """Use *rules* from now on. Rules that are equal to one in force keep their alerts and timers; the alerts of a
        rule that is gone are resolved with the reason ``rule_removed``.
        """
        self.rules = {rule.alert: rule for rule in rules}
        self._memory = {name: self._memory.get(name, Memory()) for name in self.rules}
        return []

    @property
    def wanted(self) -> frozenset[Input]:
        """What the next step reads."""
        return frozenset(one for rule in self.rules.values() for one in inputs_of(rule))

    def step(self, inputs: Inputs) -> list[AlertTransition]:
        """Evaluate all rules on *inputs*, and return what has changed."""
        return [found for found in self.stepping(inputs) if found is not None]

    def stepping(self, inputs: Inputs) -> Iterator[AlertTransition | None]:
        """Do what `step` does. Yields each transition, and None where the caller may let others work."""
        for rule in self.rules.values():
            for judgement in evaluate(rule, inputs, self._memory[rule.alert], self.firing):
                yield from self._judge(rule, judgement, inputs)
            yield None

    def firing(self, alert: str) -> Iterable[Labels]:
        """Return the instances at which the rule *alert* fires."""
        firing = (Phase.FIRING, Phase.RECOVERING)
        return [key.instance for key, found in self.alerts.items() if key.alert == alert and found.state in firing]

    def _judge(self, rule: CheckedRule, judgement: Judgement, inputs: Inputs) -> Iterator[AlertTransition]:
        key = Key(rule.alert, judgement.labels)
        alert = self.alerts.get(key)
        if alert is None:
            if not judgement.level:
                return
            labels = dict(judgement.labels) | dict(rule.labels)
            alert = Alert(alert=rule.alert, instance=judgement.labels, labels=labels, fingerprint="0" * 16)
        before = alert.state
        alert.state = Phase.FIRING if judgement.level else Phase.RESOLVED
        alert.value, alert.level = judgement.value, judgement.level or 0
        alert.severity = rule.severities[max(alert.level - 1, 0)]
        if alert.state is Phase.RESOLVED:
            self.alerts.pop(key, None)
        else:
            self.alerts[key] = alert
        if before is not alert.state:
            self.seq += 1
            alert.since = inputs.at
            yield AlertTransition(
                seq=self.seq,
                at=inputs.at,
                alert=rule.alert,
                labels={**alert.labels, "severity": alert.severity},
                fingerprint=alert.fingerprint,
                from_state=before.value,
                to_state=alert.state.value,
                severity=alert.severity,
                value=alert.value,
            )
