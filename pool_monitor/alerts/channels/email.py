"""E-mail: one message in plain text for each notification, over SMTP.

Certificates are always verified. On port 465 TLS begins with the connection; on any other port it begins with STARTTLS,
where the server offers it. A password is sent over TLS only, except to this machine.
"""

from __future__ import annotations

import hashlib
import re
import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress
from email import policy
from email.headerregistry import Address, HeaderRegistry, MessageIDHeader
from email.message import EmailMessage
from email.utils import format_datetime
from typing import TYPE_CHECKING, NamedTuple

import anyio

from pool_monitor.alerts.channels.address_guard import is_loopback
from pool_monitor.alerts.channels.formats.writing import moment_of
from pool_monitor.alerts.channels.reaching import (
    Forbidden,
    LookupTimeout,
    Unreachable,
    connected_socket,
    system_error,
    words,
)
from pool_monitor.alerts.channels.secrets import SecretMissing, digest, value_of
from pool_monitor.alerts.channels.sender import SEND_S
from pool_monitor.alerts.channels.text import cut, lines, subject
from pool_monitor.alerts.delivery.notification import SENT, Outcome
from pool_monitor.answers import Redactor, cleaned
from pool_monitor.log import logger
from pool_monitor.redaction import redact
from pool_monitor.side_thread import SideThread

if TYPE_CHECKING:
    from aiosmtplib import SMTP

    from pool_monitor.alerts.delivery.notification import Notification, Result
    from pool_monitor.alerts.routing import Email

NEEDS_EXTRA = "needs the extra: pip install 'pool-monitor[mail]'"
STEP_S = 10.0
"""How long the server may take for one answer."""
IMPLICIT_TLS_PORT = 465
PARTLY_MAX = 3
"""Attempts for recipients that the server puts off while others have the message."""
_QUIT_S = 1.0
_REASON_MAX = 256


class EmailSender:
    """Sends each notification by the SMTP server of *email*, over a connection of its own."""

    kind = "email"

    def __init__(self, email: Email) -> None:
        self._email = email
        self.where = f"{cut(email.host)}:{email.port} ({digest(','.join(email.to))})"
        self._side_thread = SideThread("alerts email")
        self._partly = _Partly()

    async def send(self, notification: Notification) -> Outcome:
        """Send *notification* to those who do not have it yet."""
        try:
            import aiosmtplib
        except ImportError:
            return Outcome("refused", NEEDS_EXTRA)
        attempt = _Attempt(self._email, self._side_thread)
        try:
            with anyio.fail_after(SEND_S):
                await attempt.connect()
                return await self._deliver(attempt, notification)
        except SecretMissing as error:
            return Outcome("refused", str(error))
        except TimeoutError as error:
            why = "the server has not answered in time" if isinstance(error, aiosmtplib.SMTPException) else ""
            return Outcome("retry", why or f"not done within {SEND_S:g} s", unsure=attempt.begun)
        except Exception as error:  # noqa: BLE001 - whatever a server says costs this attempt alone
            return self._failed(error, attempt)
        finally:
            attempt.close()

    async def aclose(self) -> None:
        """End the thread. Each attempt has closed its connection."""
        await self._side_thread.close()

    async def _deliver(self, attempt: _Attempt, notification: Notification) -> Outcome:
        message = message_of(notification, self._email)
        if attempt.size_limit and len(message) > attempt.size_limit:
            return Outcome("too_large", f"the server takes at most {attempt.size_limit} bytes")
        before = self._partly if self._partly.id == notification.id else _Partly(notification.id)
        missing = [address for address in self._email.to if address not in before.have_it]
        refused = await attempt.address(missing)
        taken = [address for address in missing if address not in refused]
        if taken:
            await attempt.data(message)
        if not refused:
            return SENT
        reason = self._refusals(refused, attempt)
        now = self._partly = _Partly(notification.id, before.have_it.union(taken), before.attempts + 1)
        later = any(code < _FOR_GOOD for code, _ in refused.values())
        if later and (not now.have_it or now.attempts < PARTLY_MAX):
            return Outcome("retry", reason)
        if not now.have_it:
            return Outcome("refused", reason)
        logger("alerts").warning("an e-mail has not reached all", receiver=self.where, reason=reason)
        return SENT._replace(reason=reason)

    def _refusals(self, refused: dict[str, tuple[int, str]], attempt: _Attempt) -> str:
        address, (code, text) = next(iter(refused.items()))
        number = f"{len(refused)} of {len(self._email.to)} recipients were refused"
        return f"{number}, such as {_masked(address)}: {code} {attempt.clean(text)}"[:_REASON_MAX]

    def _failed(self, error: Exception, attempt: _Attempt) -> Outcome:
        import aiosmtplib

        cause = system_error(error)
        if isinstance(cause, ssl.SSLCertVerificationError):
            return Outcome("refused", f"its certificate is not valid: {cause.verify_message}")
        if isinstance(error, _Refused):
            return Outcome("refused", str(error))
        if isinstance(error, Forbidden):
            return Outcome("refused", f"its address {error}")
        if isinstance(error, LookupTimeout):
            return Outcome("retry", str(error))
        if isinstance(error, Unreachable):
            return Outcome("retry", f"cannot be connected to: {attempt.clean(str(error))}"[:_REASON_MAX])
        if isinstance(error, ValueError):
            return Outcome("refused", "an address of the receiver is not valid")
        if isinstance(error, aiosmtplib.SMTPResponseException):
            result: Result = "retry" if error.code < _FOR_GOOD else "refused"
            result = "too_large" if error.code == _TOO_LARGE else result
            about = "the log-in failed: " if isinstance(error, aiosmtplib.SMTPAuthenticationError) else ""
            return Outcome(result, f"{about}answered {error.code} {attempt.clean(error.message)}"[:_REASON_MAX])
        if isinstance(error, aiosmtplib.SMTPServerDisconnected):
            return Outcome("retry", "the server ended the connection", unsure=attempt.begun)
        if not attempt.connected and isinstance(error, OSError | aiosmtplib.SMTPConnectError):
            return Outcome("retry", f"cannot be connected to: {attempt.clean(words(cause))}"[:_REASON_MAX])
        # A defect of ours or of a library, whose text may hold anything.
        return Outcome("retry", f"failed with {type(error).__name__}", unsure=attempt.begun)


