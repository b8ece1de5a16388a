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
from pool_monitor.alerts.rule_file.python_values import KEYWORDS, node_of
from pool_monitor.alerts.rule_file.rules import RULE
from pool_monitor.errors import ConfigError


class Rule:
    """A rule of alerts that is made in code. Its fields are those of a rule file: see docs/ALERT_RULES.md.

        Rule(alert="FailingCalls", threshold={"metric": "operation.error_ratio", "above": "5%"}, for_="10s")

    A field whose name is a word of Python has an underscore at its end (``for_``, ``not_``), or comes from a mapping:
    ``Rule(**{"alert": ..., "for": "10s"})``. Quantities are texts with units, as in a file, or numbers in base units:
    seconds, bytes, shares from 0 to 1, counts. A kind may also be given as its type in `pool_monitor.alerts.rule`.
    None stands for the default.

    Two rules are equal if they mean the same: ``for_="60s"`` and ``for_=60`` do. Raises ConfigError, whose text has a
    line for each error. Whether the rules that it names exist is checked when it is added to a monitor.
    """

    __slots__ = ("_fields", "checked")

    def __init__(self, **fields: Any) -> None:
        self._fields = {name: value for name, value in fields.items() if value is not None}
        self.checked: CheckedRule = checked_rule(self._fields)
        """The same as a value of checked types."""

    @property
    def alert(self) -> str:
        """The name of the rule."""
        return self.checked.alert

    def __eq__(self, other: object) -> bool:
        return self.checked == other.checked if isinstance(other, Rule) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.checked)

    def __repr__(self) -> str:
        fields = ", ".join(f"{KEYWORDS.get(name, name)}={value!r}" for name, value in self._fields.items())
        return f"Rule({fields})"


def checked_rule(value: Rule | CheckedRule | Mapping[str, Any]) -> CheckedRule:
    """Return the checked rule that *value* describes: the fields of a rule as in a file, or a rule of the types.

    Values may be those of a file, or numbers in base units and the types of `rule`. Raises ConfigError with a line for
    each error. Whether the rules exist that it names is not checked here: see `check_together`.
    """
    if isinstance(value, Rule):
        return value.checked
    problems = Problems("")
    name = value.alert if isinstance(value, CheckedRule) else value.get("alert") if isinstance(value, Mapping) else None
    place = f"Rule {shown(name)}" if isinstance(name, str) else "Rule"
    if not isinstance(value, CheckedRule | Mapping):
        raise ConfigError(f"{value!r:.80} is not a rule; needs a Rule, or a mapping with the fields of one")
    rule: CheckedRule | None = None
    try:
        rule = RULE.read(node_of(value), place, problems)
    except ValueError as error:
        raise ConfigError(f"{place}: {error}") from None
    except Invalid as error:
        note(error, Node(0, 0), place, problems)
        rule = error.partial
    wrong = [str(one) for one in problems.found if one.level == "error"]
    if rule is not None:
        wrong += [f"{place}{in_words(one.path)}: {one.message}" for one in conflicts([rule], None)]
    if wrong or rule is None:
        raise error_of(wrong)
    if isinstance(value, CheckedRule):
        return structs.replace(rule, default=value.default, origin=value.origin)
    return rule


def check_together(rules: Sequence[CheckedRule]) -> None:
    """Check what can be checked only when all rules of a service are known. Raises ConfigError with all errors."""
    wrong = [f"Rule {shown(rules[one.rule].alert)}{in_words(one.path)}: {one.message}" for one in conflicts(rules)]
    if wrong:
        raise error_of(wrong)
