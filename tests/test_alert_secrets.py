"""Secrets of receivers: where they come from, and that none comes out again."""

from __future__ import annotations

import asyncio
import base64
import html
import json
import logging
import os
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpcore
import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_monitor import telemetry
from pool_monitor.alerts.channels import http, sender_of
from pool_monitor.alerts.channels.precautions import warnings_of
from pool_monitor.alerts.channels.secrets import (
    FILE_MAX,
    SecretMissing,
    bare_origin,
    origin,
    seen,
    value_of,
)
from pool_monitor.alerts.delivery.notification import Outcome
from pool_monitor.alerts.routing import Email, Receiver, Secret, Webhook
from pool_monitor.alerts.rule_file import load
from pool_monitor.answers import Redactor, cleaned
from pool_monitor.side_thread import SideThread
from tests.helpers import fault_server as fault
from tests.helpers.fault_server import FaultServer
from tests.helpers.gates import in_gates
from tests.helpers.notifications import notification, told
from tests.helpers.programs import command, runtime_dir
from tests.helpers.support import eventually
from tests.test_alerts_manager import Rig

__all__ = ["command", "runtime_dir"]

# -- where they come from ---------------------------------------------------------------------------------------------


def test_a_secret_is_read_anew_each_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "key"
    for value in ("old", "new"):
        monkeypatch.setenv("KEY", f" {value}\n")
        path.write_text(f"{value}\r\n")
        assert value_of(Secret(variable="KEY")) == value_of(Secret(file=str(path))) == value
    assert value_of(Secret("as it is")) == "as it is"


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", "cannot be read: No such file or directory"),
        ("folder", "is no regular file"),
        ("fifo", "is no regular file"),
        ("empty", "is empty"),
        ("blank", "is empty"),
        ("bytes", "is not text"),
        ("large", f"has more than {FILE_MAX} bytes"),
        ("null", "cannot be read: its name is not valid"),
    ],
)
def test_a_file_without_a_secret_is_said_in_words(kind: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "key"
    contents = {"empty": b"", "blank": b" \n\t", "bytes": b"\xff\xfe", "large": b"x" * (FILE_MAX + 1)}
    if kind in contents:
        path.write_bytes(contents[kind])
    elif kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    with pytest.raises(SecretMissing) as caught:
        value_of(Secret(file=f"{path}\x00" if kind == "null" else str(path)))
    assert str(caught.value).startswith(f"the file {path}")
    assert str(caught.value).endswith(words)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://hooks.slack.com/services/T0/B0/XXXX", "https://hooks.slack.com"),
        ("https://user:pass@hooks.example:8443/x?token=1#f", "https://hooks.example:8443"),
        ("http://[::1]:9000/x", "http://[::1]:9000"),
        ("http://HOOKS.example/", "http://hooks.example"),
        ("ftp://hooks.example/x", ""),
        ("mailto:a@b", ""),
        ("http://[::1/x", ""),
        ("https://hooks.example:x/", ""),
        ("", ""),
    ],
)
def test_of_a_url_its_scheme_and_host_are_shown(url: str, shown: str) -> None:
    assert bare_origin(url) == shown
    assert origin(url).startswith(f"{shown or 'a URL'} (")
    assert len(origin(url)) == len(shown or "a URL") + 11


def test_two_urls_of_one_host_are_told_apart() -> None:
    assert origin("https://hooks.example/a") != origin("https://hooks.example/b")


def test_before_it_is_used_the_place_of_a_url_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK", "https://hooks.example/a")
    assert seen(Secret(variable="HOOK")) == origin("https://hooks.example/a")
    assert seen(Secret(file="/run/secrets/hook")) == "the URL in the file /run/secrets/hook"
    assert seen(Secret(variable="NO_HOOK")) == "the environment variable NO_HOOK is not set"


# -- what removes them ------------------------------------------------------------------------------------------------

