"""The types of checked routes and receivers: who is told of an alert, and how. Times are seconds.

Secrets are named by environment variables where possible. A URL may hold one itself, so the ``repr`` of these types
shows none.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from pool_monitor.alerts.rule import Matcher, MuteTime

WebhookFormat = Literal["native", "alertmanager", "slack", "pagerduty"]
EmailTls = Literal["starttls", "implicit", "none"]


class Secret(Struct, frozen=True):
    """A value that no text shows, or the environment variable or the file that has it."""

    value: str | None = None
    variable: str | None = None
    file: str | None = None

    def __repr__(self) -> str:
        if self.variable is not None:
            return f"Secret(variable={self.variable!r})"
        return "Secret(...)" if self.file is None else f"Secret(file={self.file!r})"

    __str__ = __repr__


class Webhook(Struct, frozen=True, kw_only=True, tag="webhook"):
    """A POST for each message."""

    url: Secret
    format: WebhookFormat = "native"
    secret_env: str | None = None
    """The environment variable with the key that signs the body; for pagerduty, the routing key."""
    secret_file: str | None = None
    """The file with it."""
    headers: tuple[tuple[str, Secret], ...] = ()

    @property
    def key(self) -> Secret | None:
        """What signs the body, or what else its format needs; None: nothing does."""
        if self.secret_env is None and self.secret_file is None:
            return None
        return Secret(variable=self.secret_env, file=self.secret_file)


class Email(Struct, frozen=True, kw_only=True, tag="email"):
    to: tuple[str, ...]
    host: str
    port: int
    sender: str | None = None
    user_env: str | None = None
    password_env: str | None = None
    password_file: str | None = None
    tls: EmailTls | None = None
    """None: ``implicit`` on port 465; on others STARTTLS, where the server offers it or a password is sent."""

    @property
    def login(self) -> tuple[Secret, ...]:
        """The user and the password; empty: there is no log-in."""
        if self.user_env is None:
            return ()
        return Secret(variable=self.user_env), Secret(variable=self.password_env, file=self.password_file)


class AlertmanagerApi(Struct, frozen=True, kw_only=True, tag="alertmanager"):
    """A running Alertmanager, which is told of each alert."""

    url: Secret
    headers: tuple[tuple[str, Secret], ...] = ()


class LogChannel(Struct, frozen=True, tag="log"):
    """The log of the service."""


class FileChannel(Struct, frozen=True, kw_only=True, tag="file"):
    """A file that each message is appended to, one JSON object a line."""

    path: str


class AppriseChannel(Struct, frozen=True, kw_only=True, tag="apprise"):
    """One of the services that the library apprise knows, by its URL there."""

    url: Secret


Channel = Webhook | Email | AlertmanagerApi | AppriseChannel | LogChannel | FileChannel


class Receiver(Struct, frozen=True, kw_only=True):
    """Somebody who is told of alerts, by one channel."""

    name: str
    channel: Channel
    fallback: tuple[str, ...] = ()
    """The receivers that are told when this one cannot be."""
    page: bool = False
    """Whether its messages are never put together to a digest."""


class Route(Struct, frozen=True, kw_only=True):
    """Which receiver is told of which alerts. None: as of the route above."""

    receiver: str | None = None
    match: tuple[Matcher, ...] = ()
    group_by: tuple[str, ...] | None = None
    group_wait: float | None = None
    group_interval: float | None = None
    repeat_interval: float | None = None
    escalate_after: float | None = None
    escalate_to: str | None = None
    mute: tuple[MuteTime, ...] = ()
    goes_on: bool = False
    """``continue``: the routes after it are tried too."""
    routes: tuple[Route, ...] = ()


LOG = Receiver(name="log", channel=LogChannel())
"""A receiver that is always there."""
