"""Deciding about advice and changes in the dashboard: the keys reach the service, and its answer is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from pool_monitor.dashboard.remote import RemoteFeed
from pool_monitor.dashboard.tuning_actions import TuningActionName, TuningRequest
from pool_monitor.errors import ConfigError
from pool_monitor.view.advice_page import advice_rows, selected_advice
from tests.helpers import advice_samples
from tests.helpers.programs import runtime_dir
from tests.test_dashboard_app import SIZE, HandFeed, dashboard, shown, until
from tests.test_tuning_public import entered

__all__ = ["runtime_dir"]
pytestmark = pytest.mark.usefixtures("utf8")


@pytest.fixture(autouse=True)
def anna(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "anna")


class TuningHandFeed(HandFeed):
    """Keeps what it was asked to do, and explains in two lines."""

    def __init__(self) -> None:
        super().__init__(advice_samples.snapshot(*advice_samples.recommendations()))
        self.asked: list[TuningRequest] = []

    async def tune(self, request: TuningRequest) -> str:
        self.asked.append(request)
        return "because of\nthese figures" if request.action == "explain" else "approved"


async def test_keys_ask_and_confirm_and_enter_explains() -> None:
    feed = TuningHandFeed()
    app = dashboard(feed)
    async with app.run_test(size=SIZE) as pilot:
        await until(lambda: "LIVE" in shown(app), app)
        await pilot.press("t", "y", "A")
        assert "approve text: size 4 > 6 as anna?   y yes   Esc no" in shown(app)
        assert feed.asked == []
        await pilot.press("y", "y")
        await until(lambda: " approved" in shown(app), app)
        assert [(one.action, one.about) for one in feed.asked] == [("approve", "a0000001")]
        await pilot.press("enter")
        await until(lambda: "these figures" in shown(app), app)
        assert "advice" in app.viewer.opened
        await pilot.press("escape", "enter")
        assert app.viewer.opened == "overview"
    assert app.failure is None


async def test_a_feed_that_only_shows_says_so() -> None:
    app = dashboard(HandFeed(advice_samples.snapshot()))
    async with app.run_test(size=SIZE) as pilot:
        await until(lambda: "LIVE" in shown(app), app)
        await pilot.press("t", "R", "y")
        await until(lambda: "not done: this dashboard only shows" in shown(app), app)


@pytest.mark.usefixtures("runtime_dir")
async def test_a_service_does_what_the_dashboard_asks() -> None:
    async with entered() as (pool, monitor):
        feed = RemoteFeed(str(monitor.address))
        made = monitor.tuner.propose("text", "size", 3)
        await monitor.tuner.settled()

        def request(action: TuningActionName) -> TuningRequest:
            row = selected_advice(advice_rows(monitor.snapshot()), made)
            assert row is not None
            return TuningRequest(action, row, "anna")

        assert "size of pool text" in await feed.tune(request("explain"))
        assert await feed.tune(request("approve")) == "approved"
        assert pool.size == 3
        assert await feed.tune(request("rollback")) == "it is rolled back"
        assert pool.size == 2
        with pytest.raises(ConfigError, match="does not wait"):
            await feed.tune(request("reject"))
        assert Path(str(monitor.address)).exists()
