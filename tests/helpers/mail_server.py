"""A real SMTP server, whose answers a test writes."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

import pytest

aiosmtpd_smtp = pytest.importorskip("aiosmtpd.smtp")
USER, PASSWORD = "monitor", "hunter2-canary"


class MailServer:
    """Keeps what it accepts. A text is the answer to each RCPT of an address in *recipients*, and to DATA."""

    def __init__(self, *, recipients: Mapping[str, Sequence[str]], data: Sequence[str]) -> None:
        self.messages: list[EmailMessage] = []
        self.envelopes: list[Any] = []
        self.logins: list[tuple[str, str]] = []
        self.over_tls: list[bool] = []
        self.introduced: list[str] = []
        """How each client has named itself."""
        self.port = 0
        self.hung = asyncio.Event()
        self._recipients = {address: [*answers] for address, answers in recipients.items()}
        self._data = [*data]

    async def handle_RCPT(self, _server: Any, _session: Any, envelope: Any, address: str, _options: Any) -> str:
        answers = self._recipients.get(address, ["250 OK"])
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if answer.startswith("250"):
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        answer = self._data.pop(0) if len(self._data) > 1 else self._data[0]
        if answer == "hang":
            self.hung.set()
            await asyncio.Event().wait()
        if answer == "disconnect":
            server.transport.abort()
        if answer.startswith("250"):
            message = message_from_bytes(envelope.content, policy=policy.default)
            assert isinstance(message, EmailMessage)
            self.messages.append(message)
            self.envelopes.append(envelope)
            self.introduced.append(session.host_name)
            self.over_tls.append(session.ssl is not None or server.transport.get_extra_info("sslcontext") is not None)
        return answer

    def authenticate(self, _server: Any, _session: Any, _envelope: Any, _mechanism: str, data: Any) -> Any:
        login = (data.login.decode(), data.password.decode())
        self.logins.append(login)
        good = login == (USER, PASSWORD)
        return aiosmtpd_smtp.AuthResult(success=good, handled=good)


@asynccontextmanager
async def mail_server(
    *,
    recipients: Mapping[str, Sequence[str]] | None = None,
    data: Sequence[str] = ("250 OK",),
    tls: ssl.SSLContext | None = None,
    implicit_tls: bool = False,
    **options: Any,
) -> AsyncIterator[MailServer]:
    """A `MailServer` on loopback. With *tls* it offers STARTTLS, or begins with it if *implicit_tls*. *options* are
    those of aiosmtpd.
    """
    made = MailServer(recipients=recipients or {}, data=data)
    starttls = None if implicit_tls else tls

    def protocol() -> Any:
        return aiosmtpd_smtp.SMTP(
            made, tls_context=starttls, authenticator=made.authenticate, loop=asyncio.get_running_loop(), **options
        )

    connected: list[Any] = []

    def remembered() -> Any:
        connected.append(protocol())
        return connected[-1]

    server = await asyncio.get_running_loop().create_server(
        remembered, "127.0.0.1", 0, ssl=tls if implicit_tls else None
    )
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        handlers = [one._handler_coroutine for one in connected if one._handler_coroutine is not None]
        for one in connected:
            if one.transport is not None:
                one.transport.abort()
        for task in handlers:
            task.cancel()
        if handlers:
            await asyncio.wait(handlers)
