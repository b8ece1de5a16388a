"""What can be checked only when all rules of a service are known: the rules that they name, and their labels."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from pool_monitor.alerts.rule import CheckedRule, FindingIs
from pool_monitor.alerts.rule_file.shape import LabelNames, Path, alerts_named, instance_labels, leaves
from pool_monitor.alerts.template import placeholders

CIRCLES_MAX = 20
"""Most circles that are found: there may be more of them than rules."""
ALWAYS = ("value", "severity", "alertname")
"""The placeholders that every rule has, besides the labels of its instance."""
OF_FINDINGS = ("reason", "names")
"""Those of a rule that reads findings."""
COMPARED_MAX = 100_000
"""Most names that are compared to find those that were meant: some tenths of a second."""


class Hints:
    """Finds the one of *names* that was meant. Says nothing more once it has compared `COMPARED_MAX` names."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = list(names)
        self._left = COMPARED_MAX

    def near(self, name: str, but: str = "") -> str | None:
        """Return the name that is most like *name*, and is not *but*; None: there is none."""
        self._left -= len(self._names)
        found = difflib.get_close_matches(name, self._names, n=2) if self._left >= 0 else ()
        return next((one for one in found if one != but), None)


class Conflict(NamedTuple):
    """Something in one rule that does not fit to the others, or to itself."""

    rule: int
    """Which of the rules."""
    path: Path
    """Where it is in the rule."""
    message: str
    at_key: bool = False


def not_replaced(rules: Sequence[CheckedRule], others: Iterable[CheckedRule]) -> list[CheckedRule]:
    """Return *rules* without the default rules that one of *others* replaces: it has the name."""
    names = {rule.alert for rule in others}
    return [rule for rule in rules if not (rule.default and rule.alert in names)]


def with_named(rules: Sequence[CheckedRule], others: Sequence[CheckedRule]) -> list[CheckedRule]:
    """Return *rules*, and those of *others* that they depend on, also through one another."""
    left = {rule.alert: rule for rule in not_replaced(others, rules)}
    found = list(rules)
    for rule in found:  # which grows meanwhile
        found += [left.pop(alert) for _, alert in alerts_named(rule.kind) if alert in left]
    return found


def conflicts(
    rules: Sequence[CheckedRule], unread: Collection[str] | None = (), *, in_force: int = 0
) -> Iterator[Conflict]:
    """Yield what does not fit together in *rules*, which are all rules of a service.

    *unread* names rules that exist, but could not be read; None: there may be others of any name. The first *in_force*
    rules have been checked before: a conflict is always in another one.
    """
    known = {rule.alert: rule for rule in reversed(rules)}
    order, circles = _in_order(known)
    labels: dict[str, LabelNames | None] = {}
    for name in order:
        labels[name] = instance_labels(known[name].kind, labels.get)
    yield from _doubled(rules, in_force)
    hints = Hints(known)
    for number, rule in list(enumerate(rules))[in_force:]:
        names = labels[rule.alert] if known[rule.alert] is rule else None
        for one in (*_named(rule, known, unread, hints), *_scopes(rule, labels), *_misfits(rule, names)):
            yield one._replace(rule=number)
    for circle in circles:
        names_of = set(circle)
        found = next((number for number in range(in_force, len(rules)) if rules[number].alert in names_of), None)
        if found is None:
            continue
        head = circle.index(rules[found].alert)
        turned = [*circle[head:], *circle[: head + 1]]
        path = next(path for path, alert in alerts_named(rules[found].kind) if alert == turned[1])
        shown = turned if len(turned) <= 12 else [*turned[:10], f"{len(turned) - 11} more", turned[-1]]
        yield Conflict(found, path, f"the rules depend on each other: {' -> '.join(shown)}")


def _in_order(rules: Mapping[str, CheckedRule]) -> tuple[list[str], list[list[str]]]:
    """Return the names of the rules, those that others depend on first, and `CIRCLES_MAX` of their circles.

    Without recursion: a chain of rules may be long.
    """
    order: dict[str, None] = {}
    circles: list[list[str]] = []
    for start in rules:
        trail: dict[str, Iterator[str]] = {}
        below = iter([start])
        while True:
            name = next(below, None)
            if name is None:
                if not trail:
                    break
                order[trail.popitem()[0]] = None
                below = next(reversed(trail.values())) if trail else iter(())
            elif name in trail:
                if len(circles) < CIRCLES_MAX:
                    names = list(trail)
                    circles.append(names[names.index(name) :])
            elif name in rules and name not in order:
                below = trail[name] = iter([alert for _, alert in alerts_named(rules[name].kind)])
    return list(order), circles


def _doubled(rules: Sequence[CheckedRule], in_force: int) -> Iterator[Conflict]:
    first: dict[str, CheckedRule] = {}
    for number, rule in enumerate(rules):
        before = first.setdefault(rule.alert, rule)
        if before is not rule and number >= in_force:
            origin = before.origin
            where = f"; the first is in {origin.file}:{origin.line}:{origin.column}" if origin else ""
            yield Conflict(number, ("alert",), f"there is another rule of this name{where}; a name is used once")


def _named(
    rule: CheckedRule, known: Collection[str], unread: Collection[str] | None, hints: Hints
) -> Iterator[Conflict]:
    if unread is None:
        return
    for path, alert in alerts_named(rule.kind):
        if alert not in known and alert not in unread:
            near = hints.near(alert, but=rule.alert)
            hint = f"did you mean {near}?" if near else "add it, or correct the name"
            yield Conflict(0, path, f'there is no rule "{alert}"; {hint}')


def _scopes(rule: CheckedRule, labels: Mapping[str, LabelNames | None]) -> Iterator[Conflict]:
    """Yield a conflict if no condition has the labels of all others, so that there is nothing to pair them by."""
    found: list[tuple[Path, LabelNames]] = []
    for path, leaf in leaves(rule.kind):
        names = frozenset({"pool"}) if isinstance(leaf, FindingIs) else instance_labels(leaf, labels.get)
        found.append((path, names or frozenset()))
    widest = max((names for _, names in found), key=len, default=frozenset())
    for path, names in found:
        if not names <= widest:
            mine, others = (" and ".join(sorted(one)) for one in (names, widest))
            text = f"is about each {mine}, and another condition about each {others}: they cannot be paired"
            yield Conflict(0, path, text)
            return


def _misfits(rule: CheckedRule, names: LabelNames | None) -> Iterator[Conflict]:
    """Yield labels of ``match``, labels and placeholders that the instances of *rule* do not have. *names* None: they
    are not known.
    """
    has = f"has {', '.join(sorted(names))}" if names else "has none"
    for one in rule.match if names is not None else ():
        if one.label not in (names or ()):
            text = f'"{one.label}" is not a label of what this rule measures, which {has}'
            yield Conflict(0, ("match", one.label), text, at_key=True)
    for label, _ in rule.labels:
        if label in (names or ()):
            yield Conflict(0, ("labels", label), f'"{label}" is a label of the instance already', at_key=True)
    more = OF_FINDINGS if isinstance(rule.kind, FindingIs) else ()
    for key, text in rule.annotations:
        for name in placeholders(text):
            if names is not None and name not in (*ALWAYS, *more, *names):
                known = ", ".join(f"{{{one}}}" for one in (*ALWAYS, *more, *sorted(names)))
                yield Conflict(
                    0, ("annotations", key), f"{{{name}}} is not a placeholder of this rule; they are {known}"
                )
