"""Rules that are given in code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import structs

from pool_monitor.alerts.rule import CheckedRule
from pool_monitor.alerts.rule_file.across import conflicts
from pool_monitor.alerts.rule_file.fields import Invalid, note
from pool_monitor.alerts.rule_file.file import in_words
from pool_monitor.alerts.rule_file.files import error_of
from pool_monitor.alerts.rule_file.nodes import Node, Problems, shown
from pool_monitor.alerts.rule_file.python_values import node_of
from pool_monitor.alerts.rule_file.rules import RULE
from pool_monitor.errors import ConfigError


def checked_rule(value: CheckedRule | Mapping[str, Any]) -> CheckedRule:
    """Return the checked rule that *value* describes: the fields of a rule as in a file, or a rule of the types.

    Values may be those of a file, or numbers in base units and the types of `rule`. Raises ConfigError with a line for
    each error. Whether the rules exist that it names is not checked here: see `check_together`.
    """
    problems = Problems("")
    name = value.alert if isinstance(value, CheckedRule) else value.get("alert") if isinstance(value, Mapping) else None
    place = f"Rule {shown(name)}" if isinstance(name, str) else "Rule"
    if not isinstance(value, CheckedRule | Mapping):
        raise ConfigError(f"{value!r:.80} is not a rule; needs a Rule, or a mapping with the fields of one")
    try:
        node = node_of(value)
        rule: CheckedRule = RULE.read(node, place, problems)
    except ValueError as error:
        raise ConfigError(f"{place}: {error}") from None
    except Invalid as error:
        note(error, Node(0, 0), place, problems)
        raise error_of([str(one) for one in problems.found if one.level == "error"]) from None
    wrong = [f"{place}{in_words(one.path)}: {one.message}" for one in conflicts([rule], None)]
    if wrong:
        raise error_of(wrong)
    if isinstance(value, CheckedRule):
        return structs.replace(rule, default=value.default, origin=value.origin)
    return rule


def check_together(rules: Sequence[CheckedRule]) -> None:
    """Check what can be checked only when all rules of a service are known. Raises ConfigError with all errors."""
    wrong = [f"Rule {shown(rules[one.rule].alert)}{in_words(one.path)}: {one.message}" for one in conflicts(rules)]
    if wrong:
        raise error_of(wrong)
