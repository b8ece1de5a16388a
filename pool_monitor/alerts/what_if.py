"""What a changed setting would have done: ``for=10m`` for all rules, ``NAME.above=5%`` for one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from pool_monitor.alerts.rule import CheckedRule
from pool_monitor.alerts.rule_book import nearest
from pool_monitor.alerts.rule_file import check_together, checked_rule, fields_of
from pool_monitor.errors import ConfigError

OF_ALL_RULES = ("for", "keep_firing_for", "min_samples", "on_no_data", "no_data_for", "on_error", "limit")
"""Fields that each rule has, whatever its kind."""
_NO_KIND = {*OF_ALL_RULES, "alert", "match", "labels", "annotations", "mute"}
_SIDES = ("above", "below", "clear_above", "clear_below")


class Setting(NamedTuple):
    """One change of rules."""

    text: str
    """As it was written."""
    alert: str | None
    """The rule; None: all that have such a field."""
    path: tuple[str, ...]
    value: str


def setting_of(text: str, names: Iterable[str]) -> Setting:
    """Return the setting that *text* describes: ``FIELD=VALUE`` or ``NAME.FIELD=VALUE``, where *names* are the rules.

    Raises ConfigError for anything else.
    """
    key, equal, value = text.partition("=")
    key, value = key.strip(), value.strip()
    if not (equal and key and value):
        raise ConfigError(f"--set {text}: needs FIELD=VALUE, such as for=10m, or NAME.FIELD=VALUE")
    known = list(names)
    alert = max((name for name in known if key.startswith(f"{name}.")), key=len, default=None)
    path = tuple((key if alert is None else key[len(alert) + 1 :]).split("."))
    if alert is None and len(path) > 1 and path[0] not in _NO_KIND | {"levels", "all", "any", "not"}:
        raise ConfigError(f"--set {text}: there is no rule {path[0]!r}; {nearest(path[0], known)}")
    return Setting(text, alert, path, value)


def changed_rules(rules: Sequence[CheckedRule], texts: Iterable[str]) -> tuple[CheckedRule, ...]:
    """Return *rules* with the settings *texts*, in their order. Raises ConfigError for one that changes no rule, or
    makes one wrong.
    """
    made = list(rules)
    for text in texts:
        setting = setting_of(text, [rule.alert for rule in rules])
        fitting = 0
        for place, rule in enumerate(made):
            if setting.alert in (None, rule.alert):
                fields = fields_of(rule)
                if _put(fields, setting):
                    fitting += 1
                    made[place] = _checked(fields, rule, setting)
        if not fitting:
            whose = "no rule has" if setting.alert is None else f"the rule {setting.alert!r} has no"
            raise ConfigError(f"--set {text}: {whose} {'.'.join(setting.path)!r}{_hint(made, setting)}")
    check_together(made)
    return tuple(made)


def _checked(fields: dict[str, Any], rule: CheckedRule, setting: Setting) -> CheckedRule:
    from msgspec.structs import replace

    try:
        return replace(checked_rule(fields), default=rule.default, origin=rule.origin)
    except ConfigError as error:
        raise ConfigError(f"--set {setting.text}: {error}") from None


def _put(fields: dict[str, Any], setting: Setting) -> bool:
    """Change *fields* of a rule. Return False if there is no such field."""
    path = setting.path
    if path[0] in OF_ALL_RULES:
        fields[path[0]] = setting.value
        return len(path) == 1
    return any(_put_at(place, path, setting.value) for place in (fields, *_kinds(fields)))


def _put_at(place: Any, path: Sequence[str], value: str) -> bool:
    *way, last = path
    for step in way:
        if isinstance(place, list) and step.isdecimal() and int(step) < len(place):
            place = place[int(step)]
        elif isinstance(place, dict) and step in place:
            place = place[step]
        else:
            return False
    if not isinstance(place, dict) or place.keys() & {"alert"} == {last}:
        return False
    if last in place:
        if isinstance(place[last], dict) and last not in _SIDES:  # a level by its name has one bound
            side = next((side for side in ("above", "below") if side in place[last]), None)
            if side is None:
                return False
            place[last][side] = value
        else:
            place[last] = value
        return True
    side = {"clear_below": "above", "clear_above": "below"}.get(last)
    if side in place:
        place[last] = value
        return True
    return False


def _kinds(fields: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the mappings of the kind in which a field may be."""
    for name, kind in fields.items():
        if name not in _NO_KIND and isinstance(kind, dict):
            yield kind
            levels = kind.get("levels", {})
            yield levels
            if len(levels) == 1:
                yield from levels.values()


def _hint(rules: Sequence[CheckedRule], setting: Setting) -> str:
    rule = next((rule for rule in rules if rule.alert == setting.alert), None)
    if rule is None:
        return f"; fields of all rules are {', '.join(OF_ALL_RULES)}"
    levels = [name for name in rule.severities if len(rule.severities) > 1]
    if levels and setting.path[-1] in _SIDES:
        return f"; it has several levels: name one, such as {rule.alert}.levels.{levels[0]}.{setting.path[-1]}"
    names = [name for kind in (fields_of(rule), *_kinds(fields_of(rule))) for name in kind if name != "alert"]
    return f"; it has {', '.join(dict.fromkeys([*names, *OF_ALL_RULES]))}"
