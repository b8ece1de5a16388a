"""Which sender a receiver has. The modules of a channel are imported only when somebody is told by it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio

from pool_monitor.alerts.routing import AlertmanagerApi, AppriseChannel, Email, FileChannel, LogChannel, Webhook

if TYPE_CHECKING:
    from pool_monitor.alerts.channels.sender import Sender
    from pool_monitor.alerts.routing import Receiver


def sender_of(receiver: Receiver) -> Sender:
    """Return a sender for *receiver*. It does not raise for what is missing at run time, such as an environment
    variable: then each attempt is refused, and says so.
    """
    return _SENDERS[type(receiver.channel)](receiver.channel)


def import_senders(receivers: Iterable[Receiver]) -> None:
    """Import what the senders of *receivers* need. It blocks, so do it in a thread, before an event loop needs one."""
    for receiver in receivers:
        sender_of(receiver)
    anyio.run(anyio.sleep, 0.0)  # it imports what it needs when it is used first


def _alertmanager(channel: AlertmanagerApi) -> Sender:
    from pool_monitor.alerts.channels.alertmanager_api import AlertmanagerSender

    return AlertmanagerSender(channel)


def _apprise(channel: AppriseChannel) -> Sender:
    from pool_monitor.alerts.channels.apprise import AppriseSender

    return AppriseSender(channel)


def _email(channel: Email) -> Sender:
    from pool_monitor.alerts.channels.email import EmailSender

    with suppress(ImportError):  # each attempt says that it is missing
        import aiosmtplib  # noqa: F401 - the sender imports it when it is used
    return EmailSender(channel)


def _file(channel: FileChannel) -> Sender:
    from pool_monitor.alerts.channels.file import FileSender

    return FileSender(channel)


def _log(_channel: LogChannel) -> Sender:
    from pool_monitor.alerts.channels.log import LogSender

    return LogSender()


def _webhook(channel: Webhook) -> Sender:
    from pool_monitor.alerts.channels.webhook import WebhookSender

    return WebhookSender(channel)


_SENDERS: Mapping[type, Callable[[Any], Sender]] = {
    AlertmanagerApi: _alertmanager,
    AppriseChannel: _apprise,
    Email: _email,
    FileChannel: _file,
    LogChannel: _log,
    Webhook: _webhook,
}
