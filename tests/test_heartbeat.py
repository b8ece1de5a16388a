"""The heartbeat: what it says, when it is silent, and what it costs when nobody answers."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pool_monitor import Monitor
from pool_monitor.alerts.channels.http import joined
from pool_monitor.alerts.heartbeat import Heartbeat
from pool_monitor.alerts.pulse import Beat, Beats, Pulse, Standing, troubles
from pool_monitor.clock import ManualClock
from pool_monitor.config import AlertsConfig, MonitorConfig, ResourcesConfig, ServiceConfig
from pool_monitor.config.alerts import HeartbeatConfig
from pool_monitor.errors import ConfigError
from pool_monitor.snapshot import AlertingView
from tests.helpers.fault_server import FaultServer, hang, moved, ok, status
from tests.helpers.support import eventually
from tests.test_monitor import Gauges

pytestmark = pytest.mark.usefixtures("no_leaks")
TOKEN = "5d7c1f2a-canary"
ALERTING = AlertingView(rules=1, interval=5.0, evaluated_age=1.0)


# -- what it says, and when -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "degraded", "found"),
    [
        ({}, {}, []),
        ({"evaluated_age": 15.0}, {}, []),
        ({"evaluated_age": 15.1}, {}, ["evaluation"]),
        ({"evaluated_age": None}, {}, []),
        ({"evaluated_age": 100.0, "interval": 60.0}, {}, []),
        ({"evaluated_age": 100.0, "paused": 20.0}, {}, []),
        ({"owed": 3, "oldest_debt": 300.0}, {}, []),
        ({"owed": 3, "oldest_debt": 300.1}, {}, ["debt"]),
        ({"owed": 1, "parked": 1, "oldest_debt": 301.0}, {}, ["parked"]),
        ({}, {"history": "disk full", "otlp": "no answer"}, ["history", "otlp"]),
    ],
)
def test_a_trouble_is_what_keeps_a_monitor_from_being_relied_on(
    changed: dict[str, Any], degraded: dict[str, str], found: list[str]
) -> None:
    assert [name for name, _ in troubles(msgspec.structs.replace(ALERTING, **changed), degraded)] == found


def test_without_alerts_only_degraded_parts_are_troubles() -> None:
    assert dict(troubles(None, {"otlp": "x" * 1000})) == {"otlp": f"otlp is degraded: {'x' * 1000}"[:200]}


def test_a_trouble_counts_once_it_has_stood_for_the_grace() -> None:
    standing = Standing(10.0)
    assert standing.note({"otlp": "a"}, 0.0) == ()
    assert standing.note({"otlp": "b"}, 9.9) == ()
    assert standing.note({"otlp": "c"}, 10.0) == ("c",)
    assert standing.note({}, 11.0) == ()
    assert standing.note({"otlp": "d"}, 12.0) == ()
    assert len(Standing(0.0).note({str(number): "x" for number in range(100)}, 0.0)) == 10


def test_a_beat_is_due_at_every_interval_and_at_once_when_it_says_something_else() -> None:
    beats = Beats(30.0)
    assert beats.due(None, 0.0) is None
    assert beats.due(Pulse(0.0), 0.0) == Beat("ok")
    beats.sent(Beat("ok"), 0.0, arrived=True)
    assert beats.due(Pulse(29.0), 29.0) is None
    assert beats.due(Pulse(4.0, ("x",)), 4.0) is None  # too soon after the one before
    assert beats.due(Pulse(6.0, ("x",)), 6.0) == Beat("failing", ("x",))
    beats.sent(Beat("failing", ("x",)), 6.0, arrived=True)
    assert beats.due(Pulse(35.0, ("y",)), 35.0) is None
    assert beats.due(Pulse(36.0, ("y",)), 36.0) == Beat("failing", ("y",))


def test_a_beat_that_does_not_arrive_is_sent_again_before_the_interval_is_over() -> None:
    beats = Beats(30.0)
    beats.sent(Beat("ok"), 0.0, arrived=False)
    assert beats.due(Pulse(4.0), 4.0) is None
    assert beats.due(Pulse(7.5), 7.5) == Beat("ok")


def test_after_a_stop_no_beat_comes_before_the_loop_has_run_again() -> None:
    beats = Beats(4.0)
    assert beats.fresh_for == 3.0
    beats.sent(Beat("ok"), 0.0, arrived=True)
    assert beats.due(Pulse(1.0), 3600.0) is None
    assert beats.due(Pulse(3600.0), 3600.1) == Beat("ok")


@given(
    every=st.floats(1, 3600),
    steps=st.lists(st.tuples(st.floats(0, 100), st.sampled_from(["run", "fail", "stop"]), st.booleans()), max_size=60),
)
def test_no_beat_without_a_fresh_pulse_and_none_too_often(every: float, steps: list[tuple[float, str, bool]]) -> None:
    beats, now, pulse, sent = Beats(every), 0.0, None, [-1e9]
    for seconds, does, arrives in steps:
        now += seconds
        if does != "stop":
            pulse = Pulse(now, ("x",) if does == "fail" else ())
        beat = beats.due(pulse, now)
        if beat is not None:
            assert pulse is not None
            assert now - pulse.at <= max(3.0, every / 2)
            assert now - sent[-1] >= min(1.0, every) - 1e-6
            assert (beat.status == "failing") == bool(pulse.failing)
            beats.sent(beat, now, arrived=arrives)
            sent.append(now)
        elif does != "stop":
            assert now - sent[-1] < every + 1e-6


@pytest.mark.parametrize(
    ("url", "failure"),
    [
        ("https://hc-ping.com/uuid", "https://hc-ping.com/uuid/fail"),
        ("https://hc-ping.com/uuid/", "https://hc-ping.com/uuid/fail"),
        ("http://[::1]:8000", "http://[::1]:8000/fail"),
        ("https://user:word@beats.example/push?token=1&up=1", "https://user:word@beats.example/push/fail?token=1&up=1"),
    ],
)
def test_a_failure_is_told_below_the_path(url: str, failure: str) -> None:
    assert joined(url, "/fail") == failure


# -- sent for real ----------------------------------------------------------------------------------------------------


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread looks often, and pauses are short."""
    monkeypatch.setattr("pool_monitor.alerts.heartbeat._STEP_S", 0.02)
    monkeypatch.setattr("pool_monitor.alerts.pulse.RETRY_MIN_S", 0.0)


