"""A webhook: one POST for each notification, in one of the formats."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pool_monitor.alerts.channels.formats import FORMATS
from pool_monitor.alerts.channels.http import HttpClient, Message
from pool_monitor.alerts.channels.signature import signed

if TYPE_CHECKING:
    from pool_monitor.alerts.delivery.notification import Notification, Outcome
    from pool_monitor.alerts.routing import Webhook


class WebhookSender:
    """Posts each notification to the URL of *webhook*."""

    kind = "webhook"

    def __init__(self, webhook: Webhook) -> None:
        self._format = FORMATS[webhook.format]
        self._client = HttpClient(webhook.url, webhook.headers, webhook.key)

    @property
    def where(self) -> str:
        """Where messages go, as people may see it."""
        return self._client.where

    async def send(self, notification: Notification) -> Outcome:
        """POST *notification* once."""

        def write(key: str) -> Message:
            body = self._format.body(notification, key)
            return Message(body, signed(body, notification.id, key, time.time()) if self._format.signed else {})

        return await self._client.post(write, self._format.judge)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._client.aclose()
