"""What comes of posting a message: real requests to a server that answers as it should not."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import time
from pathlib import Path
from typing import Any

import h11
import httpcore
import pytest
import trustme

from pool_monitor.alerts.channels import http, reaching
from pool_monitor.alerts.channels.formats.format import confirmed
from pool_monitor.alerts.channels.http import HttpClient, Message
from pool_monitor.alerts.channels.judgement import Answer, judged
from pool_monitor.alerts.delivery.notification import Outcome
from pool_monitor.alerts.routing import Secret
from pool_monitor.answers import seconds_wanted
from tests.helpers import fault_server as fault
from tests.helpers.fault_server import FaultServer

SECRET = "s3cr3t-t0ken-in-the-path"
PATH = f"/hook/{SECRET}"


async def posted(url: str, body: bytes = b"{}", **options: Any) -> Outcome:
    """Post once, with a client of its own."""
    client = HttpClient(Secret(url), **options)
    try:
        return await client.post(lambda _: Message(body))
    finally:
        await client.aclose()


async def outcome_of(*answers: fault.Answer, body: bytes = b"{}") -> Outcome:
    async with FaultServer() as server:
        server.script(PATH, *answers)
        return await posted(server.url(PATH), body)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits that a test can wait for."""
    for name, seconds in (("SEND_S", 1.0), ("CONNECT_S", 0.8), ("STEP_S", 0.2), ("ANSWER_S", 0.1)):
        monkeypatch.setattr(http, name, seconds)


# -- what an answer means ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "result"),
    [
        *((status, "sent") for status in (200, 201, 202, 204, 299)),
        *((status, "refused") for status in (300, 301, 302, 303, 304, 307, 308)),
        *((status, "refused") for status in (400, 401, 403, 404, 405, 409, 415, 422, 451)),
        *((status, "retry") for status in (408, 425, 429, 500, 502, 503, 504, 599)),
        (410, "gone"),
        (413, "too_large"),
        *((status, "refused") for status in (100, 101, 600, 999)),
    ],
)
def test_the_status_says_what_came_of_it(status: int, result: str) -> None:
    outcome = judged(Answer(status, {}, "why"), 0.0)
    assert outcome.result == result
    assert not outcome.unsure
    assert (outcome.reason == "") is (result == "sent")
    assert result == "sent" or str(status) in outcome.reason


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("7", 7.0),
        (" 30 ", 30.0),
        ("99999999999", 3600.0),
        ("Thu, 01 Jan 1970 00:17:10 GMT", 30.0),
        ("Thu, 01 Jan 1970 00:10:00 GMT", 0.0),
        ("Fri, 02 Jan 1970 00:00:00 GMT", 3600.0),
        ("Thursday, 01-Jan-70 00:17:10 GMT", 30.0),
        (None, None),
        ("", None),
        ("-5", None),
        ("1.5", 1.5),
        ("1.5.1", None),
        ("1e3", None),
        ("nan", None),
        ("soon", None),
        ("Thu, 99 Jan 1970 00:17:10 GMT", None),
        ("9" * 400, 3600.0),
        ("\u0665", 5.0),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    assert seconds_wanted(value, 1000.0) == seconds


@pytest.mark.parametrize("status", [429, 503])
def test_a_receiver_that_is_busy_names_the_pause(status: int) -> None:
    assert judged(Answer(status, {"retry-after": "9"}), 0.0).retry_after == 9.0


@pytest.mark.parametrize("status", [200, 301, 400, 410, 413])
def test_a_pause_is_only_for_what_is_tried_again(status: int) -> None:
    assert judged(Answer(status, {"retry-after": "9"}), 0.0).retry_after is None


@pytest.mark.parametrize(
    ("status", "text", "result"),
    [
        (200, "ok", "sent"),
        (200, "OK", "sent"),
        (200, "", "sent"),
        (202, '{"status":"success","message":"Event processed","dedup_key":"x"}', "sent"),
        (202, "Accepted", "sent"),
        (200, '{"success":true}', "sent"),
        (200, '{"ok":true}', "sent"),
        (200, '{"result":"success","msg":""}', "sent"),
        (200, '{"result":"error","msg":"no such stream"}', "refused"),
        (200, '{"ok":false,"error":"invalid_blocks"}', "refused"),
        (200, "<html>Log in</html>", "refused"),
        (200, "[" * 10_000, "refused"),
        (404, "no_service", "refused"),
        (503, "ok", "retry"),
    ],
)
def test_a_service_that_confirms_has_to_confirm(status: int, text: str, result: str) -> None:
    assert confirmed(Answer(status, {}, text), 0.0).result == result


# -- real requests ----------------------------------------------------------------------------------------------------


