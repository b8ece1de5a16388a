"""All rules of a monitor: those that come with the package, those of files, and those that the program has added."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pool_monitor.alerts.delivery.targets import Routing
from pool_monitor.alerts.lifecycle import ACTIVE_PHASES
from pool_monitor.alerts.rule import CheckedRule, Inhibition
from pool_monitor.alerts.rule_file import check_together
from pool_monitor.errors import ConfigError, UnknownName
from pool_monitor.snapshot import AlertState, RuleView

_WORST: tuple[AlertState, ...] = ("inactive", "resolved", "pending", "recovering", "firing")


class Loaded(NamedTuple):
    """What was read from all files."""

    rules: tuple[CheckedRule, ...] = ()
    inhibitions: tuple[Inhibition, ...] = ()
    warnings: tuple[str, ...] = ()
    """What is odd in the files, one line each."""
    routing: Routing = Routing()
    """Who is told."""


class RuleBook:
    """Knows the rules in force. A rule that the program has removed stays away when the files are read again; one that
    it has added stays.
    """

    def __init__(self) -> None:
        self.loaded = Loaded()
        self._added: dict[str, CheckedRule] = {}
        self._removed: set[str] = set()

    @property
    def rules(self) -> dict[str, CheckedRule]:
        """The rules in force, by name."""
        files = {rule.alert: rule for rule in self.loaded.rules if rule.alert not in self._removed}
        return files | self._added

    @property
    def added(self) -> tuple[CheckedRule, ...]:
        """The rules that the program has added."""
        return tuple(self._added.values())

    def add(self, rule: CheckedRule, *, complete: bool) -> None:
        """Add *rule*. *complete*: the rules of the files are known, so what it names must be there. Raises ConfigError,
        also if there is a rule of its name that is not a default one, which it would replace.
        """
        rules = self.rules
        there = rules.get(rule.alert)
        if there is not None and not there.default:
            raise ConfigError(
                f"there is a rule {rule.alert!r} already, {where(there)}; remove it first, or use another name"
            )
        if complete:
            check_together([*(rules | {rule.alert: rule}).values()])
        self._added[rule.alert] = rule

    def remove(self, alert: str) -> None:
        """Remove the rule *alert*. Raises UnknownName, and ConfigError if another rule names it."""
        rules = self.rules
        if alert not in rules:
            raise UnknownName(f"there is no rule {alert!r}; {nearest(alert, rules)}")
        check_together([rule for rule in rules.values() if rule.alert != alert])
        self._added.pop(alert, None)
        if any(rule.alert == alert for rule in self.loaded.rules):
            self._removed.add(alert)

    def take(self, loaded: Loaded) -> None:
        """Use what was read from the files. Raises ConfigError, and changes nothing, if they do not fit together."""
        rules = [rule for rule in loaded.rules if rule.alert not in self._removed | self._added.keys()]
        check_together([*rules, *self._added.values()])
        self.loaded = loaded


def view_of(
    rule: CheckedRule,
    states: Sequence[AlertState] | None = None,
    failing: str | None = None,
    next_in: float | None = None,
) -> RuleView:
    """Return *rule* as people see it. *states*: of its alerts; None: it was not evaluated yet."""
    return RuleView(
        alertname=rule.alert,
        kind=str(rule.kind.__struct_config__.tag),
        state=None if states is None else max(states, key=_WORST.index, default="inactive"),
        alerts=sum(one in ACTIVE_PHASES for one in states or ()),
        severities=rule.severities,
        failing=failing,
        default=rule.default,
        origin="" if rule.origin is None else f"{rule.origin.file}:{rule.origin.line}",
        next_in=next_in,
    )


def where(rule: CheckedRule) -> str:
    """Return where *rule* comes from, in words."""
    return "added by the program" if rule.origin is None else f"at {rule.origin.file}:{rule.origin.line}"


def nearest(name: str, names: Iterable[str]) -> str:
    """Return a hint at what *name* should have been."""
    there: Sequence[str] = list(names)
    near = difflib.get_close_matches(name, there, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"there are {', '.join(there[:20])}{', ...' if len(there) > 20 else ''}" if there else "there are none"
