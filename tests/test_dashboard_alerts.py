"""Acknowledging and silencing on the page of alerts: a key asks, a second one confirms, and the answer is shown."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pool_monitor import Monitor, Rule
from pool_monitor.config import AlertsConfig, MonitorConfig, ResourcesConfig, ServiceConfig
from pool_monitor.dashboard.alert_actions import AlertRequest
from pool_monitor.dashboard.remote import RemoteFeed
from pool_monitor.dashboard.viewer import Viewer
from pool_monitor.errors import ConfigError
from pool_monitor.snapshot import Snapshot
from pool_monitor.view import plain
from tests.helpers import alert_samples
from tests.helpers.programs import Program
from tests.test_dashboard_app import SIZE, HandFeed, dashboard, shown, until
from tests.test_monitor import Gauges

pytestmark = pytest.mark.usefixtures("utf8")
ASKED = "acknowledge FailingCalls text/chat until it is resolved as anna?   y yes   Esc no"


@pytest.fixture(autouse=True)
def anna(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "anna")


def several() -> Snapshot:
    return alert_samples.snapshot(*alert_samples.alerts())


def viewer() -> Viewer:
    made = Viewer(100.0, source="articles", interval=1.0, window="5m")
    made.receive(several(), 100.0)
    made.open("alerts")
    return made


def screen(made: Viewer) -> str:
    return plain(made.page((100, 30), 100.0))


def test_a_question_is_asked_about_the_selected_alert_and_confirmed_once() -> None:
    made = viewer()
    made.ask_to("ack")
    assert ASKED in screen(made)
    request = made.prompt.confirm()
    assert request is not None
    assert (request.action, request.alert.alertname, request.author) == ("ack", "FailingCalls", "anna")
    assert made.prompt.confirm() is None
    assert "acknowledge FailingCalls text/chat until it is resolved as anna …" in screen(made)
    made.prompt.answer(request, "acknowledged\x1b[2J")
    assert " acknowledged?[2J" in screen(made)


def test_a_silence_of_the_dashboard_matches_this_alert_alone() -> None:
    request = AlertRequest("silence", alert_samples.alert(), "anna")
    assert request.matchers == {
        "alertname": "FailingCalls", "pool": "text", "operation": "chat", "team": "search"
    }  # fmt: skip
    assert request.words == "silence FailingCalls text/chat for 1h as anna"
    assert AlertRequest("silence", alert_samples.alert(), "").words == "silence FailingCalls text/chat for 1h"


def test_escape_takes_back_the_question_and_then_leaves_the_page() -> None:
    made = viewer()
    made.ask_to("silence")
    made.go_back()
    assert (made.prompt.confirm(), made.opened) == (None, "alerts")
    assert "y yes" not in screen(made)
    made.go_back()
    assert made.opened == "overview"


def test_a_question_is_gone_when_another_alert_or_page_is_shown() -> None:
    made = viewer()
    made.ask_to("ack")
    made.move(1, (100, 30), 100.0)
    assert "y yes" not in screen(made)
    assert made.prompt.confirm() is None
    made.ask_to("ack")
    made.open("errors")
    assert made.prompt.confirm() is None


def test_nothing_is_asked_elsewhere_or_without_an_alert() -> None:
    made = viewer()
    made.open("errors")
    made.ask_to("ack")
    assert made.prompt.confirm() is None
    made.open("alerts")
    made.helping = True
    made.ask_to("ack")
    assert made.prompt.confirm() is None
    made.helping = False
    made.receive(alert_samples.snapshot(), 100.0)
    made.ask_to("ack")
    assert made.prompt.confirm() is None
    assert Viewer(0.0, source="x", interval=1.0, window="5m").ask_to("ack") is None


def test_the_answer_belongs_to_its_alert() -> None:
    made = viewer()
    made.ask_to("ack")
    request = made.prompt.confirm()
    assert request is not None
    made.move(1, (100, 30), 100.0)
    made.prompt.answer(request, "acknowledged late")
    assert "acknowledged late" not in screen(made)


class ActingFeed(HandFeed):
    """Does what the test says."""

    def __init__(self) -> None:
        super().__init__(several())
        self.asked: list[AlertRequest] = []
        self.answer: str | Exception | None = "acknowledged"

    async def act(self, request: AlertRequest) -> str:
        self.asked.append(request)
        if isinstance(self.answer, Exception):
            raise self.answer
        if self.answer is None:
            await asyncio.Event().wait()
        return str(self.answer)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("acknowledged", " acknowledged"),
        (ValueError("this service takes no actions"), "not done: this service takes no actions"),
        (ValueError(), "not done: ValueError"),
        (None, "no answer in 0.01 s: it may have been done or not"),
    ],
)
async def test_keys_ask_and_confirm_and_the_answer_is_shown(
    answer: str | Exception | None, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = ActingFeed()
    feed.answer = answer
    app = dashboard(feed)
    if answer is None:
        monkeypatch.setattr("pool_monitor.dashboard.asking.TIMEOUT_S", 0.01)
    async with app.run_test(size=SIZE) as pilot:
        await until(lambda: "LIVE" in shown(app), app)
        await pilot.press("a", "y")
        assert feed.asked == []
        await pilot.press("A")
        assert "y yes" in shown(app)
        assert feed.asked == []
        await pilot.press("y", "y")
        await until(lambda: words in shown(app), app)
        assert [request.action for request in feed.asked] == ["ack"]
    assert app.failure is None


async def test_a_feed_that_only_shows_says_so() -> None:
    app = dashboard(HandFeed(several()))
    async with app.run_test(size=SIZE) as pilot:
        await until(lambda: "LIVE" in shown(app), app)
        await pilot.press("a", "S", "y")
        await until(lambda: "not done: this dashboard only shows" in shown(app), app)


@asynccontextmanager
async def waiting(*, actions: bool) -> AsyncIterator[Monitor]:
    """A monitor over its socket, with one alert that fires."""
    pool = Gauges("text")
    pool.of_pool["waiting"] = 5
    config = MonitorConfig(
        service=ServiceConfig(actions=actions),
        resources=ResourcesConfig(enabled=False),
        alerts=AlertsConfig(interval=3600.0, default_rules=False, log=False),
    )
    async with Monitor(pool, config=config) as monitor:
        monitor.alerts.add(Rule(alert="Waiting", threshold={"metric": "pool.waiting", "above": 3}))
        await monitor.alerts.evaluate()
        yield monitor


async def test_a_service_does_what_the_dashboard_and_the_command_ask(
    runtime_dir: Path, pool_monitor: Callable[..., Program]
) -> None:
    async with waiting(actions=True) as monitor:
        (alert,) = monitor.alerts.active()
        feed = RemoteFeed(str(monitor.address))
        assert await feed.act(AlertRequest("ack", alert, "anna")) == "acknowledged"
        (acknowledged,) = monitor.alerts.active()
        assert acknowledged.acknowledgement is not None
        assert acknowledged.acknowledgement.author == "anna"
        words = await feed.act(AlertRequest("silence", alert, "anna"))
        (silence,) = monitor.alerts.silences()
        assert words.endswith(f"pool-monitor alerts unsilence {silence.id}")
        assert monitor.alerts.active()[0].silenced
        ended = pool_monitor("alerts", "unsilence", silence.id, "--address", str(monitor.address))
        assert (await asyncio.to_thread(ended.ended)).code == 0
        assert not monitor.alerts.active()[0].silenced
        shown_now = monitor.snapshot()
        assert [found.limit for found in shown_now.alerts] == [3.0]
        assert shown_now.monitor.alerts is not None
        assert shown_now.monitor.alerts.rules == 1


async def test_a_service_that_takes_no_actions_refuses_in_words(runtime_dir: Path) -> None:
    async with waiting(actions=False) as monitor:
        with pytest.raises(ConfigError, match=r"\[service\] actions = true"):
            await RemoteFeed(str(monitor.address)).act(AlertRequest("ack", monitor.alerts.active()[0], "anna"))
        assert not monitor.alerts.active()[0].acknowledged