secrets = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Z")), min_size=8, max_size=40)
AS_WRITTEN = {
    "as it is": lambda text: text,
    "in a sentence": lambda text: f"no such hook: {text}.",
    "quoted": lambda text: urllib.parse.quote(text, safe=""),
    "quoted for a path": urllib.parse.quote,
    "quoted for a form": urllib.parse.quote_plus,
    "in JSON": json.dumps,
    "in JSON with UTF-8": lambda text: json.dumps(text, ensure_ascii=False),
    "in HTML": html.escape,
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64 for a URL": lambda text: base64.urlsafe_b64encode(text.encode()).decode(),
    "hexadecimal": lambda text: text.encode().hex(),
    "cleaned": cleaned,
}


@given(secrets, st.sampled_from(list(AS_WRITTEN)))
def test_a_secret_is_removed_however_it_is_written(secret: str, how: str) -> None:
    written = AS_WRITTEN[how](secret)
    assert cleaned(secret) not in Redactor([], [secret])(written) or len(cleaned(secret)) < 4
    assert secret not in Redactor([], [secret])(written)


@given(secrets, secrets, secrets)
def test_each_part_of_a_url_is_removed(path: str, user: str, token: str) -> None:
    url = f"https://{urllib.parse.quote(user, safe='')}:pw@hooks.example/{urllib.parse.quote(path, safe='')}?t={token}"
    hide = Redactor([url])
    for part in (path, urllib.parse.quote(path, safe=""), user):
        assert part not in hide(f"404: {part} is not here")
    assert url not in hide(url)
    assert "hooks.example" in hide("cannot reach hooks.example")


def test_a_secret_is_removed_in_capital_and_in_small_letters() -> None:
    hide = Redactor(["https://hooks.example/hook/CanaryToken"])
    said = f"canarytoken.example, CANARYTOKEN and {b'CanaryToken'.hex().upper()} of İCanaryTokenİ"
    assert hide(said) == "***.example, *** and *** of İ***İ"


def test_a_word_of_a_header_is_removed_and_its_scheme_stays() -> None:
    hide = Redactor([], ["Bearer abcdef123456"])
    assert hide("Bearer abcdef123456: token abcdef123456 expired") == "***: token *** expired"
    assert hide("needs Bearer") == "needs Bearer"


def test_short_and_usual_words_stay() -> None:
    assert Redactor(["https://x.example/hooks/v1/a?b=c"], ["ab"])("the hooks of v1 are ab and c") == (
        "the hooks of v1 are ab and c"
    )


@given(st.text(max_size=60))
def test_what_is_cleaned_is_one_line_that_controls_nothing(text: str) -> None:
    assert cleaned(text).isprintable()
    assert cleaned(cleaned(text)) == cleaned(text)


# -- warned at load ---------------------------------------------------------------------------------------------------


