"""What is worth a warning about receivers when a service loads them: what would keep messages from being sent, or show
a secret to others. Nothing of it keeps the service from starting.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from urllib.parse import urlsplit

from pool_monitor.alerts.channels.address_guard import is_loopback, url_problem
from pool_monitor.alerts.channels.secrets import SecretMissing, value_of
from pool_monitor.alerts.routing import (
    AlertmanagerApi,
    AppriseChannel,
    Channel,
    Email,
    Receiver,
    Secret,
    Webhook,
)


def warnings_of(receivers: Iterable[Receiver]) -> Iterator[str]:
    """Yield the warnings about *receivers*, without any secret. Reads the environment, and files with secrets."""
    for receiver in receivers:
        module, extra = _EXTRAS.get(type(receiver.channel), ("", ""))
        if module and find_spec(module) is None:
            yield f"receiver {receiver.name}: needs the extra: pip install 'pool-monitor[{extra}]'"
        values, missing = [], False
        for secret in _secrets(receiver.channel):
            try:
                values.append(value_of(secret))
            except SecretMissing as error:
                yield f"receiver {receiver.name}: {error}; until then nothing can be sent to it"
                missing = True
        if isinstance(receiver.channel, Webhook | AlertmanagerApi) and not missing:
            yield from (f"receiver {receiver.name}: {text}" for text in _about_url(receiver.channel, values[0]))


_EXTRAS: Mapping[type, tuple[str, str]] = {Email: ("aiosmtplib", "mail"), AppriseChannel: ("apprise", "notify")}
"""Which module a channel needs, and the extra that has it."""


def _secrets(channel: Channel) -> Iterator[Secret]:
    """All secrets of *channel*, its URL first."""
    if isinstance(channel, Webhook | AlertmanagerApi | AppriseChannel):
        yield channel.url
    if isinstance(channel, Webhook | AlertmanagerApi):
        yield from (value for _, value in channel.headers)
    if isinstance(channel, Webhook) and channel.key is not None:
        yield channel.key
    if isinstance(channel, Email):
        yield from channel.login


def _about_url(channel: Webhook | AlertmanagerApi, url: str) -> Iterator[str]:
    if problem := url_problem(url):
        yield f"its URL {problem}"
        return
    parts = urlsplit(url)
    # A key that signs is not sent. A routing key is.
    sent = bool(channel.headers) or parts.username is not None or channel.url.value is None
    sent = sent or (isinstance(channel, Webhook) and channel.format == "pagerduty")
    if parts.scheme == "http" and sent and not is_loopback(parts.hostname or ""):
        yield "its secrets go to another machine over plain http, where others can read them; use https"
