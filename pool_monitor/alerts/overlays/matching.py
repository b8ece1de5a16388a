"""Whether labels match. A label that is absent is the empty text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from pool_monitor.alerts.pattern import matching

if TYPE_CHECKING:
    from pool_monitor.alerts.alert import Alert
    from pool_monitor.alerts.rule import Matcher


class LabelMatch:
    """Says whether labels match all of *matchers* (`pattern.matching`)."""

    __slots__ = ("exact", "patterns")

    def __init__(self, matchers: Iterable[Matcher]) -> None:
        matchers = list(matchers)
        self.exact = [(one.label, one.value) for one in matchers if not one.pattern]
        self.patterns = [(one.label, matching(one)) for one in matchers if one.pattern]

    def __call__(self, labels: Mapping[str, str]) -> bool:
        return all(labels.get(label, "") == value for label, value in self.exact) and all(
            match(labels.get(label, "")) for label, match in self.patterns
        )


def all_labels(alert: Alert) -> dict[str, str]:
    """Return the labels of *alert* with ``alertname`` and ``severity``: what silences and inhibitions match."""
    return {**alert.labels, "alertname": alert.alert, "severity": alert.severity}
