"""The actions over HTTP: what they do, who may, and what is noted of them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from pool_monitor import Monitor, telemetry
from pool_monitor.clock import ManualClock
from pool_monitor.config import MonitorConfig, ResourcesConfig, ServiceConfig
from pool_monitor.config.alerts import AlertsConfig
from pool_monitor.errors import ConfigError
from pool_monitor.events import MONITOR_ACTION
from pool_monitor.service import acting
from pool_monitor.service.actions import ACTIONS
from pool_monitor.service.client import Address, Client, connected, open_client
from tests.helpers.programs import runtime_dir
from tests.test_monitor import Gauges

__all__ = ["runtime_dir"]
pytestmark = pytest.mark.usefixtures("runtime_dir", "no_leaks")
SILENCES = "/v1/alerts/silences"
SILENCE = {"matchers": {"pool": "text"}, "duration": "2h"}


@asynccontextmanager
async def entered(*, actions: bool = True) -> AsyncIterator[Monitor]:
    """A monitor with a firing alert."""
    pool = Gauges("text")
    pool.of_pool["waiting"] = 6
    config = MonitorConfig(
        service=ServiceConfig(actions=actions),
        resources=ResourcesConfig(enabled=False),
        alerts=AlertsConfig(interval=3600, default_rules=False),
    )
    async with Monitor(pool, config=config, clock=ManualClock()) as monitor:
        monitor.alerts.add({"alert": "Waiting", "threshold": {"metric": "pool.waiting", "above": 3}})
        await monitor.alerts.evaluate()
        with telemetry.capture(MONITOR_ACTION.name) as events:
            yield monitor
        for event in events:
            assert MONITOR_ACTION.problems(event.measurements, event.metadata) == []


def at(monitor: Monitor) -> Address:
    assert monitor.address is not None
    return Address("it", monitor.address, "http://localhost")


@asynccontextmanager
async def mounted(
    monitor: Monitor, client: str = "127.0.0.1", base: str = "http://127.0.0.1:8000"
) -> AsyncIterator[Any]:
    transport = httpx.ASGITransport(monitor.asgi(), client=(client, 1234))
    async with httpx.AsyncClient(transport=transport, base_url=base) as http:
        yield http


async def test_what_a_viewer_does_is_done_shown_and_noted():
    with telemetry.capture(MONITOR_ACTION.name) as events:
        async with entered() as monitor, open_client(at(monitor)) as service:
            [alert] = (await service.alerts()).alerts
            made = await service.silence({"alertname": {"glob": "Wait*"}}, duration="2h", comment="deploy", author="me")
            await service.ack(alert.fingerprint, comment="on it")
            report = await service.alerts()
            [found] = report.alerts
            assert (found.silences, found.state, [one.id for one in report.silences]) == ((made,), "firing", [made])
            assert found.acknowledgement is not None
            assert found.acknowledgement.author == f"uid {os.getuid()}"
            await service.unack(alert.fingerprint)
            await service.unsilence(made)
            [found] = (await service.alerts(state="firing,pending", limit=0)).alerts
            assert (found.silenced, found.acknowledged) == (False, False)
            with pytest.raises(ConfigError, match=made):
                await service.unsilence(made)
    assert [(one.metadata["action"], one.metadata["outcome"]) for one in events] == [
        ("silence", "done"), ("ack", "done"), ("unack", "done"), ("unsilence", "done"), ("unsilence", "failed"),
    ]  # fmt: skip
    first = events[0].metadata
    assert (first["author"], first["origin"], first["uid"], first["pid"]) == (
        "me",
        "local socket",
        os.getuid(),
        os.getpid(),
    )
    assert "alertname is like Wait*" in first["subject"]
    assert made in events[-1].metadata["reason"]


async def test_a_receiver_is_tested_by_its_name():
    with telemetry.capture(MONITOR_ACTION.name) as events:
        async with entered() as monitor, open_client(at(monitor)) as service:
            assert await service.test_receiver("log") == ""
            with pytest.raises(ConfigError, match="there is no receiver 'nobody'; there are: log"):
                await service.test_receiver("nobody")
    assert [(one.metadata["action"], one.metadata["outcome"], one.metadata["subject"]) for one in events] == [
        ("test", "done", "log: it has arrived"), ("test", "failed", "nobody"),
    ]  # fmt: skip


async def test_alerts_and_rules_can_be_read_where_no_action_is_taken():
    async with entered(actions=False) as monitor, open_client(at(monitor)) as service:
        report = await service.alerts()
        assert [one.alertname for one in report.alerts] == ["Waiting"]
        assert [(one.from_state, one.to_state) for one in report.transitions] == [("inactive", "firing")]
        assert [(one.name, one.channel, one.state) for one in report.receivers] == [("log", "log", "ready")]
        assert (await service.alerts(state="pending")).alerts == ()
        [rule] = await service.rules()
        assert (rule.alertname, rule.state, rule.alerts) == ("Waiting", "firing", 1)
        for wrong in ({"state": "burning"}, {"limit": -1}, {"limit": 10**9}):
            with pytest.raises(ConfigError, match=next(iter(wrong))):
                await service.alerts(**wrong)


async def test_without_the_setting_every_action_is_refused_with_the_remedy_everywhere():
    async with entered(actions=False) as monitor, open_client(at(monitor)) as service:
        with pytest.raises(ConfigError, match=r"\[service\] actions = true"):
            await service.silence({"pool": "text"}, duration="2h")
        async with mounted(monitor) as http:
            for action in ACTIONS:
                path = action.path.format(id="x", fingerprint="f" * 16, receiver="ops")
                answer = await http.request(action.method, path)
                assert (answer.status_code, "actions = true" in answer.json()["error"]) == (403, True)
        assert monitor.alerts.silences() == ()


async def test_a_mounted_app_acts_for_programs_of_this_machine_alone():
    async with entered() as monitor:
        async with mounted(monitor) as http:
            assert (await http.post(SILENCES, json=SILENCE)).status_code == 200
            assert (await http.post(SILENCES, json=SILENCE, headers={"X-Forwarded-For": "8.8.8.8"})).status_code == 403
            assert (await http.post(SILENCES, json=SILENCE, headers={"Host": "evil.example"})).status_code == 403
        for client, base in (
            ("10.0.0.7", "http://127.0.0.1"),
            ("::ffff:10.0.0.7", "http://localhost"),
            ("testclient", "http://localhost"),
        ):
            async with mounted(monitor, client, base) as http:
                answer = await http.post(SILENCES, json=SILENCE)
                assert (answer.status_code, "this machine" in answer.json()["error"]) == (403, True)
        async with mounted(monitor, "::1", "http://[::1]:8000") as http:
            assert (await http.post(SILENCES, json=SILENCE)).status_code == 200
        assert len(monitor.alerts.silences()) == 2


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b'{"matchers": {"pool": "text"}, "duration": "2h"}', "text/plain", 415),
        (b'{"matchers": {"pool": "text"}, "duration": "2h"}', "application/x-www-form-urlencoded", 415),
        (b"{", "application/json", 400),
        (b"[]", "application/json", 400),
        (b"\xff", "application/json", 400),
        (b"[" * 60_000, "application/json", 400),
        (b'{"duration": "2h"}', "application/json", 400),
        (b'{"matchers": {"pool": "text"}, "duration": "2h", "until": 1}', "application/json", 400),
        (b'{"matchers": {"pool": {"regex": "x"}}, "duration": "2h"}', "application/json", 400),
        (b'{"matchers": {}, "duration": "2h"}', "application/json", 400),
        (b'{"matchers": {"pool": "text"}, "duration": "120"}', "application/json", 400),
        (b" " * (acting.BODY_MAX + 1), "application/json", 413),
    ],
)
async def test_a_body_that_does_not_fit_is_refused_in_words_and_does_nothing(body: bytes, kind: str, status: int):
    async with entered() as monitor, connected(at(monitor)) as http:
        answer = await http.post(SILENCES, content=body, headers={"Content-Type": kind})
        assert answer.status_code == status
        assert answer.json()["error"]
        assert monitor.alerts.silences() == ()
        assert (await http.get("/livez")).status_code == 200
        if status in (400, 413, 415):
            with pytest.raises(ConfigError):
                await _send(Client(http), body, kind)


async def _send(service: Client, body: bytes, kind: str) -> None:
    from pool_monitor.service import client

    client._accepted(await service._http.post(SILENCES, content=body, headers={"Content-Type": kind}))


async def test_a_body_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(acting, "BODY_S", 0.05)

    async def dripping() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(0.5)
        yield b"}"

    async with entered() as monitor, mounted(monitor) as http:
        answer = await http.post(SILENCES, content=dripping(), headers={"Content-Type": "application/json"})
        assert answer.status_code == 408


async def test_a_caller_who_leaves_in_the_middle_of_a_body_is_no_failure(caplog: pytest.LogCaptureFixture):
    async with entered() as monitor, connected(at(monitor)) as http:
        _, writer = await asyncio.open_unix_connection(monitor.address)
        writer.write(f"POST {SILENCES} HTTP/1.1\r\nHost: it\r\nContent-Length: 50\r\n\r\n{{".encode())
        await writer.drain()
        await http.get("/livez")  # by then the beginning of the other request has been read
        writer.close()
        await writer.wait_closed()
        for _ in range(5):
            await http.get("/livez")
        assert monitor.alerts.silences() == ()
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []


async def test_hostile_words_are_cleaned_and_bounded_where_people_read_them():
    with telemetry.capture(MONITOR_ACTION.name) as events:
        async with entered() as monitor, open_client(at(monitor)) as service:
            await service.silence(
                {"pool": "\x1b]0;title\x07text\n"}, duration="1h", author="\x1b[31mred", comment="x" * 900
            )
    told = events[0].metadata
    assert "\x1b" not in told["author"] + told["subject"]
    assert "\n" not in told["subject"]


def test_every_action_says_what_a_person_confirms():
    for action in ACTIONS:
        words = action.confirmation.format(
            matchers="{}",
            duration="2h",
            id="a1",
            fingerprint="f" * 16,
            receiver="r",
            reason="release",
            mode="auto",
            pool="p",
            setting="size",
            value=3,
        )
        assert words.endswith("?")
    assert len({action.name for action in ACTIONS}) == len(ACTIONS)