@pytest.fixture
async def server(hasty: None) -> AsyncIterator[FaultServer]:
    async with FaultServer() as server:
        yield server


def monitor_of(**heartbeat: Any) -> Monitor:
    beating = AlertsConfig(default_rules=False, heartbeat=HeartbeatConfig(**heartbeat))
    quiet = ServiceConfig(socket=False)
    return Monitor(
        Gauges("text"),
        config=MonitorConfig(service=quiet, resources=ResourcesConfig(enabled=False), alerts=beating),
    )


async def test_a_service_beats_says_why_it_fails_and_takes_its_leave(
    server: FaultServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("BEAT_URL", server.url(f"/{TOKEN}"))
    monkeypatch.setattr("pool_monitor.alerts.heartbeat.GRACE_MAX_S", 0.0)
    monkeypatch.setattr("pool_monitor.alerts.pulse.CHANGE_S", 0.0)
    async with monitor_of(url_env="BEAT_URL", every=1) as monitor:
        first, *_ = await server.received(f"/{TOKEN}")
        assert first.method == "POST"
        assert first.headers["content-type"] == "application/json"
        assert first.json | {"at": 0, "version": 0} == {
            "service": "text",
            "status": "ok",
            "reasons": [],
            "at": 0,
            "version": 0,
        }
        monitor.context.degraded("history", "disk full")
        failing, *_ = await server.received(f"/{TOKEN}/fail")
        assert failing.json["status"] == "failing"
        assert failing.json["reasons"] == ["history is degraded: disk full"]
        view = monitor.snapshot().monitor.alerts
        assert view is not None
        assert view.heartbeat is not None
        assert view.heartbeat.failing == ("history is degraded: disk full",)
        monitor.context.recovered("history", "written again")
        count = len(server.of(f"/{TOKEN}"))
        await server.received(f"/{TOKEN}", count + 1)
        assert TOKEN.encode() not in msgspec.json.encode(monitor.snapshot())
    assert server.of(f"/{TOKEN}")[-1].json["status"] == "stopping"
    assert TOKEN not in caplog.text


async def test_a_beat_that_does_not_arrive_is_shown_and_logged_once_without_its_url(
    server: FaultServer, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    (tmp_path / "url").write_text(f"{server.url(f'/{TOKEN}')}\n")
    server.script(f"/{TOKEN}", status(500, f"no {TOKEN}".encode()), moved(f"/moved/{TOKEN}"), ok())
    heart = Heartbeat(HeartbeatConfig(url_file=str(tmp_path / "url"), every=1), "text")
    await heart.start()
    errors = set()
    with caplog.at_level(logging.DEBUG, logger="pool_monitor"):
        for _ in range(2000):
            heart.pulse(None, {})
            errors.add(heart.view().last_error)
            if len(server.of(f"/{TOKEN}")) >= 3 and heart.view().last_error is None:
                break
            await asyncio.sleep(0.005)
    await heart.stop(in_order=False)
    assert heart.view().last_success_age is not None
    shown = " ".join(str(one) for one in errors)
    assert "500" in shown
    assert "not followed" in shown
    assert not server.of(f"/moved/{TOKEN}")
    assert caplog.text.count("the heartbeat does not arrive") == 1
    assert caplog.text.count("the heartbeat arrives again") == 1
    assert TOKEN not in shown + caplog.text
    assert server.of(f"/{TOKEN}")[-1].json["status"] == "ok"  # one that was not left in order does not say so


async def test_an_endpoint_that_hangs_delays_no_leaving_and_gets_one_beat_at_a_time(
    server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pool_monitor.alerts.heartbeat.LEAVE_S", 0.3)
    server.script("/b", hang())
    monkeypatch.setenv("BEAT_URL", server.url("/b"))
    heart = Heartbeat(HeartbeatConfig(url_env="BEAT_URL", every=1), "text")
    await heart.start()
    heart.pulse(None, {})
    await server.received("/b")
    await eventually(lambda: heart.view().last_error is not None)
    assert heart.view().last_error == "not done within 0.5 s"
    assert server.open_max["/b"] == 1
    server.script("/b", ok(), hang())
    await eventually(lambda: heart.pulse(None, {}) or heart.view().last_error is None)
    await server.received("/b", len(server.of("/b")) + 1)
    async with asyncio.timeout(5):
        await heart.stop(in_order=True)


async def test_without_a_pulse_there_is_silence(server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BEAT_URL", server.url("/b"))
    clock = ManualClock()
    heart = Heartbeat(HeartbeatConfig(url_env="BEAT_URL", every=1), "text", clock)
    await heart.start()
    heart.pulse(None, {})
    await server.received("/b")
    clock.advance(3600.0)  # the process was stopped: nothing has run
    await asyncio.sleep(0.2)  # the thread looks ten times
    assert len(server.of("/b")) == 1
    heart.pulse(None, {})
    await server.received("/b", 2)
    await heart.stop(in_order=False)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "the environment variable BEAT_URL is not set"),
        ("  ", "the environment variable BEAT_URL is empty"),
        (TOKEN, "the environment variable BEAT_URL has no URL"),
        (f"ftp://beats.example/{TOKEN}", "the environment variable BEAT_URL has no URL"),
        (f"http://[{TOKEN}", "the environment variable BEAT_URL has no URL"),
    ],
)
async def test_a_heartbeat_that_could_not_beat_keeps_the_service_from_starting(
    value: str | None, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BEAT_URL", raising=False)
    if value is not None:
        monkeypatch.setenv("BEAT_URL", value)
    with pytest.raises(ConfigError, match=words) as caught:
        async with monitor_of(url_env="BEAT_URL"):
            pass
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize("kind", ["missing", "folder", "fifo", "bytes", "empty"])
async def test_a_file_without_a_url_is_refused_in_words(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "url"
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind != "missing":
        path.write_bytes(b"\xff\xfe" if kind == "bytes" else b"")
    with pytest.raises(ConfigError, match=r"\[alerts\] heartbeat: the file .*url "):
        async with monitor_of(url_file=str(path)):
            pass


@pytest.mark.parametrize("fields", [{}, {"url_env": "A", "url_file": "b"}, {"url_env": "A", "every": 0.5}])
def test_a_heartbeat_needs_one_source_of_its_url(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        HeartbeatConfig(**fields)
    with pytest.raises(ConfigError, match="enabled = true"):
        AlertsConfig(enabled=False, heartbeat=HeartbeatConfig(url_env="A"))
