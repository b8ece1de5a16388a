"""A real Alertmanager as a receiver, where one is installed."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pool_monitor.alerts.channels import alertmanager_api
from pool_monitor.alerts.channels.alertmanager_api import AlertmanagerSender
from pool_monitor.alerts.channels.formats import FORMATS
from pool_monitor.alerts.routing import AlertmanagerApi, Secret
from tests.helpers.alertmanager import Alertmanager, needs_alertmanager
from tests.helpers.fault_server import FaultServer
from tests.helpers.notifications import ended, notification, told
from tests.helpers.support import eventually

pytestmark = [needs_alertmanager, pytest.mark.slow, pytest.mark.gate]


def quick(url: str, interval: str) -> dict[str, object]:
    """A configuration that tells *url* at once, and of changes after an *interval*."""
    return {
        "route": {"receiver": "ops", "group_by": ["alertname"], "group_wait": "0s", "group_interval": interval},
        "receivers": [{"name": "ops", "webhook_configs": [{"url": url}]}],
    }


class Rig:
    """An Alertmanager, and whom it tells."""

    def __init__(self, manager: Alertmanager, server: FaultServer) -> None:
        self.manager, self.server = manager, server

    def sender(self) -> AlertmanagerSender:
        return AlertmanagerSender(AlertmanagerApi(url=Secret(self.manager.url)))

    @property
    def told(self) -> list[Any]:
        """What it has told."""
        return [one.json for one in self.server.of("/told")]

    async def tells(self, wanted: Callable[[Any], bool], after: int = 0) -> Any:
        """Wait until it tells something like that, after so many messages."""
        return await eventually(lambda: next(filter(wanted, self.told[after:]), None), timeout=20)

    async def states(self) -> dict[str, str]:
        """The state of each alert that it has, by operation."""
        return {one["labels"]["operation"]: one["status"]["state"] for one in await self.manager.alerts()}

    async def has(self, **states: str) -> None:
        """Wait until it has exactly these alerts."""
        while await self.states() != states:
            await asyncio.sleep(0.05)

    async def ends_at(self) -> float:
        """When the only alert that it has ends, as far as it knows."""
        (one,) = await self.manager.alerts()
        return datetime.fromisoformat(one["endsAt"]).timestamp()


@asynccontextmanager
async def rig(folder: Path, interval: str = "300ms") -> AsyncIterator[Rig]:
    async with FaultServer() as server, Alertmanager(folder, quick(server.url("/told"), interval)) as manager:
        yield Rig(manager, server)


def firing(body: Any) -> bool:
    return bool(body["status"] == "firing")


def resolved(body: Any) -> bool:
    return bool(body["status"] == "resolved")


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is posted again often, and ends soon otherwise."""
    monkeypatch.setattr(alertmanager_api, "AGAIN_S", 0.2)
    monkeypatch.setattr(alertmanager_api, "ENDS_AFTER_S", 3.0)


async def test_it_tells_what_fires_for_as_long_as_it_is_repeated_and_then_its_end(tmp_path: Path, often: None) -> None:
    async with rig(tmp_path) as here:
        sender = here.sender()
        assert (await sender.send(notification())).result == "sent"
        body = await here.tells(firing)
        assert body["alerts"][0]["labels"] == {**told().labels, "alertname": "FailingCalls"}
        first_end = await here.ends_at()
        while now() < first_end:
            await asyncio.sleep(0.05)
        assert not any(map(resolved, here.told)), "it was posted again before its end"
        assert (await sender.send(notification(ended(ends_at=now())))).result == "sent"
        assert (await here.tells(resolved))["alerts"][0]["labels"] == body["alerts"][0]["labels"]
        await sender.aclose()


def now() -> float:
    return datetime.now(UTC).timestamp()


async def test_what_is_not_repeated_ends_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alertmanager_api, "ENDS_AFTER_S", 1.5)
    async with rig(tmp_path) as here:
        sender = here.sender()
        await sender.send(notification())
        await sender.aclose()
        await here.tells(firing)
        await here.tells(resolved)


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGKILL])
async def test_after_a_restart_of_theirs_it_has_all_again(tmp_path: Path, often: None, by: signal.Signals) -> None:
    async with rig(tmp_path) as here:
        sender = here.sender()
        await sender.send(notification(told(1), told(2)))
        await here.tells(firing)
        await here.manager.stop(by)
        assert (await sender.send(notification(ended(2, ends_at=now())))).result == "retry"
        await here.manager.start()
        await here.has(summarize1="active")
        await sender.aclose()


