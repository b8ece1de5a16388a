"""The log of the service as a channel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pool_monitor.alerts.channels.text import cut, measured, times, trend
from pool_monitor.alerts.delivery.notification import SENT
from pool_monitor.log import logger

if TYPE_CHECKING:
    from pool_monitor.alerts.delivery.notification import Notification, Outcome, ToldAlert

LISTED = 20
"""Most alerts of one notification that have lines of their own."""


class LogSender:
    """Writes a line for each alert of a notification: a warning if it fires, else information."""

    kind, where = "log", "the log"

    async def send(self, notification: Notification) -> Outcome:
        """Log *notification*."""
        listed = notification.alerts[:LISTED]
        for alert in listed:
            _log(alert, notification)
        firing = notification.firing - sum(alert.status == "firing" for alert in listed)
        resolved = notification.resolved + notification.firing - len(listed) - firing
        if firing or resolved or not listed:
            write = logger("alerts").warning if firing else logger("alerts").info
            about = {"group": cut(notification.group_key), "why": cut(notification.reason)}
            write("notification: more alerts", firing=firing, resolved=resolved, **about)
        return SENT

    async def aclose(self) -> None:
        """Do nothing."""


def _log(alert: ToldAlert, notification: Notification) -> None:
    fields = {
        "alert": alert.alertname,
        "severity": alert.severity,
        "summary": cut(alert.summary),
        "measured": measured(alert),
        "trend": trend(alert),
        "when": times(alert),
        "labels": {name: cut(value) for name, value in alert.labels.items() if name != "severity"},
        "reason": alert.reason,
        "runbook": cut(alert.runbook, 2000),
        "about": cut(notification.about),
        "why": cut(notification.reason),
        "notification": notification.id,
    }
    write = logger("alerts").warning if alert.status == "firing" else logger("alerts").info
    write(f"notification: alert {alert.status}", **{name: value for name, value in fields.items() if value})