async def test_a_message_arrives_as_it_was_written(no_leaks: None) -> None:
    async with FaultServer() as server:
        client = HttpClient(Secret(server.url(PATH)), [("X-Team", Secret("search"))], Secret("key"))
        outcome = await client.post(lambda key: Message(f'{{"key":"{key}"}}'.encode(), {"X-Made": "1"}))
        await client.aclose()
    [received] = server.of(PATH)
    assert outcome == Outcome("sent")
    assert (received.method, received.body) == ("POST", b'{"key":"key"}')
    assert received.headers["x-team"] == "search"
    assert received.headers["x-made"] == "1"
    assert received.headers["content-type"] == "application/json"
    assert received.headers["user-agent"].startswith("pool_monitor/")
    assert received.headers["host"] == f"127.0.0.1:{server.port}"
    assert "accept-encoding" not in received.headers


async def test_a_header_of_the_file_replaces_the_usual_one() -> None:
    async with FaultServer() as server:
        await posted(
            server.url("/"), headers=[("content-type", Secret("text/plain")), ("HOST", Secret("other.example"))]
        )
    [received] = server.of("/")
    assert received.headers["content-type"] == "text/plain"
    assert received.headers["host"] == "other.example"


async def test_user_and_password_of_a_url_are_sent_as_basic_authentication() -> None:
    async with FaultServer() as server:
        await posted(f"http://us%40er:pass@127.0.0.1:{server.port}/")
    assert server.of("/")[0].headers["authorization"] == "Basic dXNAZXI6cGFzcw=="


async def test_the_connection_is_used_again() -> None:
    async with FaultServer() as server:
        client = HttpClient(Secret(server.url("/")))
        for _ in range(3):
            assert (await client.post(lambda _: Message(b"{}"))).result == "sent"
        await client.aclose()
        assert server.connections == 1


async def test_a_connection_that_the_receiver_has_closed_costs_no_message() -> None:
    async with FaultServer() as server:
        server.script("/", fault.old(), fault.ok())
        client = HttpClient(Secret(server.url("/")))
        assert [(await client.post(lambda _: Message(b"{}"))).result for _ in range(3)] == ["sent"] * 3
        await client.aclose()


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(code: int) -> None:
    async with FaultServer() as server:
        server.script("/a", fault.moved(f"https://other.example/{SECRET}", code))
        server.script("/b", fault.moved("/c", code))
        there, here = await posted(server.url("/a")), await posted(server.url("/b"))
        assert len(server.requests) == 2
    assert there == Outcome("refused", f"answered {code}: moved to https://other.example, and is not followed")
    assert here == Outcome("refused", f"answered {code}: moved, and is not followed")


async def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert await outcome_of(fault.ok()) == Outcome("sent")


@pytest.mark.parametrize(
    ("answer", "result", "unsure"),
    [
        (fault.hang(), "retry", True),
        (fault.huge_head(), "retry", True),
        (fault.reset(), "retry", True),
        (fault.disconnect(), "retry", True),
        (fault.garbage(), "retry", True),
        (fault.dripping_body(), "sent", False),
        (fault.huge_body(), "sent", False),
        (fault.huge_body(code=500), "retry", False),
        (fault.truncated(), "sent", False),
        (fault.truncated(503), "retry", False),
        (fault.old(), "sent", False),
        (fault.informed(fault.ok()), "sent", False),
    ],
    ids=[
        "hang", "huge head", "reset", "disconnect", "garbage", "dripping body", "huge body",
        "huge body of an error", "truncated", "truncated error", "HTTP/1.0", "1xx first",
    ],
)  # fmt: skip
async def test_whatever_a_receiver_does_costs_one_attempt(
    answer: fault.Answer, result: str, unsure: bool, short: None, no_leaks: None
) -> None:
    outcome = await outcome_of(answer)
    assert (outcome.result, outcome.unsure) == (result, unsure), outcome
    assert (outcome.reason == "") is (result == "sent")


