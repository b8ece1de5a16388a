"""What Alertmanager loses arrives: a real service, killed for real, and a receiver that fails in every way."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from pool_monitor.storage.state_store import read_state
from tests.helpers import fault_server as fs
from tests.helpers.fault_server import Answer, FaultServer, Received
from tests.helpers.gates import IN_GATES, in_gates
from tests.helpers.support import controlled, eventually

RULES = """
version: 1
rules:
  - {{alert: Busy, threshold: {{metric: pool.waiting, levels: {{warning: 10, critical: 20}}}}}}
route: {{receiver: ops, group_by: [alertname, pool], group_wait: 0s, group_interval: {every}, repeat_interval: 1h}}
{more}
receivers:
  - {{name: ops, webhook: {{url: "{url}"}}, fallback: [other], page: {page}}}
  - {{name: other, webhook: {{url: "{other}"}}}}
"""


class Lives:
    """A service, one life after the other, with one state file."""

    def __init__(self, nursery: subprocess.Popen[str], folder: Path, server: FaultServer) -> None:
        self.state, self.rules, self.server = folder / "state.db", folder / "rules.yaml", server
        assert nursery.stdin
        assert nursery.stdout
        self._into: IO[str] = nursery.stdin
        self._out: IO[str] = nursery.stdout
        self._pid: int | None = None
        self.write_rules()

    def write_rules(self, *, every: str = "200ms", more: str = "", page: str = "false") -> None:
        url, other = self.server.url("/ops"), self.server.url("/other")
        self.rules.write_text(RULES.format(url=url, other=other, every=every, more=more, page=page))

    async def begin(self) -> None:
        print(self.state, self.rules, file=self._into, flush=True)
        [word, self._pid] = await self._answer()
        assert word == "pid"

    async def does(self, *command: Any) -> Any:
        print(json.dumps(command), file=self._into, flush=True)
        return await self._answer()

    async def values(self, **values: float) -> None:
        assert await self.does("values", values) == ["done"]

    async def receiver(self, name: str = "ops") -> Any:
        _word, view = await self.does("view")
        return next(one for one in view["receivers"] if one["name"] == name)

    async def until(self, **fields: Any) -> Any:
        """Wait until the view of the receiver ops has these *fields*."""
        end = time.monotonic() + 20
        while (found := await self.receiver()) | fields != found:
            assert time.monotonic() < end, found
            await asyncio.sleep(0.01)
        return found

    async def kill(self) -> None:
        assert self._pid
        os.kill(self._pid, signal.SIGKILL)
        self._pid = None
        while (answer := await self._answer()) != ["dead", -signal.SIGKILL]:
            assert answer[0] != "ended"

    async def again(self) -> None:
        await self.kill()
        await self.begin()

    async def end(self) -> None:
        print("null", file=self._into, flush=True)
        assert await self._answer() == ["ended", 0]
        self._pid = None

    async def _answer(self) -> Any:
        line = await asyncio.to_thread(self._out.readline)
        assert line, "the nursery has ended"
        return json.loads(line)

    async def close(self) -> None:
        if self._pid:
            await self.kill()

    def told(self, path: str = "/ops") -> list[tuple[str, dict[str, str]]]:
        """The reason of each message, and the status of each pool in it; ``delayed`` stands for an end that comes with
        its beginning. A message that came twice is there once.
        """
        return [(one["reason"], statuses(one)) for one in once(self.server.of(path))]

    async def hears(self, count: int, path: str = "/ops") -> list[tuple[str, dict[str, str]]]:
        """Wait for so many messages, and return what they tell."""
        await eventually(lambda: len(self.told(path)) >= count, timeout=20)
        return self.told(path)


def once(requests: list[Received]) -> list[Any]:
    """The messages. Those that came twice have one id and one body, and no newer one of their group came in between."""
    seen: dict[str, bytes] = {}
    latest: dict[str, str] = {}
    found = []
    for one in requests:
        message = one.json["data"]
        name, group = message["id"], message["group_key"]
        if name in seen:
            assert (one.body, latest[group]) == (seen[name], name)
        elif message["reason"] != "test":
            found.append(message)
        seen[name], latest[group] = one.body, name
    return found


def statuses(message: Any) -> dict[str, str]:
    return {
        alert["labels"]["pool"]: "delayed" if alert.get("delayed") else alert["status"] for alert in message["alerts"]
    }


@pytest.fixture(scope="module")
def nursery() -> Iterator[subprocess.Popen[str]]:
    made = controlled("tests.helpers.told_life")
    assert made.stdin
    assert made.stdout
    with made.stdin, made.stdout:
        yield made
        made.stdin.close()
        assert made.wait(10) == 0


@pytest.fixture
async def lives(nursery: subprocess.Popen[str], tmp_path: Path) -> AsyncIterator[Lives]:
    async with FaultServer() as server:
        made = Lives(nursery, tmp_path, server)
        await made.begin()
        try:
            yield made
        finally:
            await made.close()


FIRST, ENDED = ("first notification", {"a": "firing"}), ("all alerts resolved", {"a": "resolved"})


async def test_an_end_is_told_after_a_kill_between_beginning_and_end(lives: Lives) -> None:
    await lives.values(a=15)
    assert await lives.hears(1) == [FIRST]
    await lives.again()
    await lives.values(a=0)
    assert await lives.hears(2) == [FIRST, ENDED]


async def test_what_was_never_delivered_is_told_once_after_a_kill_with_its_end(lives: Lives) -> None:
    lives.server.script("/ops", fs.status(503, retry_after="1"))
    await lives.values(a=15)
    await eventually(lambda: b"paused" in read_state(lives.state).rows["receivers"].get("ops", b""))
    await lives.again()
    assert (await lives.receiver())["state"] == "paused"  # the pause survives
    await lives.values(a=0)
    assert await lives.hears(2) == [FIRST, ("all alerts resolved", {"a": "delayed"})]
    await lives.again()
    lives.server.script("/ops", fs.ok())
    await lives.until(owed=0)
    assert len(lives.told()) == 2


@pytest.mark.parametrize(
    ("answer", "least"),
    [
        (fs.status(429, retry_after="1"), 1.0),
        in_gates(fs.status(503, retry_after="2"), 2.0),
        in_gates(fs.busy_until(2, 429), 1.0),  # a date has whole seconds
    ],
    ids=["seconds", "503", "date"],
)
async def test_no_request_is_made_before_the_receiver_wants_one(lives: Lives, answer: Answer, least: float) -> None:
    lives.server.script("/ops", answer, fs.ok())
    await lives.values(a=15)
    first, second = await lives.server.received("/ops", 2)
    assert least <= second.at - first.at
    assert await lives.hears(1) == [FIRST]


async def test_a_receiver_that_has_moved_is_not_followed_and_its_fallback_is_told(lives: Lives) -> None:
    lives.server.script("/ops", fs.moved("/elsewhere"))
    await lives.values(a=15)
    assert await lives.hears(1, "/other") == [("fallback", {"a": "firing"})]
    found = await lives.until(state="parked", owed=1, parked=1)
    assert "moved" in found["last_error"]
    assert not lives.server.of("/elsewhere")
    assert len(lives.server.of("/ops")) == 1


async def test_an_end_is_told_while_the_alert_is_silenced(lives: Lives) -> None:
    await lives.values(a=15)
    assert await lives.hears(1) == [FIRST]
    await lives.does("silence", {"pool": "a"})
    await lives.values(a=0)
    assert await lives.hears(2) == [FIRST, ENDED]


@pytest.mark.slow
@pytest.mark.gate
async def test_an_end_is_told_while_the_alert_is_inhibited(lives: Lives) -> None:
    more = "inhibit: [{source: {severity: critical}, target: {severity: warning}}]"
    lives.write_rules(more=more)
    await lives.does("reload")
    await lives.values(a=15)
    assert await lives.hears(1) == [FIRST]
    await lives.values(b=25)  # inhibits it
    await lives.hears(2)
    await lives.values(a=0)
    assert ("all alerts resolved", {"a": "resolved"}) in await lives.hears(3)


@pytest.mark.slow
@pytest.mark.gate
async def test_a_receiver_that_hangs_holds_up_no_other_and_ends_within_its_time(lives: Lives) -> None:
    lives.write_rules(more="", every="1s")
    lives.server.script("/ops", fs.hang())
    lives.rules.write_text(
        lives.rules.read_text().replace(
            "repeat_interval: 1h}", "repeat_interval: 1h, routes: [{match: {pool: b}, receiver: other}]}"
        )
    )
    await lives.does("reload")
    await lives.values(a=15)
    [asked] = await lives.server.received("/ops")
    await lives.values(a=15, b=15)
    [other] = await lives.server.received("/other")
    assert other.at - asked.at < 5
    assert lives.server.open["/ops"] == 1
    began = time.monotonic()
    await lives.end()  # it does not wait for the end of the attempt
    assert time.monotonic() - began < 5


@pytest.mark.slow
@pytest.mark.gate
async def test_a_kill_in_the_middle_of_an_attempt_sends_the_same_again(lives: Lives) -> None:
    lives.server.script("/ops", fs.hang(), fs.ok())
    await lives.values(a=15)
    await lives.server.received("/ops")
    await lives.again()
    await lives.server.received("/ops", 2)
    first, second = lives.server.of("/ops")
    assert first.body == second.body
    await lives.until(owed=0, sent=1)


@pytest.mark.slow
@pytest.mark.gate
async def test_a_receiver_that_is_gone_gets_nothing_until_its_configuration_changes(lives: Lives) -> None:
    lives.server.script("/ops", fs.status(410), fs.ok())
    await lives.values(a=15)
    await lives.until(state="gone", parked=1)
    assert await lives.hears(1, "/other") == [("fallback", {"a": "firing"})]
    await eventually(lambda: b"gone" in read_state(lives.state).rows["receivers"].get("ops", b""))
    await lives.again()
    await lives.values(a=0)
    await lives.hears(2, "/other")
    assert (await lives.receiver())["state"] == "gone"
    assert len(lives.server.of("/ops")) == 1
    lives.rules.write_text(lives.rules.read_text().replace("/ops", "/ops?changed=1"))
    await lives.does("reload")
    await lives.until(state="ready", owed=0)


async def test_a_receiver_to_whom_a_message_is_too_large_gets_a_smaller_one(lives: Lives) -> None:
    lives.server.script("/ops", fs.status(413), fs.status(413), fs.ok())
    await lives.values(a=15)
    await lives.until(owed=0, sent=1)
    large, less, least = lives.server.of("/ops")
    assert len(large.body) > len(less.body) > len(least.body)
    assert least.json["data"]["firing"] == 1
    assert least.json["data"]["id"] == large.json["data"]["id"]


# -- kills at random ----------------------------------------------------------------------------------------------

ANSWERS = [
    *[fs.ok()] * 12,
    fs.status(503, retry_after="0"),
    fs.late(0.02, fs.ok()),
    fs.late(0.01, fs.reset()),
    fs.disconnect(),
    fs.status(429, retry_after="0"),
]


class Storm:
    """Alerts that change their level again and again, and others that fire once and end. What flaps would be held."""

    def __init__(self, chance: random.Random) -> None:
        self._chance, self._lives = chance, 0
        self.values = {f"p{number}": 15.0 for number in range(8)}
        """By pool, of those that fire or have just ended."""

    def step(self) -> dict[str, float]:
        self.values = {pool: value for pool, value in self.values.items() if value}
        for number in self._chance.sample(range(8), 3):
            self.values[f"p{number}"] = self._chance.choice([15.0, 25.0])
        if self._chance.random() < 0.5:
            self.values |= {pool: 0.0 for pool in self.values if pool.startswith("q")}
            self._lives += 1
            self.values[f"q{self._lives}"] = self._chance.choice([15.0, 25.0])
        return self.values


@pytest.mark.parametrize("kills", [4, pytest.param(300, marks=[*IN_GATES, pytest.mark.timeout(300)])])
async def test_no_page_is_lost_and_no_order_is_broken_whenever_the_service_is_killed(lives: Lives, kills: int) -> None:
    moments = random.Random(kills)
    storm = Storm(moments)
    lives.write_rules(page="true")
    await lives.again()
    lives.server.script("/ops", *(moments.choice(ANSWERS) for _ in range(10_000)))
    for _ in range(kills):
        for _ in range(moments.randint(1, 3)):
            await lives.values(**storm.step())
        await asyncio.sleep(moments.choice([0.0, moments.random() / 30]))
        await lives.again()
    lives.server.script("/ops", fs.ok())
    end = time.monotonic() + 60
    while final(lives.server.of("/ops")) != expected(storm.values):
        assert time.monotonic() < end
        await lives.values(**storm.values)
        assert (await lives.does("test", "ops"))[1] == "sent"  # if the breaker is open
        await asyncio.sleep(0.5)
        await lives.again()  # with the messages of a minute
    check_order(lives.server.of("/ops"))
    assert len(once(lives.server.of("/ops"))) > kills  # or it was no storm


def final(requests: list[Received]) -> dict[str, str]:
    """What the receiver knows: the severity of what fires."""
    known = {}
    for message in once(requests):
        for alert in message["alerts"]:
            pool = alert["labels"]["pool"]
            known.pop(pool, None)
            if alert["status"] == "firing":
                known[pool] = alert["severity"]
    return known


def expected(true: dict[str, float]) -> dict[str, str]:
    return {pool: "critical" if value > 20 else "warning" for pool, value in true.items() if value > 10}


def check_order(requests: list[Received]) -> None:
    """For each alert, no life begins before the one before has ended, and none is told again after its end."""
    lives: defaultdict[str, list[str]] = defaultdict(list)  # when each began, as RFC 3339 in UTC, which sorts
    over: dict[str, str] = {}
    for message in once(requests):
        for alert in message["alerts"]:
            pool, began = alert["labels"]["pool"], alert["starts_at"]
            assert began >= max(lives[pool], default=""), "an older life after a newer one"
            assert alert["status"] == "resolved" or began > over.get(pool, ""), "firing after its end"
            lives[pool].append(began)
            if alert["status"] == "resolved":
                assert over.get(pool) != began, "its end was told twice"
                over[pool] = began