async def test_an_end_is_heard_also_if_it_restarts_before_it_has_told_it(tmp_path: Path, often: None) -> None:
    async with rig(tmp_path, interval="1h") as here:
        sender = here.sender()
        await sender.send(notification())
        await here.tells(firing)
        assert (await sender.send(notification(ended(ends_at=now())))).result == "sent"
        await here.manager.stop()
        assert not any(map(resolved, here.told))
        await here.manager.start()
        await here.tells(resolved)
        await sender.aclose()


async def test_after_a_restart_of_ours_it_goes_on(tmp_path: Path, often: None) -> None:
    async with rig(tmp_path) as here:
        sender = here.sender()
        await sender.send(notification())
        await here.tells(firing)
        await sender.aclose()
        before = await here.ends_at()
        sender = here.sender()
        sender.knows([told()])
        while await here.ends_at() == before:
            await asyncio.sleep(0.05)
        assert not any(map(resolved, here.told))
        await sender.send(notification(ended(ends_at=now())))
        await here.tells(resolved)
        await sender.aclose()


async def test_a_change_of_level_is_one_alert_that_ends_and_one_that_fires(tmp_path: Path, often: None) -> None:
    async with rig(tmp_path) as here:
        sender = here.sender()
        await sender.send(notification(told(severity="warning")))
        await here.tells(firing)
        await sender.send(notification(told(severity="critical")))
        states = {"critical": "firing", "warning": "resolved"}
        await here.tells(lambda body: states == {a["labels"]["severity"]: a["status"] for a in body["alerts"]})
        await here.has(summarize1="active")
        assert [one["labels"]["severity"] for one in await here.manager.alerts()] == ["critical"]
        await sender.aclose()


async def test_its_own_silences_count(tmp_path: Path, often: None) -> None:
    async with rig(tmp_path) as here:
        at = datetime.now(UTC)
        silence = await here.manager.silence({"pool": "text"}, at, at + timedelta(hours=1))
        sender = here.sender()
        await sender.send(notification())
        await here.has(summarize1="suppressed")
        assert here.told == []
        await here.manager.unsilence(silence)
        await here.tells(firing)
        await sender.aclose()


async def test_an_alert_that_it_does_not_take_costs_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alertmanager_api, "_name", lambda name: name)
    async with rig(tmp_path) as here:
        sender = here.sender()
        bad = told(3, labels={"no-name": "x", "operation": "summarize3"})
        outcome = await sender.send(notification(told(1), told(2), bad, told(4)))
        assert outcome.result == "refused"
        assert outcome.reason.startswith("1 of 4: answered 400")
        await here.has(summarize1="active", summarize2="active", summarize4="active")
        await sender.aclose()


async def test_many_alerts_arrive(tmp_path: Path) -> None:
    async with rig(tmp_path) as here:
        sender = here.sender()
        assert (await sender.send(notification(*(told(number) for number in range(1000))))).result == "sent"
        await here.has(**{f"summarize{number}": "active" for number in range(1000)})
        await sender.aclose()


# -- its own messages, and ours in its format -------------------------------------------------------------------------


async def test_what_it_tells_and_our_format_have_the_same_shape(tmp_path: Path, often: None) -> None:
    async with rig(tmp_path) as here:
        sender = here.sender()
        for one in (notification(told(1), told(2)), notification(told(1), ended(2, ends_at=now()))):
            await sender.send(one)
            wanted = sorted(alert.status for alert in one.alerts)
            theirs = await here.tells(lambda body, wanted=wanted: sorted(a["status"] for a in body["alerts"]) == wanted)
            ours = json.loads(FORMATS["alertmanager"].body(one, ""))
            assert shape(ours) == shape(theirs)
            for key in ("status", "commonLabels", "commonAnnotations", "groupLabels", "groupKey", "version"):
                assert ours[key] == theirs[key], key
            assert by_labels(ours) == by_labels(theirs)
        await sender.aclose()


def shape(value: Any, of: str = "") -> Any:
    """The keys in their order, and the form of each value."""
    if of.lower().endswith(("labels", "annotations")):
        return {type(one) for one in value.values()} <= {str}
    if isinstance(value, dict):
        return [(key, shape(one, key)) for key, one in value.items()]
    if isinstance(value, list):
        return [shape(one) for one in value]
    if of in ("startsAt", "endsAt"):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", value)
        return value if value.startswith("0001") else "time"
    return type(value)


def by_labels(body: Any) -> Any:
    """Each alert with what does not depend on when it was posted."""
    return sorted(
        (sorted(one["labels"].items()), one["status"], sorted(one["annotations"].items()), one["startsAt"][:19])
        for one in body["alerts"]
    )
