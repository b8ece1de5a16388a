"""A rule, as it stands in a file."""

from __future__ import annotations

import re

from msgspec import structs

from pool_monitor.alerts.catalogue import METRICS
from pool_monitor.alerts.rule import (
    DAYS,
    Anomaly,
    CheckedRule,
    FindingIs,
    Kind,
    Level,
    Matcher,
    MuteTime,
    Origin,
    RateOfChange,
    SloBurn,
    Threshold,
)
from pool_monitor.alerts.rule_file.fields import Entry, Fields, ListOf, MapOf, Section
from pool_monitor.alerts.rule_file.kinds import (
    ABSENCE,
    ANOMALY,
    COMPOSITE_KEYS,
    COMPOSITES,
    FINDING,
    FORECAST,
    RATE_OF_CHANGE,
    SLO_BURN,
    THRESHOLD,
)
from pool_monitor.alerts.rule_file.nodes import MapNode
from pool_monitor.alerts.rule_file.scalars import (
    ALERT_NAME,
    DURATION,
    LABEL_NAME,
    LABEL_VALUE,
    PATTERN,
    choice,
    text,
    whole,
)
from pool_monitor.alerts.rule_file.shape import TWO_LEVELS, leaves
from pool_monitor.alerts.template import doubled, placeholders

RULES_MAX = 10_000
"""Most rules of one file."""
_CLOCK = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])|24:00")


def _minutes(value: str | None, default: int) -> int:
    return default if value is None else int(value[:2]) * 60 + int(value[3:])


def _mute(fields: Fields) -> MuteTime:
    start, end = _minutes(fields.get("from"), 0), _minutes(fields.get("to"), 24 * 60)
    if not fields.bad("from", "to"):
        if fields.get("from") == "24:00":
            fields.wrong("from", "is the end of a day; needs a time such as 00:00")
        elif start == end:
            fields.wrong("to", "is the same as from; for a whole day leave out both")
        elif not fields.nodes:
            fields.wrong("", "is empty; needs days, or from and to, or all of them")
    days = tuple(sorted({DAYS.index(day) for day in fields.get("days", DAYS)}))
    return MuteTime(days=days, start=start, end=end)


_TIME = text("a time of the day, such as 22:00", _CLOCK.pattern)
MUTE_TIME = Section(
    "mute_time",
    "a mute time",
    (
        Entry(
            "days",
            ListOf(choice(DAYS, "a day"), "a list of days, such as [sat, sun]", at_least=1, at_most=7, single=True),
            f"The days on which it begins: `{'`, `'.join(DAYS)}`. Default: every day.",
        ),
        Entry("from", _TIME, "When it begins, in the time zone of the machine. Default: `00:00`."),
        Entry("to", _TIME, "When it ends; before `from` means on the next day. Default: `24:00`."),
    ),
    _mute,
)
MUTE = ListOf(MUTE_TIME, "a list of mute times, such as [{days: [sat, sun]}]", at_most=100)
MATCH = MapOf(LABEL_NAME, PATTERN, "a mapping of labels and patterns, such as {pool: text}")
LABELS = MapOf(LABEL_NAME, LABEL_VALUE, "a mapping of labels, such as {team: search}")
ANNOTATIONS = MapOf(
    LABEL_NAME,
    text("a text with placeholders, such as {value} of {operation} fail", check=placeholders),
    "a mapping of texts, such as {summary: ...}",
)
NO_DATA = ("resolve", "keep", "fire")
ON_ERROR = ("keep", "resolve", "fire")
KIND_SECTIONS: dict[str, Section] = {
    one.name: one for one in (THRESHOLD, RATE_OF_CHANGE, ANOMALY, ABSENCE, SLO_BURN, FORECAST)
}
KINDS = (*KIND_SECTIONS, FINDING.name, *COMPOSITES)
"""The keys that say what kind a rule is of."""
_MEANINGS = {
    "threshold": "A metric is beyond a bound.",
    "rate_of_change": "A metric has changed by a share of what it was.",
    "anomaly": "A metric is far from what it usually is.",
    "absence": "A metric has nothing to show: its instance is gone, it is unknown, or its count or rate is 0.",
    "slo_burn": "The error budget of an objective is used up too fast. Its severities are `warning` and `critical`.",
    "forecast": "A metric that goes on as it did reaches a bound.",
}


def matchers(pairs: tuple[tuple[str, str], ...]) -> tuple[Matcher, ...]:
    """Return the matchers of a ``match``, ordered by label."""
    return tuple(Matcher(label, value) for label, value in sorted(pairs))


