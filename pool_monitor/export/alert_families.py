"""The exported metrics of alerts: what is active, how the evaluation of rules goes, and whether messages arrive."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import get_args

from pool_monitor.alerts.lifecycle import ACTIVE_PHASES
from pool_monitor.export.family import Family, Labels, family_of, labels, read_family
from pool_monitor.snapshot import AlertingView, AlertView, ReceiverState, Snapshot

_QUIET = ("silenced", "acknowledged", "inhibited", "muted")

_ALERTING = (
    ("rules", "alert_rules", "Rules that are evaluated."),
    ("interval", "alert_interval_seconds", "Time between two evaluations, as configured."),
    ("evaluations", "alert_evaluations_total", "Evaluations of all rules since the monitor was made."),
    ("missed", "alert_evaluations_missed_total", "Evaluations that were left out, since the monitor was made."),
    ("evaluation_seconds", "alert_evaluation_seconds", "How long the latest evaluation took."),
    ("longest_hold", "alert_evaluation_hold_seconds", "Longest time that it held the event loop at once."),
    ("evaluated_age", "alert_evaluation_age_seconds", "Time since the latest evaluation."),
    ("transitions", "alert_transitions_total", "Changes of alerts since the monitor was made."),
    ("refused", "alerts_refused_total", "Alerts that were not made because their rule has too many instances."),
)
_ALERTING_READ: dict[str, tuple[str, Callable[[AlertingView], int | None]]] = {
    "alert_rules_failing": ("Rules whose evaluation fails.", lambda alerting: len(alerting.failing)),
    "alert_silences": ("Silences that are set or will begin.", lambda alerting: len(alerting.silences)),
    "alert_rules_reload_success": (
        "1 if the files with rules were read when they changed last, else 0.",
        lambda alerting: int(alerting.reload_error is None),
    ),
    "alert_state_stored": (
        "1 if the file of the states of alerts can be written, else 0; absent if there is none.",
        lambda alerting: None if alerting.state_path is None else int(alerting.state_degraded is None),
    ),
}
_RESULTS = ("sent", "failed", "lost")
_RECEIVER = (
    ("owed", "notifications_owed", "Messages that have not arrived yet, the parked ones too."),
    ("parked", "notifications_parked", "Messages that the receiver refuses; they are tried rarely."),
    ("held_back", "notifications_held_back", "Messages that the rate limit holds back now."),
    ("oldest_debt", "notifications_oldest_debt_seconds", "Age of the oldest message that is owed; absent: none is."),
    ("last_success_age", "notifications_last_success_age_seconds", "Time since a message arrived; absent: none has."),
    ("failures", "notifications_failures", "Attempts that have failed in a row."),
)
_STATES: tuple[str, ...] = get_args(ReceiverState)


def alert_families(snapshot: Snapshot) -> Iterator[Family]:
    """Every metric of alerts, also metrics that have no series now. Without rules, none has.

    An alert is counted by the name of its rule, not by its labels: there are at most as many series as rules, levels
    and states.
    """
    active = [alert for alert in snapshot.alerts if alert.state in ACTIVE_PHASES]
    yield family_of(
        "alerts",
        "Alerts by rule, severity and state: pending, firing or recovering.",
        ((of, [number]) for of, number in Counter(map(_labels_of, active)).items()),
    )
    alerting = snapshot.monitor.alerts
    firing = [alert for alert in active if alert.state != "pending"]
    yield family_of(
        "alerts_quiet",
        "Alerts that fire and of which nobody is told, by what keeps them quiet. One alert may count several times.",
        [((), [sum(getattr(alert, word) for alert in firing) for word in _QUIET])] if alerting is not None else [],
        "by",
        _QUIET,
    )
    owners: list[tuple[Labels, object]] = [] if alerting is None else [((), alerting)]
    for attribute, name, text in _ALERTING:
        yield read_family(attribute, name, text, owners)
    for name, (text, read) in _ALERTING_READ.items():
        value = None if alerting is None else read(alerting)
        yield family_of(name, text, [] if value is None else [((), [value])])
    yield from _of_delivery(alerting)


def _of_delivery(alerting: AlertingView | None) -> Iterator[Family]:
    """The metrics of receivers and of the heartbeat. There are as many series as receivers."""
    receivers = [] if alerting is None else [(labels(receiver=one.name), one) for one in alerting.receivers]
    yield family_of(
        "notifications_total",
        "Attempts to send a message about alerts, by what came of it; lost: messages that were given up. Since the "
        "monitor was made.",
        ((of, [one.sent, one.failed, one.lost]) for of, one in receivers),
        "result",
        _RESULTS,
    )
    for attribute, name, text in _RECEIVER:
        yield read_family(attribute, name, text, receivers)
    yield family_of(
        "receiver_state",
        "1 for the state of the receiver, 0 for the others.",
        ((of, [int(one.state == state) for state in _STATES]) for of, one in receivers),
        "state",
        _STATES,
    )
    beat = None if alerting is None else alerting.heartbeat
    beats: list[tuple[Labels, object]] = [] if beat is None else [((), beat)]
    text = "Time since a heartbeat arrived outside; absent: none has."
    yield read_family("last_success_age", "heartbeat_age_seconds", text, beats)
    yield family_of(
        "heartbeat_failing",
        "1 while the heartbeat says that the monitor fails, else 0.",
        [] if beat is None else [((), [int(bool(beat.failing))])],
    )


def _labels_of(alert: AlertView) -> Labels:
    return labels(alertname=alert.alertname, severity=alert.severity, state=alert.state)
