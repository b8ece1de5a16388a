"""Alerts as a Snapshot shows them: the state beneath, with what lies over it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import attrgetter
from typing import NamedTuple

import msgspec

from pool_monitor.alerts.alert import Alert
from pool_monitor.alerts.defaults import findings_of
from pool_monitor.alerts.lifecycle import FIRING_PHASES, Phase
from pool_monitor.alerts.overlays.acknowledgements import Acknowledgements
from pool_monitor.alerts.overlays.flapping import Flapping
from pool_monitor.alerts.overlays.inhibition import Inhibitors
from pool_monitor.alerts.overlays.mute import LocalTime, is_muted
from pool_monitor.alerts.overlays.silences import LastingSilences
from pool_monitor.alerts.rule import CheckedRule
from pool_monitor.snapshot import Acknowledgement, AlertView

VIEWS_MAX = 1000
"""Most alerts that are shown. `AlertingView.states` counts all of them."""
_AT_ONCE = 50  # alerts between two steps: below a millisecond
_ORDER = {Phase.FIRING: 0, Phase.RECOVERING: 0, Phase.PENDING: 1, Phase.RESOLVED: 2, Phase.INACTIVE: 3}
_WORST_FIRST = {"critical": 0, "page": 0, "error": 1, "warning": 2, "info": 4, "none": 5}
_OTHER_SEVERITY = 3


def rank_of(severity: str) -> int:
    """Return a number that is lower for a worse severity."""
    return _WORST_FIRST.get(severity, _OTHER_SEVERITY)


class Texts(NamedTuple):
    """What a rule says about one of its alerts."""

    summary: str = ""
    runbook: str = ""
    annotations: Mapping[str, str] = {}
    value_text: str = ""
    unit: str = ""


def no_texts(_rule: CheckedRule | None, _alert: Alert) -> Texts:
    """Return no texts."""
    return Texts()


class Covers(NamedTuple):
    """What lies over the states of alerts at one moment."""

    silences: LastingSilences
    acknowledgements: Acknowledgements
    inhibitors: Inhibitors
    """To which nothing has been added."""
    flapping: Flapping
    at: float
    """Wall-clock time."""
    local: LocalTime

    def add(self, alert: Alert) -> None:
        """Let *alert* inhibit others, if it fires."""
        if alert.state in FIRING_PHASES:
            self.inhibitors.add(alert.fingerprint, _all_labels(alert))


def laying(
    alerts: Iterable[Alert],
    rules: Mapping[str, CheckedRule],
    covers: Covers,
    texts: Callable[[CheckedRule | None, Alert], Texts],
) -> Iterator[AlertView | None]:
    """Yield a view of each alert, at most `VIEWS_MAX`. The caller may let others work at each step; None is one too.

    Firing alerts come first, then pending, then resolved ones; of those the worst, and of those the oldest. All of
    *alerts* must be there: one that is not shown inhibits too.
    """
    groups: defaultdict[tuple[int, int], list[Alert]] = defaultdict(list)
    for count, alert in enumerate(alerts, 1):
        groups[_ORDER[alert.state], rank_of(alert.severity)].append(alert)
        covers.add(alert)
        if not count % _AT_ONCE:
            yield None
    shown = 0
    for _order, group in sorted(groups.items()):
        for alert in sorted(group, key=attrgetter("since")):
            if shown == VIEWS_MAX:
                return
            rule = rules.get(alert.alert)
            yield view_of(alert, rule, covers, texts(rule, alert))
            shown += 1
        yield None


def covered(view: AlertView, silences: tuple[str, ...], acknowledgement: Acknowledgement | None) -> AlertView:
    """Return *view* with these silences and this acknowledgement over it."""
    if (silences, acknowledgement) == (view.silences, view.acknowledgement):
        return view
    return msgspec.structs.replace(
        view,
        silenced=bool(silences),
        silences=silences,
        acknowledged=acknowledgement is not None,
        acknowledgement=acknowledgement,
    )


def _all_labels(alert: Alert) -> dict[str, str]:
    """Return the labels of *alert* with ``alertname`` and ``severity``: what silences and inhibitions match."""
    return {**alert.labels, "alertname": alert.alert, "severity": alert.severity}


def view_of(alert: Alert, rule: CheckedRule | None, covers: Covers, texts: Texts) -> AlertView:
    """Return one alert with what lies over it."""
    labels = _all_labels(alert)
    changes = covers.flapping.changes(alert.fingerprint)
    silences = covers.silences.of(labels)
    inhibited_by = covers.inhibitors.of(labels) if alert.state is not Phase.RESOLVED else ()
    acknowledgement = covers.acknowledgements.of(alert.fingerprint, covers.at)
    del labels["alertname"]
    return AlertView(
        alertname=alert.alert,
        labels=labels,
        state=alert.state.value,
        severity=alert.severity,
        value=alert.value,
        since=alert.since,
        summary=texts.summary,
        runbook=texts.runbook,
        fingerprint=alert.fingerprint,
        silenced=bool(silences),
        inhibited=bool(inhibited_by),
        acknowledged=acknowledgement is not None,
        flapping=changes > 0,
        changes=changes,
        muted=rule is not None and is_muted(rule.mute, covers.local),
        unknown=alert.unknown,
        silences=silences,
        inhibited_by=inhibited_by,
        acknowledgement=acknowledgement,
        unit=texts.unit,
        value_text=texts.value_text,
        reason=alert.reason,
        active_since=alert.active_since,
        annotations=dict(texts.annotations),
        limit=alert.limit,
        findings=() if rule is None else findings_of(rule),
    )