@pytest.mark.parametrize(
    ("head", "flood", "result"),
    [
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n", "retry"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n", "sent"),
    ],
    ids=["1xx", "chunks"],
)
async def test_a_flood_of_small_parts_does_not_hold_the_event_loop(
    head: bytes, flood: bytes, result: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted by turns of the event loop, not with a clock: the parser gets small pieces, and little in all."""
    sizes, turns, turn, read = list[int](), dict[int, int](), 0, h11.Connection.receive_data

    def turning() -> None:
        nonlocal turn
        turn += 1
        asyncio.get_running_loop().call_soon(turning)

    def counted(self: h11.Connection, data: bytes) -> None:
        sizes.append(len(data))
        turns[turn] = turns.get(turn, 0) + len(data)
        read(self, data)

    monkeypatch.setattr(h11.Connection, "receive_data", counted)
    turning()
    outcome = await outcome_of(fault.raw(head + flood * (1 << 18)))
    assert outcome.result == result
    assert sum(sizes) <= 1 << 17
    assert max(turns.values()) <= 1 << 12


async def test_an_attempt_ends_in_time_whatever_drips(short: None) -> None:
    """The limits of a step begin anew with every byte. Compared with the limit of all of it, not with a clock."""
    monitor = asyncio.get_running_loop()
    began = monitor.time()
    outcome = await outcome_of(fault.dripping_head(0.02))
    assert outcome == Outcome("retry", "not done within 1 s", unsure=True)
    assert monitor.time() - began < 20 * http.SEND_S


@pytest.mark.parametrize("port_is", ["closed", "silent"])
async def test_what_never_began_is_surely_not_there(
    port_is: str, monkeypatch: pytest.MonkeyPatch, no_leaks: None
) -> None:
    monkeypatch.setattr(http, "CONNECT_S", 0.2)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        if port_is == "silent":  # connects by the kernel; TLS then waits for an answer
            listening.listen()
        scheme = "https" if port_is == "silent" else "http"
        outcome = await posted(f"{scheme}://127.0.0.1:{listening.getsockname()[1]}/")
    assert outcome == Outcome(
        "retry",
        "no connection within 0.2 s" if port_is == "silent" else "cannot be connected to: Connection refused",
    )


async def test_a_name_that_hangs_delays_no_more_than_its_attempt(
    monkeypatch: pytest.MonkeyPatch, no_leaks: None
) -> None:
    monkeypatch.setattr(reaching, "LOOKUP_S", 0.2)
    monkeypatch.setattr(reaching.socket, "getaddrinfo", lambda *_, **__: time.sleep(1.0) or [])
    began = asyncio.get_running_loop().time()
    assert await posted("http://hooks.example/") == Outcome("retry", "its name was not looked up within 0.2 s")
    assert asyncio.get_running_loop().time() - began < 20 * reaching.LOOKUP_S


async def test_a_name_that_is_found_late_has_all_the_time_of_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """A resolver whose first server is down answers after 5 s each time. Such a receiver has to be told too."""
    found = socket.getaddrinfo
    monkeypatch.setattr(http, "CONNECT_S", 0.05)

    def late(_host: str, *arguments: Any, **named: Any) -> Any:
        time.sleep(0.1)
        return found("127.0.0.1", *arguments, **named)

    async with FaultServer() as server:
        monkeypatch.setattr(reaching.socket, "getaddrinfo", late)
        assert (await posted(f"http://hooks.example:{server.port}/")).result == "sent"


async def test_a_cancelled_attempt_leaves_nothing_behind(no_leaks: None) -> None:
    async with FaultServer() as server:
        server.script("/", fault.hang())
        task = asyncio.create_task(posted(server.url("/")))
        await server.received("/")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_message_that_cannot_be_written_is_no_defect_of_the_receiver(no_leaks: None) -> None:
    def write(_key: str) -> Message:
        raise RuntimeError(SECRET)

    client = HttpClient(Secret("http://127.0.0.1:1/"))
    assert await client.post(write) == Outcome("retry", "failed with RuntimeError")
    await client.aclose()


async def test_metadata_is_refused_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = await posted(f"http://169.254.169.254/{SECRET}")
    assert refused.result == "refused"
    assert "metadata" in refused.reason
    monkeypatch.setattr(reaching.socket, "getaddrinfo", lambda *_, **__: [(2, 1, 6, "", ("169.254.169.254", 80))])
    behind_a_name = await posted(f"http://hooks.example/{SECRET}")
    assert behind_a_name == Outcome(
        "refused", "its address leads to a machine's metadata service, which is never told anything"
    )


# -- TLS --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def authority(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> trustme.CA:
    """An authority that this machine trusts."""
    made = trustme.CA()
    path = tmp_path / "authority.pem"
    made.cert_pem.write_to_path(str(path))
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    http._authorities.cache_clear()
    return made


def tls(authority: trustme.CA, name: str = "127.0.0.1") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


async def test_a_certificate_of_an_authority_of_the_machine_is_trusted(authority: trustme.CA) -> None:
    async with FaultServer(tls=tls(authority)) as server:
        assert await posted(server.url(PATH)) == Outcome("sent")
        assert len(server.of(PATH)) == 1


@pytest.mark.parametrize("wrong", ["name", "authority"])
async def test_a_certificate_that_is_not_valid_is_refused(wrong: str, authority: trustme.CA) -> None:
    context = tls(trustme.CA()) if wrong == "authority" else tls(authority, "other.example")
    async with FaultServer(tls=context) as server:
        outcome = await posted(server.url(PATH))
        assert not server.requests
    assert outcome.result == "refused"
    assert outcome.reason.startswith("its certificate is not valid: ")


async def test_a_name_of_the_url_is_what_its_certificate_is_for(
    authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is connected to is an address. The certificate, and the header Host, are about the name."""
    real = socket.getaddrinfo
    monkeypatch.setattr(
        reaching.socket, "getaddrinfo", lambda _host, *args, **kwargs: real("127.0.0.1", *args, **kwargs)
    )
    async with FaultServer(tls=tls(authority, "hooks.example")) as server:
        assert await posted(f"https://hooks.example:{server.port}/x") == Outcome("sent")
        assert server.of("/x")[0].headers["host"] == f"hooks.example:{server.port}"


# -- secrets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [SECRET, f"no {SECRET.upper()}"[:3] + SECRET, f"a{SECRET}b", f'{{"url": "{PATH}"}}'])
async def test_an_answer_that_repeats_the_url_shows_nothing_of_it(body: str) -> None:
    outcome = await outcome_of(fault.status(400, body.encode()))
    assert outcome.result == "refused"
    assert outcome.reason.startswith("answered 400: ")
    assert SECRET not in outcome.reason
    assert "***" in outcome.reason


async def test_a_secret_that_the_end_of_what_is_read_cuts_is_not_shown() -> None:
    for length in range(len(SECRET)):
        blanks = b" " * (http.ANSWER_MAX - length - 4)
        outcome = await outcome_of(fault.status(400, b"why " + blanks + SECRET.encode()))
        assert SECRET[: max(length, 4)] not in outcome.reason


async def test_an_answer_is_cut_and_cleaned() -> None:
    hostile = "line\r\none\x1b[31m\u202e\u200b\x00" + "x" * 5000
    outcome = await outcome_of(fault.status(400, hostile.encode()))
    assert outcome.reason.isprintable()
    assert len(outcome.reason) <= http.REASON_MAX
    assert "line one?[31m" in outcome.reason


async def test_nothing_is_logged_of_a_request_even_at_debug(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with FaultServer() as server:
        server.script("/a", fault.status(400, b"", x_echo=SECRET))
        await posted(server.url("/a"), headers=[("Authorization", Secret(f"Bearer {SECRET}"))])
    await posted("http://127.0.0.1:1/", headers=[("X", Secret(f"{SECRET}\nY: 1"))])
    assert SECRET not in caplog.text
    assert "httpcore" not in {record.name.partition(".")[0] for record in caplog.records}


async def test_another_user_of_the_library_still_has_its_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with FaultServer() as server:
        await posted(server.url("/"))
        async with httpcore.AsyncConnectionPool() as pool:
            await pool.request("GET", server.url("/"))
    assert any(record.name.startswith("httpcore") for record in caplog.records)


@pytest.mark.parametrize("value", [f"{SECRET}\nX: 1", f"{SECRET}\r", f"\x00{SECRET}", f"{SECRET}\u20ac"])
async def test_a_header_that_no_request_can_have_is_refused_without_its_value(value: str) -> None:
    outcome = await posted("http://127.0.0.1:1/", headers=[("X-Key", Secret(value + "x"))])
    assert outcome == Outcome("refused", "the value of the header X-Key has characters that no header may have")


async def test_a_secret_that_is_missing_is_refused_in_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HOOK", raising=False)
    client = HttpClient(Secret(variable="HOOK"))
    assert client.where == "the environment variable HOOK is not set"
    assert await client.post(lambda _: Message(b"{}")) == Outcome("refused", client.where)
    await client.aclose()
    missing = tmp_path / "hook"
    client = HttpClient(Secret(file=str(missing)))
    outcome = await client.post(lambda _: Message(b"{}"))
    assert outcome == Outcome("refused", f"the file {missing} cannot be read: No such file or directory")
    await client.aclose()


async def test_a_secret_that_is_replaced_is_used_at_once(tmp_path: Path) -> None:
    path = tmp_path / "hook"
    async with FaultServer() as server:
        path.write_text(server.url("/old") + "\n")
        client = HttpClient(Secret(file=str(path)))
        assert client.where == f"the URL in the file {path}"
        assert (await client.post(lambda _: Message(b"{}"))).result == "sent"
        path.write_text(server.url("/new"))
        assert (await client.post(lambda _: Message(b"{}"))).result == "sent"
        assert client.where.startswith(f"http://127.0.0.1:{server.port} (")
        await client.aclose()
    assert [one.path for one in server.requests] == ["/old", "/new"]


async def test_a_redirect_to_a_host_that_is_named_as_the_secret_does_not_show_it() -> None:
    outcome = await outcome_of(fault.moved(f"https://{SECRET}.example/"))
    assert outcome.reason == "answered 301: moved to https://***.example, and is not followed"
