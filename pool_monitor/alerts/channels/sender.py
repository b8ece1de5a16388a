"""What a channel implements."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pool_monitor.alerts.delivery.notification import Notification, Outcome

SEND_S = 15.0
"""How long one attempt may take, from the first byte to the last."""


class Sender(Protocol):
    """Sends the messages of one receiver. Made without I/O, in the event loop; used for one message at a time."""

    kind: str
    """The channel: webhook, email, alertmanager, apprise, log or file."""

    @property
    def where(self) -> str:
        """Where messages go, as people may see it: a URL's scheme, host and a short hash, never the rest."""
        ...

    async def send(self, notification: Notification) -> Outcome:
        """Try once to send *notification*. Returns within `SEND_S`, and never raises for the receiver or the network.

        A cancelled attempt may have arrived.
        """

    async def aclose(self) -> None:
        """Close what is open."""
