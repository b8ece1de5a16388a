"""A service that tells a running Alertmanager, and is killed for real in between."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.alertmanager import Alertmanager, needs_alertmanager
from tests.helpers.fault_server import FaultServer, status
from tests.helpers.support import controlled, eventually

RULES = """
version: 1
rules: [{{alert: Busy, threshold: {{metric: pool.waiting, levels: {{warning: 10, critical: 20}}}}}}]
route: {{receiver: am}}
receivers: [{{name: am, alertmanager: {{url: "{url}"}}}}]
"""
PATH = "/api/v2/alerts"


class Service:
    """A service, one life after the other, with one state file."""

    def __init__(self, nursery: subprocess.Popen[str], folder: Path) -> None:
        assert nursery.stdin is not None
        assert nursery.stdout is not None
        self._into, self._out, self._folder, self._pid = nursery.stdin, nursery.stdout, folder, 0

    async def begin(self, url: str) -> None:
        (self._folder / "rules.yaml").write_text(RULES.format(url=url))
        print(self._folder / "state.db", self._folder / "rules.yaml", file=self._into, flush=True)
        self._pid = (await self._answer())[1]

    async def does(self, *command: Any) -> Any:
        print(json.dumps(command), file=self._into, flush=True)
        return await self._answer()

    async def kill(self) -> None:
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
            self._pid = 0
            while (await self._answer())[0] != "dead":
                pass

    async def _answer(self) -> Any:
        line = await asyncio.to_thread(self._out.readline)
        assert line, "the nursery has ended"
        return json.loads(line)


@pytest.fixture(scope="module")
def nursery() -> Iterator[subprocess.Popen[str]]:
    made = controlled("tests.helpers.told_life")
    assert made.stdin is not None
    assert made.stdout is not None
    with made.stdin, made.stdout:
        yield made
        made.stdin.close()
        assert made.wait(10) == 0


@pytest.fixture
async def service(nursery: subprocess.Popen[str], tmp_path: Path) -> AsyncIterator[Service]:
    made = Service(nursery, tmp_path)
    try:
        yield made
    finally:
        await made.kill()


def states(server: FaultServer) -> list[list[tuple[str, str, bool]]]:
    """What each post has: the pool, the severity, and whether it fires."""
    return [
        [
            (a["labels"]["pool"], a["labels"]["severity"], datetime.fromisoformat(a["endsAt"]).timestamp() > now())
            for a in one.json
        ]
        for one in server.of(PATH)
    ]


def now() -> float:
    return datetime.now().astimezone().timestamp()


async def test_a_killed_service_goes_on_telling_what_fires_and_then_its_end(service: Service):
    async with FaultServer() as server:
        await service.begin(server.url(""))
        await service.does("values", {"a": 15, "b": 15})
        await server.received(PATH, 2)
        await service.kill()
        before = len(server.of(PATH))
        await service.begin(server.url(""))
        await service.does("values", {"a": 15, "b": 15})
        await server.received(PATH, before + 1)
        assert sorted(states(server)[before]) == [("a", "warning", True), ("b", "warning", True)]
        await service.does("values", {"a": 5})
        await eventually(lambda: ("a", "warning", False) in states(server)[-1])


async def test_an_end_that_could_not_be_posted_before_a_kill_is_posted_after_it(service: Service):
    async with FaultServer() as server:
        await service.begin(server.url(""))
        await service.does("values", {"a": 15})
        await server.received(PATH, 1)
        server.script(PATH, status(503))
        await service.does("values", {"a": 5})
        await server.received(PATH, 2)
        await service.kill()
        server.script(PATH, status(200))
        before = len(server.of(PATH))
        await service.begin(server.url(""))
        await eventually(lambda: [("a", "warning", False)] in states(server)[before:])


async def test_what_is_silenced_here_goes_on_there_and_its_end_is_told(service: Service):
    async with FaultServer() as server:
        await service.begin(server.url(""))
        await service.does("values", {"a": 15})
        await server.received(PATH, 1)
        await service.does("silence", {"pool": "a"})
        await service.kill()
        await service.begin(server.url(""))
        await service.does("values", {"a": 15})
        await server.received(PATH, 2)
        assert states(server)[1] == [("a", "warning", True)]
        await service.does("values", {"a": 5})
        await eventually(lambda: states(server)[-1] == [("a", "warning", False)])


@needs_alertmanager
@pytest.mark.slow
@pytest.mark.gate
async def test_a_real_alertmanager_hears_levels_and_the_end_through_a_kill(service: Service, tmp_path: Path):
    async with FaultServer() as server:
        config = {
            "route": {"receiver": "ops", "group_wait": "0s", "group_interval": "300ms"},
            "receivers": [{"name": "ops", "webhook_configs": [{"url": server.url("/told")}]}],
        }
        async with Alertmanager(tmp_path / "am", config) as manager:
            await service.begin(manager.url)
            await service.does("values", {"a": 15})
            await server.received("/told", 1)
            await service.does("values", {"a": 25})
            levels = {"warning": "resolved", "critical": "firing"}
            await eventually(lambda: tells(server, levels))
            await service.kill()
            await service.begin(manager.url)
            await service.does("values", {"a": 25})
            await service.does("values", {"a": 5})
            await eventually(lambda: tells(server, {"critical": "resolved"}))
            assert await manager.alerts() == []


def tells(server: FaultServer, wanted: dict[str, str]) -> bool:
    """Whether it has told of alerts with these severities and states in one message."""
    return any(
        {a["labels"]["severity"]: a["status"] for a in one.json["alerts"]} == wanted for one in server.of("/told")
    )
