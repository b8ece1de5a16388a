"""Checked rules as the fields of a file: what `checked_rule` reads back to the same rule.

Numbers are in base units, as they may be in code.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from pool_monitor.alerts.rule import (
    DAYS,
    Absence,
    Absolute,
    AlertFires,
    AllOf,
    Anomaly,
    AnyOf,
    CheckedRule,
    FindingIs,
    Forecast,
    Matcher,
    MuteTime,
    Not,
    OfLimit,
    OwnBaseline,
    RateOfChange,
    SloBurn,
    Threshold,
)

_DEFAULTS = {
    "keep_firing_for": 0.0,
    "min_samples": 0,
    "on_no_data": "resolve",
    "no_data_for": None,
    "on_error": "keep",
    "limit": 1000,
}


def fields_of(rule: CheckedRule) -> dict[str, Any]:
    """Return *rule* as the fields of a file, without those that have their default. Texts, numbers, lists, mappings."""
    kind = rule.kind
    name = kind.__struct_config__.tag
    composite = isinstance(kind, AllOf | AnyOf | Not | FindingIs)
    found: dict[str, Any] = {"alert": rule.alert}
    found |= fields_of_part(kind) if composite else {str(name): _of_kind(kind)}
    if rule.match:
        found["match"] = {one.label: one.value for one in rule.match}
    if rule.for_:
        found["for"] = rule.for_
    found |= {key: value for key, default in _DEFAULTS.items() if (value := getattr(rule, key)) != default}
    labels = dict(rule.labels)
    if len(rule.severities) == 1 and rule.severities != ("warning",) and not isinstance(kind, Threshold):
        labels["severity"] = rule.severities[0]
    if labels:
        found["labels"] = labels
    if rule.annotations:
        found["annotations"] = dict(rule.annotations)
    if rule.mute:
        found["mute"] = [fields_of_part(one) for one in rule.mute]
    return found


def fields_of_part(part: Struct) -> Any:
    """Return a part of a rule, of one of the types of `rule`, as it stands in a file. Raises ValueError for others."""
    match part:
        case CheckedRule():
            return fields_of(part)
        case Absolute():
            return part.value
        case OwnBaseline():
            return {"times": part.times, "of": f"own {_whole(part.seconds)}s {part.statistic}"}
        case OfLimit():
            return {"ratio": part.ratio, "of": "limit"}
        case AllOf() | AnyOf():
            return {"all" if isinstance(part, AllOf) else "any": [_of_condition(one) for one in part.conditions]}
        case Not():
            return {"not": _of_condition(part.condition)}
        case FindingIs():
            return {"finding": list(part.kinds)}
        case AlertFires():
            return {"alert": part.alert}
        case Matcher():
            return {part.label: part.value}
        case MuteTime():
            return {"days": [DAYS[day] for day in part.days]} | (
                {} if part.end - part.start == 24 * 60 else {"from": _time(part.start), "to": _time(part.end)}
            )
        case Threshold() | RateOfChange() | Anomaly() | Absence() | SloBurn() | Forecast():
            return _of_kind(part)
    raise ValueError(f"a {type(part).__name__} is no part of a rule")


def _of_condition(condition: Any) -> Any:
    """Return a condition of a composite rule: a threshold of one bound, without a severity."""
    if not isinstance(condition, Threshold) or len(condition.levels) != 1:
        return fields_of_part(condition)
    found = _measured(condition)
    level = condition.levels[0]
    side, clear = ("above", "clear_below") if condition.above else ("below", "clear_above")
    found[side] = fields_of_part(level.bound)
    return found if level.clear is None else found | {clear: fields_of_part(level.clear)}


def _of_kind(kind: Any) -> dict[str, Any]:
    if isinstance(kind, Threshold):
        side, clear = ("above", "clear_below") if kind.above else ("below", "clear_above")
        levels = {
            one.severity: {side: fields_of_part(one.bound)}
            | ({} if one.clear is None else {clear: fields_of_part(one.clear)})
            for one in kind.levels
        }
        return {**_measured(kind), "levels": levels}
    found = {name: getattr(kind, name) for name in kind.__struct_fields__}
    if isinstance(kind, Forecast):
        found["reaches"] = fields_of_part(kind.reaches)
    return {name: value for name, value in found.items() if value is not None}


def _measured(kind: Threshold) -> dict[str, Any]:
    return {"metric": kind.metric} | ({} if kind.window is None else {"window": kind.window})


def _time(minutes: int) -> str:
    return f"{minutes // 60:02}:{minutes % 60:02}"


def _whole(seconds: float) -> str:
    return f"{seconds:.18f}".rstrip("0").rstrip(".")
