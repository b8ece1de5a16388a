"""The format ``native``: an envelope of Standard Webhooks around everything that is known of a notification."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import asdict

from pool_monitor.alerts.channels.formats.format import Format
from pool_monitor.alerts.channels.formats.writing import cleaned_lines, encoded, rfc3339
from pool_monitor.alerts.channels.text import trend

if TYPE_CHECKING:
    from pool_monitor.alerts.delivery.notification import Notification, ToldAlert


def _body(notification: Notification, _key: str) -> bytes:
    kind = "digest" if notification.reason == "digest" else notification.status
    return encoded({"type": f"alert.{kind}", "timestamp": rfc3339(notification.at), "data": _data(notification)})


def _data(notification: Notification) -> dict[str, Any]:
    """Everything of a notification. What is unknown is null. Labels are as they are: they name what it is about."""
    return asdict(notification) | {
        "at": rfc3339(notification.at),
        "about": cleaned_lines(notification.about),
        "truncated": notification.truncated,
        "alerts": [_alert(alert) for alert in notification.alerts],
    }


def _alert(alert: ToldAlert) -> dict[str, Any]:
    return asdict(alert) | {
        "starts_at": rfc3339(alert.starts_at),
        "ends_at": None if alert.ends_at is None else rfc3339(alert.ends_at),
        "summary": cleaned_lines(alert.summary),
        "sparkline": trend(alert),
        "annotations": {name: cleaned_lines(text) for name, text in alert.annotations.items()},
    }


NATIVE = Format(_body)
