"""A webhook: one POST for each notification, in one of the formats."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pool_monitor.alerts.channels.formats import FORMATS
from pool_monitor.alerts.channels.http import HttpClient
from pool_monitor.alerts.channels.secrets import Redactor, SecretMissing, origin, value_of
from pool_monitor.alerts.delivery.notification import Outcome

if TYPE_CHECKING:
    from pool_monitor.alerts.delivery.notification import Notification
    from pool_monitor.alerts.routing import Webhook


class WebhookSender:
    """Posts each notification to the URL of *webhook*."""

    kind = "webhook"

    def __init__(self, webhook: Webhook) -> None:
        self._webhook = webhook
        self._client = HttpClient()
        self.where = ""
        try:
            self.where = origin(value_of(webhook.url))
        except SecretMissing as error:
            self.where = str(error)

    async def send(self, notification: Notification) -> Outcome:
        """POST *notification* once."""
        try:
            url = value_of(self._webhook.url)
            headers = {name: value_of(value) for name, value in self._webhook.headers}
        except SecretMissing as error:
            return Outcome("refused", str(error))
        self.where = origin(url)
        hide = Redactor([url], headers.values())
        body = FORMATS[self._webhook.format].body(notification)
        return await self._client.post(url, body, headers, hide=hide)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._client.aclose()
