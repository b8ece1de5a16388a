"""What tests of rules have reached: which rules fire, at which levels, and through which states."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from msgspec import Struct

from pool_monitor.alerts.delivery.targets import routes_of
from pool_monitor.alerts.routing import LOG
from pool_monitor.alerts.rule import CheckedRule
from pool_monitor.snapshot import AlertTransition

if TYPE_CHECKING:
    from pool_monitor.alerts.delivery.notification import Notification
    from pool_monitor.alerts.delivery.targets import Routing


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


class RouteCoverage(Struct, kw_only=True):
    """One route that has a receiver: whether a notification for it arrived in a test."""

    route: str
    """As group keys begin, such as ``{}/{severity="critical"}``."""
    receiver: str
    told: bool


class ReceiverCoverage(Struct, kw_only=True):
    """One receiver: whether a notification arrived at it in a test."""

    receiver: str
    told: bool


class Coverage:
    """What was reached of the rules, routes and receivers of all files. Bounded by their number."""

    def __init__(self) -> None:
        self._rules: dict[tuple[str, str], CheckedRule] = {}
        self._reached: dict[tuple[str, str], set[str]] = {}
        self._keys: dict[str, tuple[str, str]] = {}
        self._routes: dict[tuple[str, str], bool] = {}
        self._receivers: dict[str, bool] = {}

    def begin(self, rules: Iterable[CheckedRule], routing: Routing | None = None) -> None:
        """The tests that follow are of *rules* and *routing*."""
        if routing is not None and routing.route is not None:
            for path, receiver in routes_of(routing.route):
                self._routes.setdefault((path, receiver), False)
                self._receivers.setdefault(receiver, False)
            for receiver in routing.receivers:
                if receiver != LOG.name:
                    self._receivers.setdefault(receiver, False)
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

    def expect(self, alertname: str) -> None:
        """A test expects an alert of this rule."""
        if alertname in self._keys:
            self._reached[self._keys[alertname]].add("expected")

    def told(self, notification: Notification) -> None:
        """A notification arrived in a test."""
        if notification.receiver in self._receivers:
            self._receivers[notification.receiver] = True
        for path, receiver in self._routes:
            if receiver == notification.receiver and notification.group_key.startswith(f"{path}:"):
                self._routes[path, receiver] = True

    def routes(self) -> list[RouteCoverage]:
        """Return the routes in the order of the files."""
        return [RouteCoverage(route=path, receiver=name, told=told) for (path, name), told in self._routes.items()]

    def receivers(self) -> list[ReceiverCoverage]:
        """Return the receivers in the order in which they were met."""
        return [ReceiverCoverage(receiver=name, told=told) for name, told in self._receivers.items()]

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
