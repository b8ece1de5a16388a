"""Which sender a receiver has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pool_monitor.alerts.channels.alertmanager_api import AlertmanagerSender
from pool_monitor.alerts.channels.apprise import AppriseSender
from pool_monitor.alerts.channels.email import EmailSender
from pool_monitor.alerts.channels.file import FileSender
from pool_monitor.alerts.channels.log import LogSender
from pool_monitor.alerts.channels.webhook import WebhookSender
from pool_monitor.alerts.routing import AlertmanagerApi, AppriseChannel, Email, FileChannel, LogChannel, Webhook

if TYPE_CHECKING:
    from pool_monitor.alerts.channels.sender import Sender
    from pool_monitor.alerts.routing import Receiver

_SENDERS: Mapping[type, Callable[[Any], Sender]] = {
    AlertmanagerApi: AlertmanagerSender,
    AppriseChannel: AppriseSender,
    Email: EmailSender,
    FileChannel: FileSender,
    LogChannel: lambda _: LogSender(),
    Webhook: WebhookSender,
}


def sender_of(receiver: Receiver) -> Sender:
    """Return a sender for *receiver*. It does not raise for what is missing at run time, such as an environment
    variable: then each attempt is refused, and says so.
    """
    return _SENDERS[type(receiver.channel)](receiver.channel)