def receivers(text: str, tmp_path: Path) -> tuple[Receiver, ...]:
    path = tmp_path / "receivers.yaml"
    path.write_text(f"rules: []\nroute: {{receiver: a}}\nreceivers: [{{name: a, {text}}}]\n")
    return load([path]).receivers


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("webhook: {url_env: NO_HOOK}", "receiver a: the environment variable NO_HOOK is not set; until then nothing"),
        ("webhook: {url_file: /no/hook}", "receiver a: the file /no/hook cannot be read"),
        ("webhook: {url: 'https://x.example/', secret_env: NO_KEY}", "receiver a: the environment variable NO_KEY"),
        ("webhook: {url: 'https://x.example/', headers: {X: {file: /no/key}}}", "receiver a: the file /no/key"),
        ("alertmanager: {url_env: NO_HOOK}", "receiver a: the environment variable NO_HOOK"),
        ("email: {to: [a@b.c], smtp: 'x:25', user_env: USR, password_env: NO_PW}", "receiver a: the environment"),
        ("webhook: {url: 'http://x.example/', headers: {X: abc}}", "plain http"),
        ("webhook: {url: 'http://10.0.0.1/', headers: {X: abc}}", "plain http"),
        ("webhook: {url: 'http://u:p@x.example/'}", "plain http"),
        ("webhook: {url: 'http://x.example/', format: pagerduty, secret_env: HOOK_HTTP}", "plain http"),
        ("webhook: {url_env: HOOK_HTTP}", "plain http"),
        ("webhook: {url_env: HOOK_BAD}", "receiver a: its URL is not a URL"),
        ("webhook: {url_env: HOOK_META}", "receiver a: its URL is the address of a machine's metadata service"),
    ],
)
def test_what_would_keep_messages_from_being_sent_is_warned_of(
    text: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK_HTTP", "http://x.example/s3cr3t")
    monkeypatch.setenv("HOOK_BAD", "s3cr3t")
    monkeypatch.setenv("HOOK_META", "http://169.254.169.254/s3cr3t")
    monkeypatch.setenv("USR", "someone")
    [warning] = warnings_of(receivers(text, tmp_path))
    assert words in warning
    assert "s3cr3t" not in warning


@pytest.mark.parametrize(
    "text",
    [
        "webhook: {url: 'https://x.example/', headers: {X: abc}}",
        "webhook: {url: 'http://x.example/'}",
        "webhook: {url: 'http://127.0.0.1:9/', headers: {X: abc}}",
        "webhook: {url: 'http://localhost/', headers: {X: abc}}",
        "webhook: {url: 'http://[::1]/', headers: {X: abc}}",
        "alertmanager: {url: 'http://am:9093'}",
        "file: /var/log/alerts.jsonl",
        "log: true",
    ],
)
def test_what_is_well_is_not_warned_of(text: str, tmp_path: Path) -> None:
    assert list(warnings_of(receivers(text, tmp_path))) == []


# -- the canary -------------------------------------------------------------------------------------------------------

CANARY = "c4n4ryXq7"
"""Is in every secret below, so no text may have it, or what it looks like in base64 (at each of three offsets)."""
TRACES = (
    CANARY.lower(),
    *(base64.b64encode(b"x" * shift + CANARY.encode()).decode()[4 * (shift > 0) : -4].lower() for shift in range(3)),
)


def traces(text: str) -> list[str]:
    return [one for one in TRACES if one in text.lower()]


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """All that is logged, by anybody, at any level."""
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(f"{record.name} {record.getMessage()} {record.__dict__} {record.exc_info!r}")

    root, handler = logging.getLogger(), Keep(level=0)
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield lines
    root.removeHandler(handler)
    root.setLevel(level)


RECEIVERS = """
  - {name: native, webhook: {url: "BASE/nativeCANARY?t=qCANARY", headers: {X-Key: hCANARY, Cookie: {env: HEADER}},
     secret_env: KEY}}
  - {name: slack, webhook: {url_env: HOOK, format: slack}}
  - {name: duty, webhook: {url_file: FILE, format: pagerduty, secret_env: KEY}}
  - {name: am, webhook: {url: "http://uCANARY:pCANARY@HOST/am", format: alertmanager}}
  - {name: bad, webhook: {url: "BASE/badCANARY", headers: {X-Key: {env: NOT_A_HEADER}}}}
  - {name: tls, webhook: {url: "https://HOST/tlsCANARY"}}
  - {name: gone, webhook: {url: "http://127.0.0.1:1/goneCANARY"}}
  - {name: api, alertmanager: {url: "BASE/apiCANARY", headers: {Authorization: "Bearer bCANARY"}}}
  - {name: mail, email: {to: [a@example.org], smtp: "127.0.0.1:1", user_env: USER_CANARY, password_env: PASSWORD}}
  - {name: app, apprise: {url: "json://uCANARY:pCANARY@HOST/appCANARY"}}
"""
NAMES = ("native", "slack", "duty", "am", "bad", "tls", "gone", "api", "mail", "app")


def write_rules(path: Path, server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    base, hook = server.url("").rstrip("/"), path.parent / "hook"
    hook.write_text(f"{base}/duty{CANARY}\n")
    for name, value in (
        ("HEADER", f"session=c{CANARY}"),
        ("KEY", f"k{CANARY}"),
        ("HOOK", f"{base}/slack{CANARY}"),
        ("NOT_A_HEADER", f"n{CANARY}\x7f{CANARY}"),
        ("USER_CANARY", f"mu{CANARY}"),
        ("PASSWORD", f"mp{CANARY}"),
    ):
        monkeypatch.setenv(name, value)
    text = RECEIVERS.replace("_CANARY", "_@").replace("CANARY", CANARY).replace("_@", "_CANARY")
    text = text.replace("BASE", base).replace("HOST", f"127.0.0.1:{server.port}").replace("FILE", str(hook))
    routes = ", ".join(f"{{receiver: {name}, continue: true}}" for name in NAMES)
    monkeypatch.setattr(http, "CONNECT_S", 0.1)  # an answer of TLS is waited for in vain
    path.write_text(
        "rules:\n  - {alert: Waiting, threshold: {metric: pool.waiting, above: 3}}\n"
        f"route: {{receiver: native, group_wait: 0s, routes: [{routes}]}}\nreceivers:{text}"
    )


def echo(code: int, server: FaultServer) -> fault.Answer:
    """Answer with all that was asked: its path, headers and body, also in a header."""

    async def answer(writer: Any) -> None:
        asked = server.requests[-1]
        said = f"{asked.path} {asked.headers} {asked.body!r}"
        await fault.status(code, said.encode(), x_echo=asked.path, location=f"http://other.example{asked.path}")(writer)

    return answer


@pytest.mark.parametrize("codes", [(301, 401), in_gates((200, 301, 401, 410, 413, 429))])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what apprise imports
async def test_no_sender_lets_a_secret_out_whatever_the_receiver_does(
    logged: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, codes: tuple[int, ...]
) -> None:
    said: list[str] = []
    async with FaultServer() as server:
        write_rules(tmp_path / "rules.yaml", server, monkeypatch)
        senders = [sender_of(receiver) for receiver in load([tmp_path / "rules.yaml"]).receivers]
        answers = [
            fault.ok(), fault.disconnect(), fault.garbage(), fault.truncated(500), fault.huge_body(code=500),
            *(echo(code, server) for code in codes),
        ]  # fmt: skip
        for answer in answers:
            monkeypatch.setattr(server, "_next", lambda _path, answer=answer: answer)
            outcomes = await asyncio.gather(*(sender.send(notification(told())) for sender in senders))
            said += [*map(repr, outcomes), *map(repr, senders), *(sender.where for sender in senders)]
        for sender in senders:
            await sender.aclose()
        asked = {one.path.partition(CANARY)[0] for one in server.requests}
        assert asked == {"/native", "/slack", "/duty", "/am", "/api", "/app"}
    assert not traces("\n".join(said)), [one for one in said if traces(one)]
    assert not traces("\n".join(logged))


async def test_no_crash_of_a_sender_lets_a_secret_out(
    logged: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async def crash(_self: object, request: httpcore.Request) -> None:
        raise RuntimeError(f"{request.url} {request.headers}") from ValueError(CANARY)

    async with FaultServer() as server:
        write_rules(tmp_path / "rules.yaml", server, monkeypatch)
        monkeypatch.setattr(httpcore.AsyncConnectionPool, "handle_async_request", crash)
        for receiver in load([tmp_path / "rules.yaml"]).receivers:
            if isinstance(receiver.channel, Webhook):
                sender = sender_of(receiver)
                outcome = await sender.send(notification(told()))
                await sender.aclose()
                assert outcome.result in ("retry", "refused")
                assert not traces(repr(outcome))
    assert not traces("\n".join(logged))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what apprise imports
async def test_no_secret_comes_out_of_a_service(
    logged: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, no_leaks: None
) -> None:
    rig = Rig(tmp_path)
    rig.state = str(tmp_path / "state.db")
    async with FaultServer() as server:
        write_rules(rig.rules, server, monkeypatch)
        monkeypatch.setattr(server, "_next", lambda _path: echo(401, server))
        with telemetry.capture(()) as events:
            async with rig.monitor() as monitor:
                rig.waiting(9)
                await rig.evaluate(monitor, 5.0)
                await eventually(lambda: sum(one.failed > 0 for one in monitor.alerts.view().receivers) >= len(NAMES))
                shown = [repr(monitor.snapshot()), msgspec.json.encode(monitor.snapshot()).decode()]
                shown += [
                    repr(monitor.alerts.view().receivers),
                    repr(monitor.alerts.active()),
                    repr(monitor.alerts.rules()),
                ]
                shown += [repr(await monitor.alerts.test_receiver(name)) for name in NAMES]
                transport = httpx.ASGITransport(monitor.asgi())
                async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                    paths = ("/", "/metrics", "/v1/snapshot", "/v1/alerts", "/v1/events", "/v1/summary")
                    answers = [await client.get(path) for path in paths]
                    assert answers[1].status_code == 200
                    shown += [f"{answer.status_code} {answer.headers} {answer.text}" for answer in answers]
        shown += [repr(event) for event in events]
        shown += [path.read_bytes().decode("latin-1") for path in tmp_path.glob("state.db*")]
    shown.append(repr(load([rig.rules])))
    assert any(event.name[:2] == ("alert", "notify") for event in events)
    for text in shown:
        assert not traces(text), text[:2000]
    assert not traces("\n".join(logged))


def test_no_command_about_rules_shows_a_secret(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: Any) -> None:
    write_rules(tmp_path / "rules.yaml", FaultServer(port=1), monkeypatch)
    for arguments in (("check",), ("check", "--json")):
        done = command("rules", *arguments, tmp_path / "rules.yaml")
        assert done.code == 0
        assert not traces(done.out + done.err)
    broken = (tmp_path / "rules.yaml").read_text().replace("json://", "json:").replace("format: slack", "formt: slack")
    (tmp_path / "rules.yaml").write_text(broken.replace("https://127", "ftp://127"))
    done = command("rules", "check", tmp_path / "rules.yaml")
    assert done.code == 1
    assert not traces(done.out + done.err)


async def test_the_debug_mode_of_asyncio_logs_no_secret(logged: list[str]) -> None:
    loop, thread = asyncio.get_running_loop(), SideThread("test")
    slow, loop.slow_callback_duration = loop.slow_callback_duration, 0.0
    loop.set_debug(True)
    try:
        assert await thread.run(lambda: CANARY) == CANARY
    finally:
        loop.set_debug(False)
        loop.slow_callback_duration = slow
        await thread.close()
    assert any("_answer" in line for line in logged), "asyncio logs its callbacks"
    assert [line for line in logged if traces(line)] == []


def test_the_canary_would_be_found() -> None:
    """What the tests above look for is found where it is."""
    assert traces(f"https://x/{CANARY}")
    for shift in range(3):
        assert traces(base64.b64encode(b"u" * shift + CANARY.encode() + b":pw").decode())


def test_types_with_secrets_show_none() -> None:
    hook = Webhook(url=Secret(f"https://x/{CANARY}"), headers=(("X", Secret(CANARY)),))
    mail = Email(to=("a@b.c",), host="x", port=25, user_env="U", password_env="P")
    for thing in (hook, mail, Secret(CANARY), Receiver(name="a", channel=hook), Redactor([], [CANARY])):
        assert not traces(f"{thing!r} {thing}")
    assert Outcome("sent").reason == ""
