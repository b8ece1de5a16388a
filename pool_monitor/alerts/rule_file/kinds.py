"""The kinds of rules: what each may say, and what has to fit together in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pool_monitor.alerts.catalogue import METRICS, Metric
from pool_monitor.alerts.detectors import DETECTORS
from pool_monitor.alerts.quantity import text_of
from pool_monitor.alerts.rule import (
    DEFAULT_WINDOW,
    Absence,
    AlertFires,
    AllOf,
    Anomaly,
    AnyOf,
    Condition,
    FindingIs,
    Forecast,
    Not,
    RateOfChange,
    SloBurn,
    Threshold,
)
from pool_monitor.alerts.rule_file.bounds import BOUND, SIDES, levels_of, one_bound
from pool_monitor.alerts.rule_file.fields import Entry, Fields, Later, ListOf, Section
from pool_monitor.alerts.rule_file.scalars import ALERT_NAME, DURATION, LENGTH, METRIC, PATTERN, SHARE, WINDOW, choice
from pool_monitor.findings import CONDITIONS

CONDITIONS_MAX = 32
"""Most conditions of one list."""
LOOK_AHEAD_MAX = 24
"""How many times the length of the past a forecast may look ahead."""
WINDOW_SECONDS = {"1m": 60.0, "5m": 300.0, "15m": 900.0, "1h": 3600.0}

_METRIC = Entry("metric", METRIC, "What is measured: see `pool-monitor rules metrics`.", required=True)
_WINDOW = Entry(
    "window",
    WINDOW,
    f"The time that a metric over calls covers: `1m`, `5m`, `15m` or `1h`. Default: `{DEFAULT_WINDOW}`. A metric of the"
    " moment has none.",
)


def _measured(fields: Fields) -> tuple[Metric | None, str | None]:
    """Return the metric and its window; notes a window that the metric cannot have."""
    metric = METRICS.get(fields.get("metric", ""))
    if metric is None:
        return None, None
    if not metric.windowed:
        if "window" in fields:
            text = f"{metric.name} is of the moment and has no window; to ask that it stays so for a time, use for"
            fields.wrong("window", text, at_key=True)
        return metric, None
    return metric, fields.get("window", DEFAULT_WINDOW)


def _check_past(fields: Fields, metric: Metric | None) -> None:
    if metric is not None and not metric.kept:
        fields.wrong("metric", f"{metric.name} has no past: its earlier values are not kept")


def _threshold(fields: Fields) -> Threshold | None:
    metric, window = _measured(fields)
    found = levels_of(fields, metric)
    if metric is None or found is None:
        return None
    return Threshold(metric=metric.name, window=window, above=found[0], levels=found[1])


THRESHOLD = Section(
    "threshold",
    "a threshold",
    (_METRIC, _WINDOW, *SIDES),
    _threshold,
    one_of=("above", "below", "levels"),
    kinds="threshold",
)


def _rate_of_change(fields: Fields) -> RateOfChange | None:
    metric, window = _measured(fields)
    _check_past(fields, metric)
    falls_by, rises_by, against = fields.get("falls_by"), fields.get("rises_by"), fields.get("against")
    if falls_by is not None and falls_by > 1:
        fields.wrong("falls_by", "is more than 100%; nothing falls by more than all of it")
    if "falls_by" not in fields and "rises_by" not in fields:
        fields.wrong("", "has neither falls_by nor rises_by; needs one of them, or both")
    length = WINDOW_SECONDS.get(window or "", 0.0)
    if against is not None and against < length:
        fields.wrong(
            "against", f"is shorter than the window of {window}, so the two would overlap; needs {window} or more"
        )
    if metric is None or against is None:
        return None
    return RateOfChange(metric=metric.name, window=window, against=against, falls_by=falls_by, rises_by=rises_by)


RATE_OF_CHANGE = Section(
    "rate_of_change",
    "a rate of change",
    (
        _METRIC,
        _WINDOW,
        Entry("against", LENGTH, "How long ago the value was that it is compared with.", required=True),
        Entry("falls_by", SHARE, "It is bad when the value has fallen by more than this share of what it was."),
        Entry("rises_by", SHARE, "It is bad when the value has risen by more than this share of what it was."),
    ),
    _rate_of_change,
)


_DETECTORS = ", ".join(f"`{name}`" for name in DETECTORS)


def _anomaly(fields: Fields) -> Anomaly | None:
    metric, window = _measured(fields)
    if metric is None:
        return None
    direction = fields.get("direction", "both")
    return Anomaly(metric=metric.name, window=window, direction=direction, detector=fields.get("detector"))


ANOMALY = Section(
    "anomaly",
    "an anomaly",
    (
        _METRIC,
        _WINDOW,
        Entry("direction", choice(("up", "down", "both"), "a direction"), "Which way it is bad. Default: `both`."),
        Entry(
            "detector",
            choice(DETECTORS, "a detector"),
            f"What decides: {_DETECTORS}. Default: the first.",
        ),
    ),
    _anomaly,
)


def _absence(fields: Fields) -> Absence | None:
    metric, window = _measured(fields)
    return None if metric is None else Absence(metric=metric.name, window=window)


ABSENCE = Section("absence", "an absence", (_METRIC, _WINDOW), _absence)


def _slo_burn(fields: Fields) -> SloBurn | None:
    objective, period = fields.get("objective"), fields.get("period", 30 * 86_400.0)
    if objective is not None and objective >= 1:
        fields.wrong("objective", "leaves no error budget; needs less than 100%, such as 99.9%")
    if not 86_400 <= period <= 366 * 86_400:
        fields.wrong("period", f"is {text_of(period, 's')}; needs from 1d to 366d, such as 30d")
    if objective is None:
        return None
    pool, operation = fields.get("pool", "*"), fields.get("operation")
    return SloBurn(pool=pool, operation=operation, objective=objective, period=period)


SLO_BURN = Section(
    "slo_burn",
    "an objective",
    (
        Entry("pool", PATTERN, "The pool, or a shell pattern.", required=True),
        Entry("operation", PATTERN, "The operation, or a shell pattern. Default: all calls of the pool together."),
        Entry("objective", SHARE, "The share of calls that must succeed.", required=True),
        Entry("period", DURATION, "The time over which the objective holds. Default: `30d`."),
    ),
    _slo_burn,
)


def _forecast(fields: Fields) -> Forecast | None:
    metric = METRICS.get(fields.get("metric", ""))
    _check_past(fields, metric)
    reaches = one_bound(fields, "reaches", metric)
    within = fields.get("within")
    least = (within or 0.0) / LOOK_AHEAD_MAX
    window = fields.get("window", max(3600.0, least))
    if window < least:
        fields.wrong("window", f"is too short a past for a look so far ahead; needs {text_of(least, 's')} or more")
    if metric is None or reaches is None or within is None:
        return None
    return Forecast(metric=metric.name, reaches=reaches, within=within, window=window)


FORECAST = Section(
    "forecast",
    "a forecast",
    (
        _METRIC,
        Entry(
            "reaches",
            BOUND,
            "The bound that it runs up to, or down to if less is worse, as of `host.disk_free`.",
            required=True,
        ),
        Entry("within", LENGTH, "It is bad when the bound is reached within this time.", required=True),
        Entry(
            "window",
            LENGTH,
            f"The past that the line is drawn through. Default: `1h`, or 1/{LOOK_AHEAD_MAX} of `within` if longer.",
        ),
    ),
    _forecast,
)

_FINDING = ListOf(
    choice(CONDITIONS, "a finding"),
    "a kind of finding, or a list of them",
    at_least=1,
    at_most=len(CONDITIONS),
    single=True,
)
FINDING = Entry("finding", _FINDING, "Findings of the dashboard: of this kind, or of one of these.")


def _condition(fields: Fields) -> Condition | None:
    """Return one condition of a composite rule."""
    if sum(name in fields for name in ALTERNATIVES) != 1:
        return None
    for name, build in COMPOSITES.items():
        if name in fields:
            _only(fields, name)
            inner = fields.get(name)
            return None if inner is None else build(inner)
    if "finding" in fields:
        _only(fields, "finding")
        kinds = fields.get("finding")
        return None if kinds is None else FindingIs(kinds=kinds)
    if "alert" in fields:
        _only(fields, "alert")
        alert = fields.get("alert")
        return None if alert is None else AlertFires(alert=alert)
    if "metric" not in fields:
        return None
    if ("above" in fields) is ("below" in fields):
        fields.wrong("", "needs one of above and below")
    return _threshold(fields)


def _only(fields: Fields, name: str) -> None:
    """Note the keys of a condition on a metric that stand beside *name*."""
    for other in fields.nodes:
        if other not in ALTERNATIVES:
            fields.wrong(other, f"has no meaning beside {name}; it belongs to a condition with metric", at_key=True)


COMPOSITES: dict[str, Callable[[Any], AllOf | AnyOf | Not]] = {
    "all": lambda conditions: AllOf(conditions=conditions),
    "any": lambda conditions: AnyOf(conditions=conditions),
    "not": lambda condition: Not(condition=condition),
}
ALTERNATIVES = ("metric", "alert", "finding", *COMPOSITES)

_NESTED = Later("a condition, such as {metric: pool.utilisation, above: 95%}", lambda: CONDITION)
_SEVERAL = ListOf(_NESTED, "a list of conditions", at_least=1, at_most=CONDITIONS_MAX)
COMPOSITE_KEYS = (
    Entry("all", _SEVERAL, "Conditions that must all hold."),
    Entry("any", _SEVERAL, "Conditions of which one must hold."),
    Entry("not", _NESTED, "A condition that must not hold."),
)
CONDITION: Section = Section(
    "condition",
    "a condition",
    (
        _METRIC._replace(required=False),
        _WINDOW,
        *(key for key in SIDES if key.name != "levels"),
        Entry("alert", ALERT_NAME, "Another rule that must have a firing alert with the same values of shared labels."),
        FINDING,
        *COMPOSITE_KEYS,
    ),
    _condition,
    one_of=ALTERNATIVES,
    kinds="condition",
)
