"""Attempts as a service makes them: stored first, one at a time for each receiver, whatever a channel does."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from pool_monitor import telemetry
from pool_monitor.alerts.channels.text import subject
from pool_monitor.alerts.delivery import courier as courier_module
from pool_monitor.alerts.delivery import senders as senders_module
from pool_monitor.alerts.delivery.notification import SENT, Notification, Outcome
from pool_monitor.alerts.manager import AlertManager
from pool_monitor.errors import PoolError, UnknownName
from pool_monitor.events import ALERT_NOTIFY
from pool_monitor.snapshot import ReceiverView
from pool_monitor.storage.state import StateFile
from pool_monitor.storage.state_store import StateStore, read_state
from tests.helpers.support import eventually
from tests.helpers.told_life import ToldReader, manager_of

pytestmark = pytest.mark.usefixtures("no_leaks")
CANARY = "canary-5f1e7c"
RULES = """
version: 1
rules: [{alert: Busy, threshold: {metric: pool.waiting, above: 10}}]
route: {receiver: ops, group_by: [alertname, pool], group_wait: 0s, group_interval: 200ms}
receivers:
  - {name: ops, webhook: {url: "http://127.0.0.1:9/ops"}}
  - {name: other, webhook: {url: "http://127.0.0.1:9/other"}}
