"""The limits, escalations and flapping of a monitor with real receivers. Its clock is the test's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from pool_monitor.alerts.manager import AlertManager
from pool_monitor.clock import ManualClock
from tests.helpers.fault_server import FaultServer
from tests.helpers.support import eventually
from tests.helpers.told_life import ToldReader, manager_of

ALERTS, PAGES = 10_000, 20
RULES = """
rules:
  - {{alert: Slow, threshold: {{metric: pool.waiting, above: 3}}, limit: 10000, match: {{pool: "p*"}}}}
  - alert: Down
    threshold: {{metric: pool.waiting, levels: {{critical: 5}}}}
    match: {{pool: "q*"}}
route:
  receiver: ops
  group_by: [alertname, pool]
  group_wait: 0s
  group_interval: 10s
  routes: [{{match: {{severity: critical}}, receiver: pager, escalate_after: 15m, escalate_to: boss}}]
receivers:
  - {{name: ops, webhook: {{url: "{ops}"}}}}
  - {{name: pager, webhook: {{url: "{pager}"}}, page: true}}
  - {{name: boss, webhook: {{url: "{boss}"}}}}
"""


class Told:
    """A monitor's alerts, the values that they are about, and the receivers that are told."""

    def __init__(self, folder: Path, server: FaultServer) -> None:
        self.server, self.clock = server, ManualClock()
        self.reader = ToldReader(self.clock)
        self.state, self.rules = str(folder / "state.db"), folder / "rules.yaml"
        self.rules.write_text(RULES.format(**{name: server.url(f"/{name}") for name in ("ops", "pager", "boss")}))
        self.manager: AlertManager

    @asynccontextmanager
    async def life(self) -> AsyncIterator[AlertManager]:
        """A life of the service; the next goes on with the same state file."""
        self.manager = manager_of(self.state, self.rules, self.reader)
        await self.manager.open()
        try:
            yield self.manager
        finally:
            await self.manager.close()

    async def after(self, seconds: float, **values: float) -> None:
        """Evaluate after so long with these values, and wait until nothing is owed."""
        self.reader.values |= values
        self.clock.advance(seconds)
        await self.manager.evaluate()
        await eventually(lambda: self.manager.view().owed == 0, timeout=20)

    def messages(self, receiver: str) -> list[dict[str, Any]]:
        return [one.json["data"] for one in self.server.of(f"/{receiver}")]

    def reasons(self, receiver: str) -> list[str]:
        return [one["reason"] for one in self.messages(receiver)]


@pytest.fixture
async def told(tmp_path: Path) -> AsyncIterator[Told]:
    async with FaultServer() as server:
        yield Told(tmp_path, server)


async def test_a_page_that_nobody_acknowledges_reaches_the_second_receiver_once_also_over_restarts(told: Told) -> None:
    async with told.life() as manager:
        await told.after(0.0, q=6.0)
        await told.after(890.0)
        assert (told.reasons("pager"), told.reasons("boss")) == (["first notification"], [])
        [shown] = manager.active()
        assert shown.escalated_at is None
    async with told.life() as manager:
        await told.after(15.0)
        assert told.reasons("boss") == ["escalated"]
        assert "nobody acknowledged it at pager in 15m" in told.messages("boss")[0]["about"]
        [shown] = manager.active()
        assert shown.escalated_at == pytest.approx(told.clock.wall_ns() / 1e9, abs=1.0)
        await told.after(3600.0)
    async with told.life():
        await told.after(3600.0)
        assert len(told.messages("boss")) == 1
        await told.after(15.0, q=0.0)
        await told.after(15.0)
    assert told.reasons("pager")[-1] == told.reasons("boss")[-1] == "all alerts resolved"
    assert len(told.messages("boss")) == 2


async def test_an_acknowledged_page_stays_with_its_receiver_until_it_is_resolved(told: Told) -> None:
    async with told.life() as manager:
        await told.after(0.0, q=6.0)
        [shown] = manager.active()
        manager.ack(shown.fingerprint, author="anna", comment="on it")
        for _ in range(3):
            await told.after(3 * 3600.0)
        assert (len(told.messages("pager")), told.messages("boss")) == (1, [])
        await told.after(15.0, q=0.0)
        await told.after(15.0)
        await told.after(15.0, q=6.0)
        await told.after(1000.0)
        assert told.reasons("boss") == ["escalated"], "the acknowledgement ended with the alert"


async def test_an_alert_that_flaps_is_told_once_and_then_what_it_settled_to(told: Told) -> None:
    async with told.life() as manager:
        for number in range(12):
            await told.after(20.0, p=0.0 if number % 2 else 6.0)
        [shown] = manager._evaluator.shown
        assert shown.flapping
        before = len(told.messages("ops"))
        for number in range(12):
            await told.after(20.0, p=0.0 if number % 2 else 6.0)
        assert len(told.messages("ops")) == before
        last = told.messages("ops")[-1]
        [alert] = last["alerts"]
        assert (last["reason"], alert["status"], alert["flapping"]) == ("flapping", "firing", True)
        assert "lately" in alert["summary"]
        for _ in range(60):
            await told.after(60.0)
        assert told.reasons("ops")[before:] == ["all alerts resolved"]


@pytest.mark.slow
@pytest.mark.gate
async def test_ten_thousand_alerts_reach_real_receivers_in_two_digests_and_pages_one_by_one(told: Told) -> None:
    async with told.life() as manager:
        slow = {f"p{number}": 6.0 for number in range(ALERTS)}
        down = {f"q{number}": 6.0 for number in range(PAGES)}
        await told.after(0.0, **slow, **down)
        [digest] = told.messages("ops")
        assert (digest["reason"], digest["firing"], digest["groups"]) == ("digest", ALERTS, ALERTS)
        assert len(told.server.of("/ops")[0].body) < 2**17
        assert len(told.messages("pager")) == 12, "the others wait for the bucket"
        assert manager.view().held_back == PAGES - 12
        await told.after(5.0, **dict.fromkeys([*slow, *down], 0.0))
        for _ in range(15):
            await told.after(15.0)
        found = told.messages("ops")
        assert len(found) == 2
        assert (found[-1]["status"], found[-1]["resolved"]) == ("resolved", ALERTS)
        pages = told.messages("pager")
        assert all(len({alert["labels"]["pool"] for alert in one["alerts"]}) == 1 for one in pages)
        ended = [alert["labels"]["pool"] for one in pages for alert in one["alerts"] if alert["status"] == "resolved"]
        assert sorted(ended) == sorted(down)
