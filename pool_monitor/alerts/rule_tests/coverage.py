"""What tests of rules have reached: which rules fire, at which levels, and through which states."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from msgspec import Struct

from pool_monitor.alerts.rule import CheckedRule
from pool_monitor.snapshot import AlertTransition

if TYPE_CHECKING:
    from pool_monitor.alerts.rule_tests.suite import Check


class RuleCoverage(Struct, kw_only=True):
    """One rule: what its tests could reach, and what of that they did not."""

    alertname: str
    file: str
    line: int
    levels: int
    states: int
    missed_levels: list[str]
    missed_states: list[str]
    expected: bool
    """Whether a test expects an alert of it."""


class Coverage:
    """What was reached of the rules of all files. Bounded by their number."""

    def __init__(self) -> None:
        self._rules: dict[tuple[str, str], CheckedRule] = {}
        self._reached: dict[tuple[str, str], set[str]] = {}
        self._keys: dict[str, tuple[str, str]] = {}

    def begin(self, rules: Iterable[CheckedRule]) -> None:
        """The tests that follow are of *rules*."""
        self._keys = {rule.alert: (rule.origin.file if rule.origin else "", rule.alert) for rule in rules}
        for rule in rules:
            key = self._keys[rule.alert]
            self._rules[key] = rule
            self._reached.setdefault(key, set())

    def note(self, transitions: Iterable[AlertTransition]) -> None:
        """These happened in a test, also to alerts of other rules, which are not counted."""
        for one in transitions:
            if one.alert not in self._keys:
                continue
            reached = self._reached[self._keys[one.alert]]
            reached.add(one.to_state)
            if one.to_state == "firing":
                reached.add(f"level {one.severity}")

    def expect(self, check: Check) -> None:
        """A test checked the alerts of a rule."""
        if check.expected and check.alertname in self._keys:
            self._reached[self._keys[check.alertname]].add("expected")

    def rules(self) -> Iterator[RuleCoverage]:
        """Yield the rules in the order in which they were met."""
        for key, rule in self._rules.items():
            reached = self._reached[key]
            states = ["pending"] * bool(rule.for_) + ["firing"]
            states += ["recovering"] * bool(rule.keep_firing_for) + ["resolved"]
            yield RuleCoverage(
                alertname=rule.alert,
                file=key[0],
                line=rule.origin.line if rule.origin else 0,
                levels=len(rule.severities),
                states=len(states),
                missed_levels=[name for name in rule.severities if f"level {name}" not in reached],
                missed_states=[name for name in states if name not in reached],
                expected="expected" in reached,
            )
