"""A running Alertmanager as a receiver: what is posted to it, against a server that answers as scripted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import pytest

from pool_monitor.alerts.channels import alertmanager_api
from pool_monitor.alerts.channels.alertmanager_api import AlertmanagerSender
from pool_monitor.alerts.routing import AlertmanagerApi, Secret
from tests.helpers.fault_server import FaultServer, hang, status
from tests.helpers.notifications import AT, ended, notification, told
from tests.helpers.support import eventually

PATH = "/api/v2/alerts"


@asynccontextmanager
async def sending_to(server: FaultServer, base: str = "") -> AsyncIterator[AlertmanagerSender]:
    sender = AlertmanagerSender(AlertmanagerApi(url=Secret(server.url(base or "/"))))
    try:
        yield sender
    finally:
        await sender.aclose()


def posted(server: FaultServer, path: str = PATH) -> list[list[dict[str, Any]]]:
    return [json.loads(body) for body in server.bodies(path)]


def seconds(text: str) -> float:
    moment = datetime.fromisoformat(text)
    assert moment.tzinfo is not None
    return moment.timestamp()


def fires(alert: dict[str, Any]) -> bool:
    return seconds(alert["endsAt"]) > datetime.now().astimezone().timestamp()


async def test_an_alert_is_posted_as_alertmanager_reads_it():
    async with FaultServer() as server, sending_to(server, "/prefix/") as sender:
        assert (await sender.send(notification())).result == "sent"
        one = posted(server, f"/prefix{PATH}")[0][0]
    assert one["labels"] == {
        "alertname": "FailingCalls",
        "pool": "text",
        "operation": "summarize1",
        "severity": "critical",
    }
    assert one["annotations"]["summary"] == "12% of summarize1 fail"
    assert seconds(one["startsAt"]) == AT - 240
    assert fires(one)


async def test_the_end_is_posted_with_the_same_labels():
    async with FaultServer() as server, sending_to(server) as sender:
        await sender.send(notification())
        await sender.send(notification(ended()))
        first, second = posted(server)
    assert second[0]["labels"] == first[0]["labels"]
    assert seconds(second[0]["endsAt"]) == AT


async def test_a_change_of_level_ends_the_old_labels():
    async with FaultServer() as server, sending_to(server) as sender:
        await sender.send(notification(told(severity="warning")))
        await sender.send(notification(told(severity="critical")))
        states = {one["labels"]["severity"]: fires(one) for one in posted(server)[1]}
    assert states == {"warning": False, "critical": True}


async def test_the_end_of_the_old_labels_is_not_forgotten_when_its_post_failed():
    async with FaultServer() as server, sending_to(server) as sender:
        server.script(PATH, status(200), status(503), status(200))
        await sender.send(notification(told(severity="warning")))
        for expected in ("retry", "sent"):
            assert (await sender.send(notification(told(severity="critical")))).result == expected
        states = {one["labels"]["severity"]: fires(one) for one in posted(server)[-1]}
    assert states == {"warning": False, "critical": True}


async def test_an_end_before_the_beginning_is_put_right():
    async with FaultServer() as server, sending_to(server) as sender:
        await sender.send(notification(ended(starts_at=AT, ends_at=AT - 5)))
        one = posted(server)[0][0]
    assert seconds(one["endsAt"]) > seconds(one["startsAt"])


async def test_names_that_alertmanager_does_not_take_are_rewritten():
    async with FaultServer() as server, sending_to(server) as sender:
        await sender.send(notification(told(labels={"a-b": "x", "1st": "y", "empty": "", "lone": "\ud800"})))
        labels = posted(server)[0][0]["labels"]
    assert labels == {"a_b": "x", "_1st": "y", "lone": "?", "alertname": "FailingCalls", "severity": "critical"}


# -- again and again --------------------------------------------------------------------------------------------------


async def test_what_fires_is_posted_again_before_it_would_end_and_what_has_ended_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(alertmanager_api, "AGAIN_S", 0.02)
    async with FaultServer() as server, sending_to(server) as sender:
        await sender.send(notification(told(1), told(2)))
        await sender.send(notification(ended(2)))
        sent = await server.received(PATH, 5)
    states = {one["labels"]["operation"]: fires(one) for one in sent[-1].json}
    assert states == {"summarize1": True, "summarize2": False}


async def test_when_nothing_fires_and_nothing_has_just_ended_nothing_is_posted(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(alertmanager_api, "AGAIN_S", 0.01)
    monkeypatch.setattr(alertmanager_api, "ENDED_S", 0.03)
    async with FaultServer() as server, sending_to(server) as sender:
        await sender.send(notification(ended()))
        repeating = sender._repeating
        assert repeating is not None
        await eventually(repeating.done)
        assert (await sender.send(notification())).result == "sent", "it begins again"
        assert sender._repeating is not repeating


async def test_what_an_earlier_sender_has_told_is_posted_at_once():
    async with FaultServer() as server, sending_to(server) as sender:
        assert [*sender.knowing([told(1), told(2)])] == [None, None]
        body = (await server.received(PATH))[0].json
    assert [one["labels"]["operation"] for one in body] == ["summarize1", "summarize2"]
    assert all(map(fires, body))


async def test_a_sender_that_was_closed_while_it_was_told_posts_nothing():
    async with FaultServer() as server, sending_to(server) as sender:
        knowing = sender.knowing([told(1), told(2)])
        next(knowing)
        await sender.aclose()
        assert [*knowing] == [None]
        assert sender._repeating is None


async def test_a_repeat_that_fails_is_logged_once_and_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(alertmanager_api, "AGAIN_S", 0.01)
    async with FaultServer() as server, sending_to(server) as sender:
        server.script(PATH, status(200), status(503), status(503), status(503), status(200))
        await sender.send(notification())
        await server.received(PATH, 6)
    assert len(caplog.records) == 1


# -- what it does not take --------------------------------------------------------------------------------------------


def picky(bad: Callable[[dict[str, Any]], bool]) -> Callable[[FaultServer], Any]:
    """An answer that refuses a post with an alert that is *bad*, as Alertmanager does."""

    def of(server: FaultServer) -> Callable[[asyncio.StreamWriter], Awaitable[None]]:
        async def answer(writer: asyncio.StreamWriter) -> None:
            alerts = json.loads(server.bodies(PATH)[-1])
            await status(400 if any(map(bad, alerts)) else 200, b"a bad one")(writer)

        return answer

    return of


async def test_one_bad_alert_costs_no_other():
    def bad(one: dict[str, Any]) -> bool:
        return one["labels"]["operation"] == "summarize77"

    async with FaultServer() as server, sending_to(server) as sender:
        server.script(PATH, picky(bad)(server))
        outcome = await sender.send(notification(*(told(number) for number in range(300))))
        good = {one["labels"]["operation"] for alerts in posted(server) for one in alerts if not any(map(bad, alerts))}
        posts = len(posted(server))
        assert outcome.result == "refused"
        assert outcome.reason == "1 of 300: answered 400: a bad one"
        assert len(good) == 299
        assert posts <= 20
        assert (await sender.send(notification(told(1)))).result == "sent", "the bad one is forgotten"


async def test_posts_that_look_for_bad_alerts_are_bounded():
    async with FaultServer() as server, sending_to(server) as sender:
        server.script(PATH, status(400))
        outcome = await sender.send(notification(*(told(number) for number in range(300))))
        assert outcome.result == "refused"
        assert len(posted(server)) <= 80


async def test_batches_are_bounded():
    async with FaultServer() as server, sending_to(server) as sender:
        await sender.send(notification(*(told(number) for number in range(600))))
        assert [len(alerts) for alerts in posted(server)] == [256, 256, 88]


async def test_what_is_known_is_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(alertmanager_api, "KNOWN_MAX", 10)
    async with FaultServer() as server, sending_to(server) as sender:
        for number in range(30):
            await sender.send(notification(told(number)))
            await sender.send(notification(ended(number)))
        assert len(sender._states) == 10
        assert len(sender._labels) + len(sender._news) <= 10
        await sender.send(notification(*(told(number) for number in range(30))))
        assert len(sender._states) == len(sender._labels) == 10


async def test_one_that_hangs_ends_within_the_limit(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(alertmanager_api, "SEND_S", 0.1)
    async with FaultServer() as server, sending_to(server) as sender:
        server.script(PATH, hang())
        outcome = await sender.send(notification())
    assert (outcome.result, outcome.unsure) == ("retry", True)


async def test_a_refusal_of_everything_is_told(monkeypatch: pytest.MonkeyPatch):
    async with FaultServer() as server, sending_to(server) as sender:
        server.script(PATH, status(401, b"who are you"), status(200))
        outcome = await sender.send(notification(told(1), told(2)))
        assert (outcome.result, outcome.reason) == ("refused", "answered 401: who are you")
        assert (await sender.send(notification(told(3)))).result == "sent"
        assert len(posted(server)[-1]) == 3, "and what was refused goes with the next"
