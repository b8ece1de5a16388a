"""What a rule says about one of its alerts: its annotations, with the placeholders replaced."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from pool_monitor.alerts.alert import Alert
from pool_monitor.alerts.overlays import Texts
from pool_monitor.alerts.quantity import text_of
from pool_monitor.alerts.rule import CheckedRule
from pool_monitor.alerts.rule_file.shape import unit_of
from pool_monitor.alerts.template import expand
from pool_monitor.snapshot import AlertTransition

TEXT_MAX = 2000
"""Most characters of one annotation."""


def texts_of(rule: CheckedRule | None, alert: Alert | AlertTransition) -> Texts:
    """Return the texts of *alert*, or of a change of it. *rule* is None if it is gone: then there are none."""
    if rule is None:
        return Texts()
    unit, value = unit_of(rule.kind), _text_of(rule, alert, alert.value)
    values = {
        "value": _text_of(rule, alert, alert.last_value) if isinstance(alert, AlertTransition) else value,
        "severity": alert.severity,
        "alertname": alert.alert,
        "reason": alert.note,
        "names": alert.labels.get("worker", alert.note),
        **alert.labels,
    }
    annotations = {name: expand(text, values)[:TEXT_MAX] for name, text in rule.annotations}
    return Texts(
        summary=annotations.get("summary", ""),
        runbook=annotations.get("runbook", ""),
        annotations=annotations,
        value_text=value,
        unit=unit,
    )


def _text_of(rule: CheckedRule, alert: Alert | AlertTransition, value: float | None) -> str:
    return "" if value is None and alert.note else text_of(value, unit_of(rule.kind))


def worded(transition: AlertTransition, rules: Mapping[str, CheckedRule]) -> AlertTransition:
    """Return *transition* with the texts of its rule."""
    texts = texts_of(rules.get(transition.alert), transition)
    return msgspec.structs.replace(transition, summary=texts.summary, value_text=texts.value_text)
