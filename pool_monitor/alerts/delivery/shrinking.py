"""A smaller notification, for a receiver to which one is too large, and for a store that has little room."""

from __future__ import annotations

import msgspec

from pool_monitor.alerts.delivery.notification import Notification, ToldAlert


def smaller(notification: Notification) -> Notification | None:
    """Return a smaller one with the same id, which tells the same. First go the annotations and the values before the
    latest, then the second half of the alerts, again and again; what is left is their number. None: nothing can go.
    """
    alerts = notification.alerts
    plain = tuple(map(_plain, alerts))
    if plain != alerts:
        return msgspec.structs.replace(notification, alerts=plain)
    if alerts:
        return msgspec.structs.replace(notification, alerts=alerts[: len(alerts) // 2])
    return None


def _plain(alert: ToldAlert) -> ToldAlert:
    return msgspec.structs.replace(alert, annotations={}, values=(), values_s=0.0)
