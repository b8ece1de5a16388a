"""What Alertmanager loses arrives: a real service, killed for real, and a receiver that fails in every way."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Any

import pytest

from tests.helpers.fault_server import FaultServer, Received
from tests.helpers.support import controlled

RULES = """
version: 1
rules:
  - {{alert: Busy, threshold: {{metric: pool.waiting, levels: {{warning: 10, critical: 20}}}}}}
route: {{receiver: ops, group_by: [alertname, pool], group_wait: 0s, group_interval: 1s, repeat_interval: 1h{routes}}}
{more}
receivers:
  - {{name: ops, webhook: {{url: "{url}"}}, fallback: [other]}}
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

    def write_rules(self, *, url: str = "/ops", routes: str = "", more: str = "") -> None:
        text = RULES.format(
            url=self.server.url(url), other=self.server.url("/other"), routes=f", routes: [{routes}]", more=more
        )
        self.rules.write_text(text)

    async def begin(self) -> None:
        print(self.state, self.rules, file=self._into, flush=True)
        [word, self._pid] = await self._answer()
        assert word == "pid"

    async def does(self, *command: Any) -> Any:
        print(json.dumps(command), file=self._into, flush=True)
        return await self._answer()

    async def values(self, **values: float) -> None:
        assert await self.does("values", values) == ["done"]

    async def view(self) -> Any:
        return (await self.does("view"))[1]

    async def receiver(self, name: str = "ops") -> Any:
        return next(one for one in (await self.view())["receivers"] if one["name"] == name)

    async def kill(self) -> None:
        os.kill(self._pid, signal.SIGKILL)
        assert await self._answer() == ["dead", -signal.SIGKILL]

    async def end(self) -> None:
        assert await self.does(None) == ["ended", 0] if False else True
        print("null", file=self._into, flush=True)
        assert await self._answer() == ["ended", 0]

    async def _answer(self) -> Any:
        line = await asyncio.to_thread(self._out.readline)
        assert line, "the nursery has ended"
        return json.loads(line)

    def close(self) -> None:
        if self._pid:
            try:
                os.kill(self._pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self._into.close()
        self._nursery.wait(10)
        self._out.close()


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[Lives]:
    async with FaultServer() as server:
        lives = Lives(folder, server)
        try:
            await lives.begin()
            yield lives
        finally:
            lives.close()


@pytest.fixture
async def lives(tmp_path: Path) -> AsyncIterator[Lives]:
    async with serving(tmp_path) as made:
        yield made


def told(requests: list[Received]) -> list[tuple[str, list[tuple[str, bool]]]]:
    """The status of each message, and of its alerts whether it was delayed."""
    return [
        (
            one.json["data"]["status"],
            [(alert["status"], alert.get("delayed", False)) for alert in one.json["data"]["alerts"]],
        )
        for one in requests
    ]


async def test_a_fault_that_is_over_is_told_whatever_happens_to_the_service(lives: Lives) -> None:
    await lives.values(a=15)
    await lives.server.received("/ops", timeout=2)
    await lives.kill()
    await lives.begin()
    await lives.values(a=0)
    print(told(await lives.server.received("/ops", 2)))
    print(lives.server.of("/ops"))
    assert 0
