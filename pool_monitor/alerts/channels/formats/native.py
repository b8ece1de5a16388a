"""The format ``native``: an envelope of Standard Webhooks around everything that is known of a notification."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from pool_monitor.alerts.channels.formats.format import Format

if TYPE_CHECKING:
    from pool_monitor.alerts.delivery.notification import Notification


def _body(notification: Notification) -> bytes:
    return msgspec.json.encode(
        {
            "type": f"alert.{notification.status}",
            "timestamp": notification.at,
            "data": msgspec.to_builtins(notification),
        }
    )


NATIVE = Format(_body)
