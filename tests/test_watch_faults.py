"""A watch and a heartbeat against real faults of a real service: killed, stopped, blocked."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from pool_monitor.errors import ConfigError
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


FROZEN, GONE, STALE = ("ServiceFrozen", "text"), ("ServiceGone", "text"), ("ServiceStale", "text")


@pytest.mark.slow
@pytest.mark.gate
async def test_a_service_that_is_stopped_and_one_that_is_killed_page_once_each(
    program: Callable[..., Program], server: FaultServer, rules: Path, no_leaks: None
) -> None:
    one = await service(program)
    async with watching(WatchOptions(str(rules), interval=INTERVAL)) as said:
        await eventually(lambda: said == ["watching text"])
        one.send(signal.SIGSTOP)
        await eventually(lambda: told(server) == [(*FROZEN, "firing")])
        one.send(signal.SIGCONT)
        await eventually(lambda: told(server)[1:] == [(*FROZEN, "resolved")])
        one.send(signal.SIGKILL)
        await eventually(lambda: told(server)[2:] == [(*GONE, "firing")])
    one.clean_up()


async def test_two_watches_with_one_state_are_refused_and_so_is_a_file_that_tells_nobody(
    rules: Path, runtime_dir: Path, tmp_path: Path, no_leaks: None
) -> None:
    options = WatchOptions(str(rules), interval=INTERVAL, state=tmp_path / "watch.db")
    async with watching(options) as said:
        await eventually(lambda: said)
        with pytest.raises(ConfigError, match=r"watch\.db"):
            await Watcher(options).run()
    rules.write_text("rules: []")
    with pytest.raises(ConfigError, match="has no route"):
        await Watcher(options).run()


@pytest.mark.slow
@pytest.mark.gate
async def test_every_fault_pages_once_and_ends_the_beats(
    program: Callable[..., Program],
    pool_monitor: Callable[..., Program],
    server: FaultServer,
    rules: Path,
    tmp_path: Path,
    no_leaks: None,
) -> None:
    beats = {"BEAT_URL": server.url("/beat")}
    first = await service(program, **beats)
    options = ("watch", "text", "--rules", rules, "--interval", "1s", "--state", tmp_path / "deep" / "watch.db")
    watch = pool_monitor(*options, "--heartbeat-env", "WATCH_URL", environ={"WATCH_URL": server.url("/watch")})
    await server.received("/watch")
    await server.received("/beat")

    # A blocked loop and a stopped process: one page, and no beats once the last pulse is old.
    for number, fault in enumerate(["block", "stop"]):
        began = time.monotonic()
        obey(first, "block 6") if fault == "block" else first.send(signal.SIGSTOP)
        await eventually(lambda: told(server)[2 * number :] == [(*FROZEN, "firing")])  # noqa: B023
        if fault == "stop":
            await asyncio.sleep(began + 6 - time.monotonic())
            first.send(signal.SIGCONT)
        await eventually(lambda: told(server)[2 * number + 1 :] == [(*FROZEN, "resolved")])  # noqa: B023
        count = len(server.of("/beat"))
        await server.received("/beat", count + 1)
        assert not [one for one in server.of("/beat") if began + 4.5 < one.at < began + 5.9]

    # A part that fails: the beats say so, and the watch does.
    obey(first, "degrade")
    failing = await server.received("/beat/fail")
    assert failing[0].json["reasons"] == ["history is degraded: disk full"]
    await eventually(lambda: told(server)[4:] == [(*STALE, "firing")])
    obey(first, "recover")
    await eventually(lambda: told(server)[5:] == [(*STALE, "resolved")])

    # The watch is killed after it has told of a service that is gone: the next one neither tells it again nor forgets.
    first.send(signal.SIGKILL)
    await eventually(lambda: told(server)[6:] == [(*GONE, "firing")])
    watch.send(signal.SIGKILL)
    await asyncio.to_thread(watch.ended)
    first.clean_up()
    again = pool_monitor(*options)
    assert again.process.stdout is not None
    await asyncio.to_thread(again.process.stdout.readline)
    count = len(server.of("/beat"))
    new = await service(program, **beats)
    await server.received("/beat", count + 1)
    await eventually(lambda: told(server)[7:] == [(*GONE, "resolved")])

    # In order: the last beat says so. Who was asked for by name may not leave.
    new.send(signal.SIGTERM)
    assert (await asyncio.to_thread(new.ended)).code == 0
    assert server.of("/beat")[-1].json["status"] == "stopping"
    await eventually(lambda: told(server)[8:] == [(*GONE, "firing")])
    again.send(signal.SIGTERM)
    assert (await asyncio.to_thread(again.ended)).code == 0


@pytest.mark.slow
@pytest.mark.timeout(4000)
async def test_a_healthy_service_under_load_pages_nobody(
    program: Callable[..., Program], server: FaultServer, rules: Path
) -> None:
    """For ten minutes; for WATCH_HEALTHY_S seconds, if that is set. With -s, it prints figures."""
    seconds = float(os.environ.get("WATCH_HEALTHY_S", "600"))
    names = ["text", "speech", "image"]
    running = [await service(program, name, BEAT_URL=server.url(f"/beat/{name}"), LOAD="1") for name in names]
    async with watching(WatchOptions(str(rules), interval=15.0)) as said:
        await asyncio.sleep(seconds)
        counts = {name: len(server.of(f"/beat/{name}")) for name in names}
        failed = {name: len(server.of(f"/beat/{name}/fail")) for name in names}
        print(f"{seconds:.0f} s: messages {len(server.of('/page'))}, beats {counts}, of failures {failed}, said {said}")
        assert told(server) == []
        assert set(failed.values()) == {0}
        gaps = {
            name: max(b.at - a.at for a, b in itertools.pairwise(found))
            for name in names
            if len(found := server.of(f"/beat/{name}")) > 1
        }
        print(f"the longest time between two beats: {gaps}")
    for one in running:
        one.send(signal.SIGTERM)
        await asyncio.to_thread(one.ended)
