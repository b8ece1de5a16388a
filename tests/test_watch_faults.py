"""A watch and a heartbeat against real faults of a real service: killed, stopped, blocked."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from pool_monitor.watch.watcher import Watcher, WatchOptions
from tests.helpers.fault_server import FaultServer
from tests.helpers.programs import Program
from tests.helpers.support import eventually

SERVICE = str(Path(__file__).parent / "helpers" / "watched_service.py")
RULES = """
route: {{receiver: pager, group_interval: 1s}}
receivers: [{{name: pager, page: true, webhook: {{url: "{url}"}}}}]
"""
INTERVAL = 1.0


@pytest.fixture
async def server() -> AsyncIterator[FaultServer]:
    async with FaultServer() as server:
        yield server


@pytest.fixture
def rules(server: FaultServer, tmp_path: Path) -> Path:
    path = tmp_path / "rules.yaml"
    path.write_text(RULES.format(url=server.url("/page")))
    return path


def told(server: FaultServer) -> list[tuple[str, str, str]]:
    """What the pager was told of each alert, in order: its name, its service, and whether it fires."""
    alerts = [alert for body in server.bodies("/page") for alert in json.loads(body)["data"]["alerts"]]
    return [(one["alertname"], one["labels"]["service"], one["status"]) for one in alerts]


async def service(program: Callable[..., Program], name: str = "text", **environ: str) -> Program:
    one = program("-m", "tests.helpers.watched_service", name, environ=environ)
    assert one.process.stdout is not None
    line = await asyncio.to_thread(one.process.stdout.readline)
    assert line.strip().endswith(b".sock"), line
    return one


def obey(one: Program, order: str) -> None:
    assert one.process.stdin is not None
    os.write(one.process.stdin.fileno(), order.encode())


@contextlib.asynccontextmanager
async def watching(options: WatchOptions) -> AsyncIterator[list[str]]:
    """Watch in this process. Yields what the watch says."""
    said: list[str] = []
    task = asyncio.ensure_future(Watcher(options, said.append).run())
    try:
        yield said
    finally:
        task.cancel()
        await asyncio.wait([task])
    with contextlib.suppress(asyncio.CancelledError):
        task.result()


async def test_a_service_that_is_stopped_and_one_that_is_killed_page_once_each(
    program: Callable[..., Program], server: FaultServer, rules: Path, no_leaks: None
) -> None:
    first = await service(program)
    frozen, gone = ("ServiceFrozen", "text"), ("ServiceGone", "text")
    async with watching(WatchOptions(str(rules), interval=INTERVAL)) as said:
        await eventually(lambda: said)
        first.send(signal.SIGSTOP)
        await eventually(lambda: told(server) == [(*frozen, "firing")])
        first.send(signal.SIGCONT)
        await eventually(lambda: told(server)[1:] == [(*frozen, "resolved")])
        first.send(signal.SIGKILL)
        await eventually(lambda: told(server)[2:] == [(*gone, "firing")])
        second = await service(program)
        await eventually(lambda: told(server)[3:] == [(*gone, "resolved")])
        second.send(signal.SIGTERM)  # in order: nobody is told
        await eventually(lambda: said[-1] == "watching nothing: no service is found")
    assert len(told(server)) == 4
    first.clean_up()
    second.clean_up()
