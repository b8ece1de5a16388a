"""What a channel implements, and which one a receiver has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from pool_monitor.alerts.channels.log import LogSender
from pool_monitor.alerts.routing import LogChannel

if TYPE_CHECKING:
    from pool_monitor.alerts.delivery.notification import Notification, Outcome
    from pool_monitor.alerts.routing import Receiver

SEND_S = 15.0
"""How long one attempt may take, from the first byte to the last."""


class Sender(Protocol):
    """Sends the messages of one receiver. Made without I/O, in the event loop; used for one message at a time."""

    kind: str
    """The channel: webhook, email, alertmanager, apprise, log or file."""
    where: str
    """Where messages go, as people may see it: a URL's scheme, host and a short hash, never the rest."""

    async def send(self, notification: Notification) -> Outcome:
        """Try once to send *notification*. Returns within `SEND_S`, and never raises for the receiver or the network.

        A cancelled attempt may have arrived.
        """

    async def aclose(self) -> None:
        """Close what is open."""


def sender_of(receiver: Receiver) -> Sender:
    """Return a sender for *receiver*. It does not raise for what is missing at run time, such as an environment
    variable: then each attempt is refused, and says so.
    """
    channel = receiver.channel
    if isinstance(channel, LogChannel):
        return LogSender()
    raise NotImplementedError(type(channel).__name__)
