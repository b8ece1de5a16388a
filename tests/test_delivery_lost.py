"""What Alertmanager loses arrives: a real service, killed for real, and a receiver that fails in every way."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import pytest

from tests.helpers import fault_server as fs
from tests.helpers.fault_server import FaultServer, Received
from tests.helpers.gates import IN_GATES
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

    def __init__(self, folder: Path, server: FaultServer) -> None:
        self.state, self.rules, self.server = folder / "state.db", folder / "rules.yaml", server
        self._nursery = controlled("tests.helpers.told_life")
        assert self._nursery.stdin
        assert self._nursery.stdout
        self._into: IO[str] = self._nursery.stdin
        self._out: IO[str] = self._nursery.stdout
        self._pid = 0
        self.write_rules()

    def write_rules(self, *, every: str = "1s", more: str = "", page: str = "false") -> None:
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
        os.kill(self._pid, signal.SIGKILL)
        while (answer := await self._answer()) != ["dead", -signal.SIGKILL]:
            assert answer == ["done"]  # it was killed after that

    async def again(self) -> None:
        await self.kill()
        await self.begin()

    async def end(self) -> None:
        print("null", file=self._into, flush=True)
        assert await self._answer() == ["ended", 0]

    async def _answer(self) -> Any:
        line = await asyncio.to_thread(self._out.readline)
        assert line, "the nursery has ended"
        return json.loads(line)

    def close(self) -> None:
        if self._pid:
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
        self._into.close()
        self._nursery.wait(10)
        self._out.close()

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
    """The messages. Those that came twice have one id and one body, and nothing else came in between."""
    found: list[Received] = []
    seen: dict[str, bytes] = {}
    for one in requests:
        name = one.json["data"]["id"]
        if name in seen:
            assert one.body == seen[name]
            assert (
                found[-1].json["data"]["id"] == name
                or one.json["data"]["group_key"] != found[-1].json["data"]["group_key"]
            )
        else:
            seen[name] = one.body
            found.append(one)
    return [one.json["data"] for one in found]


def statuses(message: Any) -> dict[str, str]:
    return {
        alert["labels"]["pool"]: "delayed" if alert.get("delayed") else alert["status"] for alert in message["alerts"]
    }


@pytest.fixture
async def lives(tmp_path: Path) -> AsyncIterator[Lives]:
    async with FaultServer() as server:
        made = Lives(tmp_path, server)
        try:
            await made.begin()
            yield made
        finally:
            made.close()


FIRST, ENDED = ("first notification", {"a": "firing"}), ("all alerts resolved", {"a": "resolved"})


async def test_an_end_is_told_after_a_kill_between_beginning_and_end(lives: Lives) -> None:
    await lives.values(a=15)
    assert await lives.hears(1) == [FIRST]
    await lives.again()
    await lives.values(a=0)
    assert await lives.hears(2) == [FIRST, ENDED]


async def test_what_was_never_delivered_is_told_once_after_a_kill_with_its_end(lives: Lives) -> None:
    lives.server.script("/ops", fs.status(503, retry_after="1000"))
    await lives.values(a=15)
    await lives.until(state="paused")
    await lives.again()
    assert (await lives.receiver())["state"] == "paused"  # the pause survives
    await lives.values(a=0)
    await lives.again()
    lives.server.script("/ops", fs.ok())
    assert await lives.does("test", "ops") == ["outcome", "sent", "", None, False]
    await lives.until(owed=0)
    assert [statuses(one) for one in once(lives.server.of("/ops"))[-2:]] in (
        [{"a": "firing"}, {"a": "delayed"}],
        [{}, {"a": "delayed"}],
    )
