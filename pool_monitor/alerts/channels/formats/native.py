"""The format ``native``: an envelope of Standard Webhooks around everything that is known of a notification."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from pool_monitor.alerts.channels.formats.format import Format
from pool_monitor.alerts.channels.formats.times import rfc3339

if TYPE_CHECKING:
    from pool_monitor.alerts.delivery.notification import Notification


def _body(notification: Notification, _key: str) -> bytes:
    return msgspec.json.encode(
        {
            "type": f"alert.{'digest' if notification.reason == 'digest' else notification.status}",
            "timestamp": rfc3339(notification.at),
            "data": data_of(notification),
        }
    )


def data_of(notification: Notification) -> dict[str, object]:
    """Return everything of *notification* for JSON. Times are RFC 3339; what is unknown is null."""
    data = msgspec.structs.asdict(notification)
    data["at"] = rfc3339(notification.at)
    data["truncated"] = notification.truncated
    data["alerts"] = [
        msgspec.structs.asdict(alert)
        | {
            "starts_at": rfc3339(alert.starts_at),
            "ends_at": None if alert.ends_at is None else rfc3339(alert.ends_at),
        }
        for alert in notification.alerts
    ]
    return data


NATIVE = Format(_body)