_FOR_GOOD, _TOO_LARGE = 500, 552
"""Codes from which on trying again does not help; of a message that is too large."""


class _Partly(NamedTuple):
    """A notification that some of its recipients have: the next attempt leaves them out."""

    id: str = ""
    have_it: frozenset[str] = frozenset()
    attempts: int = 0


class _Refused(Exception):
    """Trying again does not help. The text is for a person."""


class _Attempt:
    """One connection, and how far it has come."""

    def __init__(self, email: Email, side_thread: SideThread) -> None:
        self._email, self._side_thread = email, side_thread
        self._client: SMTP | None = None
        self._hide = Redactor((), self._addresses)
        self.connected = False
        self.begun = False
        """Whether the message was sent: then it may have arrived."""

    async def connect(self) -> None:
        """Connect, begin TLS, log in."""
        from aiosmtplib import SMTP

        email = self._email
        login = await self._side_thread.run(lambda: [*map(value_of, email.login)])
        self._hide = Redactor((), (*login, *self._addresses))
        implicit = email.tls == "implicit" or (email.tls is None and email.port == IMPLICIT_TLS_PORT)
        context = await self._side_thread.run(_authorities) if implicit else None
        connection = await connected_socket(email.host, email.port, STEP_S, self._side_thread)
        client = self._client = SMTP(
            hostname=email.host,
            sock=connection,
            use_tls=implicit,
            start_tls=False,
            local_hostname=_own_name(connection.getsockname()[0]),
            tls_context=context,
            timeout=STEP_S,
        )
        await client.connect()
        self.connected = True
        await client.ehlo()
        safe = implicit
        if not implicit and email.tls != "none":
            safe = client.supports_extension("starttls")
            if safe:
                await client.starttls(tls_context=await self._side_thread.run(_authorities))
                await client.ehlo()
            elif email.tls == "starttls":
                raise _Refused("the server offers no STARTTLS")
        if login and not safe and not is_loopback(email.host):
            raise _Refused("without TLS a password is never sent to another machine")
        if login:
            if not client.supports_extension("auth"):
                raise _Refused("the server offers no log-in")
            user, password = login
            await client.login(user, password)

    @property
    def _addresses(self) -> Sequence[str]:
        return (*self._email.to, *([] if self._email.sender is None else [self._email.sender]))

    @property
    def size_limit(self) -> int:
        """Most bytes of a message; 0: the server does not say."""
        assert self._client is not None
        text = self._client.esmtp_extensions.get("size", "")
        return int(text) if text.isdecimal() else 0

    async def address(self, recipients: Sequence[str]) -> dict[str, tuple[int, str]]:
        """Name the sender and *recipients*. Returns the code and the text for each who is refused."""
        from aiosmtplib import SMTPRecipientRefused

        client = self._client
        assert client is not None
        sender = self._email.sender or self._email.to[0]
        utf8 = not "".join((sender, *recipients)).isascii()
        if utf8 and not client.supports_extension("smtputf8"):
            raise _Refused("an address is not in ASCII, which the server does not take")
        encoding = "utf-8" if utf8 else "ascii"
        await client.mail(sender, options=["SMTPUTF8"] if utf8 else [], encoding=encoding)
        refused = {}
        for recipient in recipients:
            try:
                await client.rcpt(recipient, encoding=encoding)
            except SMTPRecipientRefused as error:
                refused[recipient] = (error.code, error.message)
        return refused

    async def data(self, message: bytes) -> None:
        """Send the message, and take leave."""
        assert self._client is not None
        self.begun = True
        await self._client.data(message)
        with suppress(Exception), anyio.move_on_after(_QUIT_S):  # the server has the message
            await self._client.quit()

    def close(self) -> None:
        """Close the connection at once."""
        if self._client is not None:
            self._client.close()

    def clean(self, text: str) -> str:
        """Return what the server said, without secrets and addresses."""
        return redact(cleaned(self._hide(text)))[:_REASON_MAX]