"""
OPS = '  - {name: ops, webhook: {url: "http://127.0.0.1:9/ops"}}\n'
Act = Callable[[Notification], Any]


class Channel:
    """Does what the test says for each attempt; after that, all is well."""

    kind, where = "webhook", "http://127.0.0.1:9 (00000000)"

    def __init__(self, acts: list[Act], sent: list[Notification]) -> None:
        self.acts, self.sent, self.closed = acts, sent, False

    async def send(self, notification: Notification) -> Outcome:
        assert not self.closed
        self.sent.append(notification)
        if not self.acts:
            return SENT
        made = self.acts.pop(0)(notification)
        outcome: Outcome = await made if asyncio.iscoroutine(made) else made
        return outcome

    async def aclose(self) -> None:
        self.closed = True


class Rig:
    """A real manager of alerts, whose receivers have channels of the test."""

    def __init__(self, folder: Path) -> None:
        self.state, self.rules = folder / "state.db", folder / "rules.yaml"
        self.rules.write_text(RULES)
        self.acts: list[Act] = []
        self.sent: list[Notification] = []
        self.channels = defaultdict[str, list[Channel]](list)
        self.reader = ToldReader()

    def sender_of(self, receiver: Any) -> Channel:
        made = Channel(self.acts if receiver.name == "ops" else [], self.sent)
        self.channels[receiver.name].append(made)
        return made

    @asynccontextmanager
    async def running(self) -> AsyncIterator[AlertManager]:
        manager = manager_of(str(self.state), self.rules, self.reader)
        manager._evaluator.delivery._accounts.outbox._chance = lambda: 0.05  # of the longest pause
        await manager.open()
        try:
            yield manager
        finally:
            await manager.close()

    async def values(self, manager: AlertManager, **values: float) -> None:
        self.reader.values |= values
        await manager.evaluate()

    async def reload(self, manager: AlertManager, old: str, new: str) -> None:
        assert old in self.rules.read_text()
        self.rules.write_text(self.rules.read_text().replace(old, new))
        await manager.reload()
        await manager.settled()

    def told(self) -> list[tuple[str, str, list[str]]]:
        return [(one.receiver, one.reason, [alert.status for alert in one.alerts]) for one in self.sent]


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rig:
    made = Rig(tmp_path)
    monkeypatch.setattr(senders_module, "sender_of", made.sender_of)
    return made


@pytest.fixture
def events() -> Iterator[list[telemetry.CapturedEvent]]:
    with telemetry.capture(("alert", "notify")) as captured:
        yield captured
    for event in captured:
        assert ALERT_NOTIFY.problems(event.measurements, event.metadata) == []


def ops(manager: AlertManager) -> ReceiverView:
    return next(one for one in manager.view().receivers if one.name == "ops")


async def settled(manager: AlertManager, **fields: Any) -> ReceiverView:
    """Wait until the view of the receiver ops has these *fields*."""
    await eventually(lambda: all(getattr(ops(manager), name) == value for name, value in fields.items()))
    return ops(manager)


def answer(result: Any, reason: str = "why", **fields: Any) -> Act:
    return lambda _: Outcome(result, reason, **fields)


# -- attempts ---------------------------------------------------------------------------------------------------------


async def test_each_attempt_is_an_event_and_counted(rig: Rig, events: list[telemetry.CapturedEvent]) -> None:
    rig.acts += [answer("retry", "answered 503", retry_after=0.0)]
    async with rig.running() as manager:
        await rig.values(manager, a=15)
        found = await settled(manager, sent=1, owed=0)
        assert (found.failed, found.state, found.last_error, found.where) == (1, "ready", None, Channel.where)
        view = manager.view()
        assert (view.owed, view.lost, view.oldest_debt) == (0, 0, None)
        assert view.notified_age is not None
    first, second = events
    assert (first.metadata["result"], first.metadata["error"], first.measurements["retry_after"]) == (
        "retry",
        "answered 503",
        0,
    )
    assert (second.metadata["result"], second.metadata["error"]) == ("sent", "")
    assert [one.measurements["attempt"] for one in events] == [1, 2]
    assert first.metadata["id"] == second.metadata["id"] == rig.sent[0].id
    assert second.metadata["channel"] == "webhook"


async def test_a_channel_that_raises_is_tried_again_and_its_error_not_repeated(
    rig: Rig, events: list[telemetry.CapturedEvent], caplog: pytest.LogCaptureFixture
) -> None:
    def crash(_: Notification) -> Outcome:
        raise RuntimeError(f"https://user:{CANARY}@example")

    rig.acts += [crash] * 2
    async with rig.running() as manager:
        await rig.values(manager, a=15)
        found = await settled(manager, failed=1)
        assert found.last_error == "the channel failed: RuntimeError"
        await settled(manager, owed=0)
    assert CANARY not in repr(events) + caplog.text


async def leaves(_: Notification) -> Outcome:
    raise asyncio.CancelledError


async def hangs(_: Notification) -> Outcome:
    await asyncio.Event().wait()
    return SENT


@pytest.mark.parametrize(("act", "words"), [(leaves, "cancelled"), (hangs, "not ended")])
async def test_a_channel_that_hangs_or_leaves_is_tried_again(
    rig: Rig, act: Act, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(senders_module, "ATTEMPT_S", 0.05)
    rig.acts += [act]
    async with rig.running() as manager:
        await rig.values(manager, a=15)
        assert words in ((await settled(manager, failed=1)).last_error or "")
        await settled(manager, owed=0)
        manager.tick()


async def test_a_defect_of_the_courier_is_reported(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> Outcome:
        raise RuntimeError("a defect")

    monkeypatch.setattr(senders_module.Senders, "send", broken)
    async with rig.running() as manager:
        await rig.values(manager, a=15)
        with pytest.raises(RuntimeError, match="a defect"):
            await eventually(manager.tick)
    async with rig.running() as manager:  # as the runner does
        assert ops(manager).owed == 1


# -- storing ----------------------------------------------------------------------------------------------------------


async def test_nothing_is_sent_before_it_is_stored(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    stored, real = asyncio.Event(), StateFile.commit

    async def slow(self: StateFile, *changes: Any) -> bool:
        done = await real(self, *changes)
        await stored.wait()
        return done

    async with rig.running() as manager:
        await manager.settled()
        monkeypatch.setattr(StateFile, "commit", slow)
        evaluating = asyncio.create_task(rig.values(manager, a=15))
        try:
            await eventually(lambda: ops(manager).owed)
            await eventually(lambda: read_state(rig.state).rows["outbox"])
            for _ in range(10):
                await asyncio.sleep(0)
            assert rig.sent == []
        finally:
            stored.set()
            await evaluating
        await settled(manager, sent=1)


async def test_what_has_arrived_is_stored_without_an_evaluation(rig: Rig) -> None:
    async with rig.running() as manager:
        await rig.values(manager, a=15)
        await settled(manager, sent=1)
        await eventually(lambda: not read_state(rig.state).rows["outbox"])
        assert manager.view().evaluations == 1


async def test_messages_go_out_when_nothing_can_be_stored(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    async with rig.running() as manager:
        monkeypatch.setattr(StateStore, "write", full)
        await rig.values(manager, a=15)
        await settled(manager, sent=1, owed=0)
        assert manager.view().state_degraded
        await rig.values(manager, a=0)
        await settled(manager, sent=2, owed=0)
        monkeypatch.undo()


@pytest.mark.parametrize("ends", [True, False])
async def test_leaving_waits_a_moment_for_an_attempt(rig: Rig, monkeypatch: pytest.MonkeyPatch, *, ends: bool) -> None:
    going_on = asyncio.Event()

    async def late(_: Notification) -> Outcome:
        await going_on.wait()
        return SENT

    monkeypatch.setattr(courier_module, "LEAVE_S", 10.0 if ends else 0.02)
    rig.acts += [late]
    async with rig.running() as manager:
        await rig.values(manager, a=15)
        await eventually(lambda: rig.sent)
        if ends:
            asyncio.get_running_loop().call_later(0.05, going_on.set)
    assert len(read_state(rig.state).rows["outbox"]) == (not ends)
    async with rig.running() as manager:
        await settled(manager, owed=0)
    assert [one.id for one in rig.sent] == [rig.sent[0].id] * (1 if ends else 2)


# -- other rules ------------------------------------------------------------------------------------------------------


async def test_the_same_file_read_again_says_nothing(rig: Rig) -> None:
    async with rig.running() as manager:
        await rig.values(manager, a=15)
        await settled(manager, sent=1)
        await rig.reload(manager, "rules:", "rules:  # read again")
        await rig.values(manager)
        assert len(rig.sent) == len(rig.channels["ops"]) == 1


async def test_a_receiver_that_is_no_longer_named_is_told_the_end_by_the_sender_it_had(rig: Rig) -> None:
    async with rig.running() as manager:
        await rig.values(manager, a=15)
        await settled(manager, sent=1)
        channel = rig.channels["ops"][0]
        rig.rules.write_text(RULES.replace("receiver: ops", "receiver: other").replace(OPS, ""))
        await manager.reload()
        await manager.settled()
        await eventually(lambda: len(rig.sent) == 3)
        assert sorted(rig.told()[1:]) == [
            ("ops", "all alerts resolved", ["resolved"]),
            ("other", "first notification", ["firing"]),
        ]
        assert {one.alerts[0].reason for one in rig.sent} == {"", "route_changed"}
        await rig.values(manager)
        await eventually(lambda: channel.closed)
        assert {one.name for one in manager.view().receivers} == {"log", "other"}
        delivery = manager._evaluator.delivery
        assert {*delivery._senders._locks} == {name for name, _ in delivery._counts} == {"other"}, (
            "nothing is kept of it"
        )


async def test_a_receiver_with_a_new_address_gets_what_it_is_owed_there(rig: Rig) -> None:
    rig.acts += [answer("refused", "answered 404")]
    async with rig.running() as manager:
        await rig.values(manager, a=15)
        await settled(manager, state="parked", parked=1)
        await rig.reload(manager, "9/ops", "9/new")
        await settled(manager, state="ready", owed=0)
        assert [channel.closed for channel in rig.channels["ops"]] == [True, False]


async def test_what_a_receiver_that_is_gone_from_the_file_was_owed_is_lost_and_said(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.acts += [answer("refused", "answered 404")]
    async with rig.running() as manager:
        await rig.values(manager, a=15)
        await settled(manager, parked=1)
    rig.rules.write_text(RULES.replace("name: ops", "name: new").replace("receiver: ops", "receiver: new"))
    async with rig.running() as manager:
        await rig.values(manager)
        await eventually(lambda: "a notification is lost" in caplog.text)
        assert "in no file of rules" in caplog.text
        await eventually(lambda: ("new", "first notification", ["firing"]) in rig.told())


# -- a test of a receiver ---------------------------------------------------------------------------------------------


async def test_a_receiver_can_be_tried_and_is_then_told_what_it_is_owed(rig: Rig) -> None:
    rig.acts += [answer("refused", "answered 401"), answer("refused", "answered 401")]
    async with rig.running() as manager:
        await rig.values(manager, a=15)
        await settled(manager, parked=1)
        assert await manager.test_receiver("ops") == Outcome("refused", "answered 401")
        assert ops(manager).parked == 1
        assert (await manager.test_receiver("ops")).result == "sent"
        await settled(manager, owed=0, state="ready")
        tests = [one for one in rig.sent if one.reason == "test"]
        assert [subject(one)[:6] for one in tests] == ["[TEST]"] * 2
        assert "This is a test" in tests[0].alerts[0].annotations["summary"], "some formats have no other text"
        with pytest.raises(UnknownName, match="log, ops, other"):
            await manager.test_receiver("nobody")
    with pytest.raises(PoolError):
        await manager.test_receiver("ops")