def _rule(fields: Fields) -> CheckedRule | None:
    found = next((name for name in KINDS if name in fields), "")
    kind = _kind(fields, found)
    labels = dict(fields.get("labels", ()))
    if "alertname" in labels:
        fields.wrong_in("labels", "alertname", "is the name of the rule already; choose another label")
    severity = labels.pop("severity", None)
    own = severities(kind) if _has_levels(fields, found) else None
    if own is not None and severity is not None:
        fields.wrong_in("labels", "severity", f"follows from the levels of this rule ({', '.join(own)}); remove it")
    if kind is None or fields.get("alert") is None:
        return None
    _check_samples(fields, kind)
    _check_braces(fields)
    names = own or (severity or "warning",)
    if isinstance(kind, Threshold):
        levels = tuple(Level(name, one.bound, one.clear) for name, one in zip(names, kind.levels, strict=True))
        kind = structs.replace(kind, levels=levels)
    line, column = fields.node.line, fields.node.column
    return CheckedRule(
        alert=fields.get("alert"),
        kind=kind,
        match=matchers(fields.get("match", ())),
        for_=fields.get("for", 0.0),
        keep_firing_for=fields.get("keep_firing_for", 0.0),
        min_samples=fields.get("min_samples", 0),
        on_no_data=fields.get("on_no_data", "resolve"),
        no_data_for=fields.get("no_data_for"),
        on_error=fields.get("on_error", "keep"),
        labels=tuple(sorted(labels.items())),
        annotations=tuple(sorted(fields.get("annotations", ()))),
        severities=names,
        mute=fields.get("mute", ()),
        limit=fields.get("limit", 1000),
        origin=Origin(fields.problems.file, line, column) if line else None,
    )


def _kind(fields: Fields, name: str) -> Kind | None:
    value = fields.get(name)
    if value is None:
        return None
    if name == FINDING.name:
        return FindingIs(kinds=value)
    found: Kind = COMPOSITES[name](value) if name in COMPOSITES else value
    return found


def _has_levels(fields: Fields, name: str) -> bool:
    """Whether the severities follow from the kind of the rule, and not from its label ``severity``."""
    node = fields.nodes.get(name)
    in_file = isinstance(node, MapNode) and any(key.text == "levels" for key, _ in node.pairs)
    return name in (FINDING.name, "slo_burn") or (name == "threshold" and in_file)


def severities(kind: Kind | None) -> tuple[str, ...] | None:
    """Return the severities that *kind* names itself; None if it names none."""
    if isinstance(kind, Threshold):
        return tuple(level.severity for level in kind.levels)
    return TWO_LEVELS if isinstance(kind, FindingIs | SloBurn) else None


def _check_samples(fields: Fields, kind: Kind) -> None:
    """Note, as a warning, a ``min_samples`` that asks for calls where none are counted."""
    counts = any(
        isinstance(part, SloBurn)
        or (isinstance(part, Threshold | RateOfChange | Anomaly) and METRICS[part.metric].windowed)
        for _, part in leaves(kind)
    )
    if fields.get("min_samples") and not counts:
        text = "has no effect: what this rule measures is not taken from calls"
        fields.wrong("min_samples", text, at_key=True, warning=True)


def _check_braces(fields: Fields) -> None:
    """Note, as warnings, braces that stay as they are where somebody may mean placeholders."""
    for key, value in fields.get("annotations", ()):
        if found := doubled(value):
            shown = f"{found} stays as it is, with single braces; a placeholder is a name such as {{value}}"
            fields.wrong_in("annotations", key, shown, warning=True)
    for key, value in fields.get("labels", ()):
        if "{" in value and "}" in value:
            shown = "has braces, which are not replaced in labels: only annotations have placeholders"
            fields.wrong_in("labels", key, shown, warning=True)


RULE = Section(
    "rule",
    "a rule",
    (
        Entry("alert", ALERT_NAME, "The name of the rule and of its alerts: unique over all files.", required=True),
        *(Entry(name, section, _MEANINGS[name]) for name, section in KIND_SECTIONS.items()),
        FINDING,
        *COMPOSITE_KEYS,
        Entry("match", MATCH, "Shell patterns for labels. Every instance that matches has an alert of its own."),
        Entry("for", DURATION, "How long it must be bad before the alert fires. Default: `0s`."),
        Entry("keep_firing_for", DURATION, "How long the alert still fires when it is good again. Default: `0s`."),
        Entry("min_samples", whole("a whole number", 0, 10**9), "A value from fewer calls is unknown. Default: 0."),
        Entry("on_no_data", choice(NO_DATA), "What an unknown value means: `resolve` (default), `keep` or `fire`."),
        Entry("no_data_for", DURATION, "After how long unknown it means that. Default: three intervals of evaluation."),
        Entry("on_error", choice(ON_ERROR), "What a failed evaluation means: `keep` (default), `resolve` or `fire`."),
        Entry("labels", LABELS, "Labels of its alerts. `severity` is one, unless the rule has levels."),
        Entry("annotations", ANNOTATIONS, "Texts with `{placeholders}`: `value`, `severity`, `alertname`, labels."),
        Entry("mute", MUTE, "Times of the week in which its alerts are not told."),
        Entry("limit", whole("a whole number from 1 to 100000", 1, 100_000), "Most alerts at once. Default: 1000."),
    ),
    _rule,
    one_of=KINDS,
    kinds="rule",
)
RULES = ListOf(RULE, "a list of rules", at_most=RULES_MAX, named=True)