def message_of(notification: Notification, email: Email) -> bytes:
    """Return the message. It depends on nothing else, so it is the same for each attempt. Raises ValueError for an
    address that none of a message can be.
    """
    sender = email.sender or email.to[0]
    utf8 = not "".join((sender, *email.to)).isascii()
    message = EmailMessage(policy=_POLICY.clone(utf8=utf8))
    domain = sender.rpartition("@")[2]
    domain = domain if _DOMAIN.fullmatch(domain) else "pool-monitor.invalid"
    group = f"{notification.receiver}\0{notification.group_key}".encode(errors="replace")
    thread = hashlib.sha256(group).hexdigest()[:24]
    message["From"] = _address(sender)
    message["To"] = [_address(one) for one in email.to]
    message["Subject"] = subject(notification)
    message["Date"] = format_datetime(moment_of(notification.at))
    message["Message-ID"] = f"<{_PLAIN.sub('', notification.id)}@{domain}>"
    message["In-Reply-To"] = message["References"] = f"<{thread}@{domain}>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content("\n".join(lines(notification)) + "\n", cte="quoted-printable")
    return message.as_bytes()


def _policy() -> policy.EmailPolicy[EmailMessage]:
    """As SMTP wants it. Python takes the headers that name other messages for text, and encodes a long name, which no
    mail program then finds (https://github.com/python/cpython/issues/79986).
    """
    headers = HeaderRegistry()
    for name in ("In-Reply-To", "References"):
        headers.map_to_type(name, MessageIDHeader)  # type: ignore[arg-type] # it becomes a part of a header class
    return policy.SMTP.clone(header_factory=headers)


_POLICY = _policy()
_DOMAIN = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,250}[A-Za-z0-9])?")
_PLAIN = re.compile(r"[^A-Za-z0-9_.-]")


class _Place(NamedTuple):
    user: str
    domain: str


def _address(text: str) -> Address:
    place = _Place(*text.rpartition("@")[::2])
    if not text.isprintable() or any(char in text for char in '<>(),;:"\\[]'):
        raise ValueError("not an address")
    return Address(username=place.user, domain=place.domain)


def _masked(address: str) -> str:
    """Return an address as others may see it: ``o***@example.org``."""
    user, _, domain = address.rpartition("@")
    return f"{cut(user[:1])}***@{cut(domain, 60)}"


def _own_name(address: str) -> str:
    """How we introduce ourselves, without asking the network for a name: by the full name of the machine, or else by
    the *address* that the connection has here (RFC 5321, 4.1.4). Many servers refuse a name without a domain.
    """
    name = socket.gethostname()
    if "." in name and not name.endswith(".localdomain") and _DOMAIN.fullmatch(name):
        return name
    return f"[IPv6:{address.partition('%')[0]}]" if ":" in address else f"[{address}]"


def _authorities() -> ssl.SSLContext:
    """The authorities that the machine trusts, or those of ``SSL_CERT_FILE``. Takes 40 ms."""
    return ssl.create_default_context()
