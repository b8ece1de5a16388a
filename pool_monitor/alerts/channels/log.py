"""The log of the service as a channel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pool_monitor.alerts.delivery.notification import SENT
from pool_monitor.log import logger

if TYPE_CHECKING:
    from pool_monitor.alerts.delivery.notification import Notification, Outcome


class LogSender:
    """Logs each notification."""

    kind, where = "log", "the log"

    async def send(self, notification: Notification) -> Outcome:
        """Log *notification*."""
        log = logger("alerts").warning if notification.status == "firing" else logger("alerts").info
        log(
            f"alerts {notification.status}",
            group=notification.group_key,
            reason=notification.reason,
            firing=notification.firing,
            resolved=notification.resolved,
        )
        return SENT

    async def aclose(self) -> None:
        """Do nothing."""
