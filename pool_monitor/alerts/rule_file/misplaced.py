"""Keys that people write where they do not belong, and where they belong: the remedies of unknown keys."""

from __future__ import annotations

from collections.abc import Mapping

_IN_A_KIND = "it belongs into a threshold, such as threshold: {metric: pool.waiting, above: 10}"
_IN_ANNOTATIONS = "it belongs into annotations, such as annotations: {summary: ...}"
_IN_THE_RULE = "it belongs to the rule, one level further out"
_IN_LABELS = "it is a label, such as labels: {severity: critical}, or the name of a level"
_PROMETHEUS = (
    "files for Prometheus are not read; a rule here has no expression, but threshold: {metric: ..., above: ...}"
)

_RULE: Mapping[str, str] = {
    **dict.fromkeys(("metric", "window", "above", "below", "levels", "clear_below", "clear_above"), _IN_A_KIND),
    **dict.fromkeys(("summary", "description", "runbook", "runbook_url", "message"), _IN_ANNOTATIONS),
    "severity": _IN_LABELS,
    "expr": _PROMETHEUS,
    "interval": "all rules are evaluated every interval that [alerts] of the service's configuration says",
    "name": "the name of a rule is its alert",
}
_KIND: Mapping[str, str] = {
    **dict.fromkeys(("match", "for", "keep_firing_for", "min_samples", "on_no_data", "no_data_for"), _IN_THE_RULE),
    **dict.fromkeys(("on_error", "labels", "annotations", "mute", "limit"), _IN_THE_RULE),
    "severity": f"in the rule, {_IN_LABELS}",
}
_BY_SECTION: Mapping[str, Mapping[str, str]] = {
    "file": {"groups": _PROMETHEUS},
    "rule": _RULE,
    "receiver": {
        name: f"it is a format, such as webhook: {{url: ..., format: {name}}}" for name in ("slack", "pagerduty")
    },
    **dict.fromkeys(
        ("threshold", "rate_of_change", "anomaly", "absence", "slo_burn", "forecast", "condition", "level"), _KIND
    ),
}


def belongs(section: str, key: str) -> str | None:
    """Return where *key*, which *section* does not have, belongs; None: nobody knows."""
    return _BY_SECTION.get(section, {}).get(key)
