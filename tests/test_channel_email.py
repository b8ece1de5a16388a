"""E-mail, against a real SMTP server."""

from __future__ import annotations

import base64
import logging
import re
import socket
import ssl
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from email import message_from_bytes
from pathlib import Path

import pytest

from pool_monitor.alerts.channels import email as email_module
from pool_monitor.alerts.channels import reaching
from pool_monitor.alerts.channels.email import EmailSender, message_of
from pool_monitor.alerts.delivery.notification import Notification, Outcome
from pool_monitor.alerts.routing import Email
from tests.helpers.mail_server import PASSWORD, USER, MailServer, mail_server
from tests.helpers.notifications import ended, notification, told

trustme = pytest.importorskip("trustme")
pytest.importorskip("aiosmtplib")
TO = ("ops@example.org", "night@example.org")
LOGIN = {"user_env": "SMTP_USER", "password_env": "SMTP_PASSWORD"}


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trusted(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """The context of a server whose certificate this process trusts."""
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    return server_context(authority, "127.0.0.1")


@pytest.fixture(autouse=True)
def login(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMTP_USER", USER)
    monkeypatch.setenv("SMTP_PASSWORD", PASSWORD)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit of an attempt is short."""
    monkeypatch.setattr(email_module, "SEND_S", 0.3)


def server_context(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


@asynccontextmanager
async def sender(server: MailServer | int, **fields: object) -> AsyncIterator[EmailSender]:
    port = server if isinstance(server, int) else server.port
    made = EmailSender(Email(**{"to": TO, "host": "127.0.0.1", "port": port, **fields}))
    try:
        yield made
    finally:
        await made.aclose()


async def sent(server: MailServer | int, one: Notification | None = None, **fields: object) -> Outcome:
    async with sender(server, **fields) as made:
        return await made.send(one or notification())


# -- the message ------------------------------------------------------------------------------------------------------


async def test_a_message_has_what_a_reader_and_a_mail_program_need():
    async with mail_server() as server:
        assert (await sent(server)).result == "sent"
    message = server.messages[0]
    assert server.envelopes[0].rcpt_tos == list(TO)
    assert message["Subject"] == "[FIRING 1] FailingCalls critical: 12% of summarize1 fail - shop"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["Message-ID"] == "<msg_0123456789abcdef@example.org>"
    assert message["Date"].datetime.timestamp() == notification().at
    assert message.get_content_type() == "text/plain"
    text = message.get_content()
    for part in (
        "12% of summarize1 fail",
        "value 12%, bound 5%",
        "▁▁·▂▄█ between 1% and 12% in 1h",
        "runbook: https://",
    ):
        assert part in text


async def test_each_attempt_sends_the_same_and_a_group_is_one_thread():
    email = Email(to=TO, host="x", port=25)
    first, end = notification(), notification(ended(), id="msg_2")
    assert message_of(first, email) == message_of(first, email)
    async with mail_server() as server, sender(server) as made:
        await made.send(first)
        await made.send(end)
    thread = {message["References"] for message in server.messages}
    assert len(thread) == 1
    assert None not in thread
    assert server.messages[1]["Subject"].startswith("[RESOLVED 1]")


async def test_the_names_of_messages_are_readable_however_long_the_domain_is():
    domain = "alerts.eu-central-1.department-of-search.a-company-with-a-long-name.example"
    raw = message_of(notification(), Email(to=(f"ops@{domain}",), host="x", port=25))
    message = message_from_bytes(raw)
    for name in ("Message-ID", "In-Reply-To", "References"):
        assert re.fullmatch(rf"<[\w.-]+@{re.escape(domain)}>", str(message[name]).strip()), message[name]


@pytest.mark.parametrize(
    ("machine", "name"),
    [
        ("web1.example.org", "web1.example.org"),
        ("web1", "[127.0.0.1]"),
        ("localhost.localdomain", "[127.0.0.1]"),
        ("my_container.x", "[127.0.0.1]"),
    ],
)
async def test_a_machine_without_a_full_name_introduces_itself_by_its_address(
    machine: str, name: str, monkeypatch: pytest.MonkeyPatch
):
    """As RFC 5321 wants it. Many servers answer "504 Helo command rejected: need fully-qualified hostname"."""
    monkeypatch.setattr(socket, "gethostname", lambda: machine)
    async with mail_server() as server:
        assert (await sent(server)).result == "sent"
    assert server.introduced == [name]


async def test_text_from_elsewhere_can_add_neither_headers_nor_lines():
    evil = "x\r\nBcc: all@example.org\n\n\x1b[31m\u202eevil"
    alert = told(summary=evil, alertname=evil, labels={"pool": evil}, annotations={evil: evil})
    async with mail_server() as server:
        await sent(
            server, notification(alert, service=evil, about=evil, id="a\r\nb", at=1e300, group_key=f"{evil}\ud800")
        )
    message = server.messages[0]
    assert message["Bcc"] is None
    assert server.envelopes[0].rcpt_tos == list(TO)
    assert len(message["Subject"]) <= 200
    text = message.get_content()
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert not any(line.startswith("Bcc") for line in text.splitlines())


# -- TLS and passwords ------------------------------------------------------------------------------------------------


async def test_tls_is_begun_where_the_server_offers_it_and_the_password_goes_through_it(trusted: ssl.SSLContext):
    async with mail_server(tls=trusted) as server:
        assert (await sent(server, **LOGIN)).result == "sent"
    assert server.over_tls == [True]
    assert server.logins == [(USER, PASSWORD)]


async def test_tls_from_the_first_byte_on(trusted: ssl.SSLContext):
    async with mail_server(tls=trusted, implicit_tls=True, auth_require_tls=False) as server:
        assert (await sent(server, tls="implicit", **LOGIN)).result == "sent"
    assert server.over_tls == [True]
    assert server.logins == [(USER, PASSWORD)]


@pytest.mark.parametrize("name", ["127.0.0.1", "other.example"])
async def test_a_certificate_that_is_not_valid_is_refused_in_words(authority: trustme.CA, name: str):
    other = trustme.CA() if name == "127.0.0.1" else authority
    async with mail_server(tls=server_context(other, name)) as server:
        outcome = await sent(server, **LOGIN)
    assert outcome.result == "refused"
    assert "certificate" in outcome.reason
    assert server.logins == []
    assert server.messages == []


async def test_without_tls_a_password_is_never_sent_to_another_machine(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(email_module, "is_loopback", lambda _host: False)
    async with mail_server(auth_require_tls=False) as server:
        outcome = await sent(server, **LOGIN)
        assert outcome.result == "refused"
        assert "password" in outcome.reason
        assert (await sent(server, tls="none", **LOGIN)).result == "refused"
        assert (await sent(server)).result == "sent", "a message without a password may go in the open"
    assert server.logins == []


async def test_starttls_that_is_required_is_not_done_without():
    async with mail_server() as server:
        outcome = await sent(server, tls="starttls")
    assert outcome.result == "refused"
    assert "STARTTLS" in outcome.reason
    assert server.messages == []


async def test_a_wrong_password_is_refused_and_not_repeated(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SMTP_PASSWORD", "wrong-canary")
    async with mail_server(auth_require_tls=False) as server:
        outcome = await sent(server, **LOGIN)
    assert outcome.result == "refused"
    assert "log-in" in outcome.reason
    assert "canary" not in outcome.reason
    assert USER not in outcome.reason


async def test_a_password_may_be_in_a_file(tmp_path: Path):
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    async with mail_server(auth_require_tls=False) as server:
        outcome = await sent(server, user_env="SMTP_USER", password_file=str(tmp_path / "password"))
    assert outcome.result == "sent"
    assert server.logins == [(USER, PASSWORD)]


async def test_a_missing_variable_is_refused_in_words(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("SMTP_PASSWORD")
    outcome = await sent(1, **LOGIN)
    assert outcome == Outcome("refused", "the environment variable SMTP_PASSWORD is not set")


@pytest.mark.parametrize("answer", ["250 OK", "554 no", "451 later", "disconnect"])
@pytest.mark.parametrize("password", [PASSWORD, "wrong-canary"])
async def test_a_password_is_in_no_log_and_no_outcome(
    answer: str, password: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("SMTP_PASSWORD", password)
    answers = [f"{answer} {password}"]
    async with mail_server(auth_require_tls=False, data=answers) as server, sender(server, **LOGIN) as made:
        outcome = await made.send(notification())
        shown = f"{outcome} {made.where}"
    ours = "".join(record.getMessage() for record in caplog.records if not record.name.startswith("mail"))
    for form in (password, base64.b64encode(password.encode()).decode(), USER):
        assert form not in shown + ours


# -- what the server says ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "result"), [("451 later", "retry"), ("554 no", "refused"), ("552 too much", "too_large")]
)
async def test_what_the_server_says_of_the_message_counts(answer: str, result: str):
    async with mail_server(data=[answer]) as server:
        outcome = await sent(server)
    assert outcome.result == result
    assert answer in outcome.reason
    assert not outcome.unsure


async def test_a_message_beyond_the_advertised_size_is_too_large():
    async with mail_server(data_size_limit=100) as server:
        outcome = await sent(server)
    assert outcome.result == "too_large"
    assert not outcome.unsure


async def test_who_is_refused_is_named_and_costs_the_others_nothing():
    async with mail_server(recipients={TO[0]: ["550 ops@example.org is unknown"]}) as server:
        outcome = await sent(server)
    assert outcome.result == "sent"
    assert outcome.reason.startswith("1 of 2 recipients were refused, such as o***@example.org: 550")
    assert "ops@" not in outcome.reason
    assert server.envelopes[0].rcpt_tos == [TO[1]]


async def test_who_is_put_off_is_tried_again_alone():
    async with mail_server(recipients={TO[0]: ["450 later", "250 OK"]}) as server, sender(server) as made:
        assert (await made.send(notification())).result == "retry"
        assert (await made.send(notification())).result == "sent"
    assert [envelope.rcpt_tos for envelope in server.envelopes] == [[TO[1]], [TO[0]]]


async def test_who_is_always_put_off_does_not_hold_up_the_others_for_ever():
    async with mail_server(recipients={TO[0]: ["452 full"]}) as server, sender(server) as made:
        results = [(await made.send(notification())).result for _ in range(3)]
    assert results == ["retry", "retry", "sent"]
    assert [envelope.rcpt_tos for envelope in server.envelopes] == [[TO[1]]]


@pytest.mark.parametrize(("answer", "result"), [("550 no", "refused"), ("450 later", "retry")])
async def test_when_nobody_is_taken_nothing_is_sent(answer: str, result: str):
    async with mail_server(recipients={key: [answer] for key in TO}) as server:
        assert (await sent(server)).result == result
    assert server.messages == []


@pytest.mark.parametrize("answer", ["hang", "disconnect"])
async def test_silence_after_the_message_may_mean_that_it_arrived(short: None, answer: str):
    async with mail_server(data=[answer]) as server:
        outcome = await sent(server)
    assert outcome.result == "retry"
    assert outcome.unsure
    assert outcome.reason


async def test_a_server_that_is_not_there_is_tried_again():
    outcome = await sent(1)
    assert outcome.result == "retry"
    assert not outcome.unsure
    assert outcome.reason == "cannot be connected to: Connection refused"


async def test_a_server_that_does_not_begin_with_tls_is_said_to_be_so():
    async with mail_server() as server:
        outcome = await sent(server, tls="implicit")
    assert outcome.result == "retry"
    assert "SSL" in outcome.reason


async def test_an_address_that_does_not_answer_leaves_time_for_the_next(monkeypatch: pytest.MonkeyPatch):
    """As an address of IPv6 on a machine without IPv6. It is the first at each attempt."""
    monkeypatch.setattr(email_module, "STEP_S", 0.5)
    async with mail_server() as server:
        with silent("127.0.0.2", server.port):
            look_up(monkeypatch, "127.0.0.2", "127.0.0.1")
            assert (await sent(server, host="smtp.example")).result == "sent"
            look_up(monkeypatch, "127.0.0.2")
            assert await sent(server, host="smtp.example") == Outcome(
                "retry", "cannot be connected to: no connection within 0.5 s"
            )


async def test_a_name_that_leads_to_the_metadata_of_a_cloud_is_refused(monkeypatch: pytest.MonkeyPatch):
    look_up(monkeypatch, "169.254.169.254")
    outcome = await sent(25, host="smtp.example")
    assert outcome.result == "refused"
    assert "metadata" in outcome.reason


async def test_a_resolver_that_hangs_costs_its_attempt_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reaching, "LOOKUP_S", 0.05)
    monkeypatch.setattr(reaching.socket, "getaddrinfo", lambda *_, **__: time.sleep(0.2) or [])
    assert await sent(25, host="smtp.example") == Outcome("retry", "its name was not looked up within 0.05 s")


def look_up(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Every name stands for *addresses*."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in addresses]
    monkeypatch.setattr(reaching.socket, "getaddrinfo", lambda *_, **__: found)


@contextmanager
def silent(address: str, port: int) -> Iterator[None]:
    """Packets to *port* are dropped: the queue of a socket that accepts nothing is full."""
    with ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind((address, port))
        listening.listen(0)
        for _ in range(3):
            filling = stack.enter_context(socket.socket())
            filling.setblocking(False)
            filling.connect_ex((address, port))
        yield


@pytest.mark.parametrize("address", ["ops@exämple.org", "öps@example.org", "a,b@example.org", "a\x00b@x.y"])
async def test_an_address_that_the_server_cannot_take_is_refused_in_words(address: str):
    async with mail_server(enable_SMTPUTF8=False) as server:
        outcome = await sent(server, to=(address,))
    assert outcome.result == "refused"
    assert "address" in outcome.reason


async def test_an_address_that_is_not_ascii_is_used_where_the_server_takes_it():
    async with mail_server(enable_SMTPUTF8=True) as server:
        assert (await sent(server, to=("öps@example.org",))).result == "sent"
    assert server.envelopes[0].rcpt_tos == ["öps@example.org"]


async def test_without_the_extra_it_is_refused_in_words(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "aiosmtplib", None)
    outcome = await sent(1)
    assert outcome == Outcome("refused", "needs the extra: pip install 'pool-monitor[mail]'")
