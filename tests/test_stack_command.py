"""Stacks over the socket of a service, and on the command line."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from pool_monitor import ConfigError, Monitor, PoolError, UnknownName
from pool_monitor.dashboard import LocalFeed
from pool_monitor.dashboard.remote import RemoteFeed
from pool_monitor.service import stacks
from pool_monitor.service.client import connected, open_client, resolve
from pool_monitor.snapshot import PoolView, WorkerView
from tests.helpers.programs import Done, Program
from tests.helpers.support import TARGETS, running
from tests.test_stacks import line, stack, stuck_pool

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="stacks are taken through /proc")

STUCK = f"{TARGETS / 'stuck.py'}:Stuck"
STACK = "/v1/pools/stuck/workers/stuck-0/stack"


async def test_the_socket_tells_the_stack_of_a_worker(runtime_dir: Path) -> None:
    async with stuck_pool() as pool, Monitor(pool) as monitor:
        task = await running(pool, "regex")
        await stack(pool)
        async with open_client(resolve(str(monitor.address))) as service:
            told = await service.stack("stuck", "stuck-0")
            assert line("regex") in (told.stack or "")
            assert told.reason is None
            for pool_name, slot in (("stuck", "stuck-9"), ("other", "stuck-0"), ("a/b?", "..%00")):
                with pytest.raises(ConfigError, match=r"no pool|no worker"):
                    await service.stack(pool_name, slot)
        task.cancel()


async def test_the_dashboard_asks_for_the_stack_from_within_and_from_another_process(runtime_dir: Path) -> None:
    async with stuck_pool() as pool, Monitor(pool) as monitor:
        task = await running(pool, "regex")
        await stack(pool)
        feeds = (LocalFeed(monitor.snapshot, stack=monitor.stack), RemoteFeed(str(monitor.address)))
        for feed in feeds:
            assert line("regex") in ((await feed.stack("stuck", "stuck-0")).stack or "")
            with pytest.raises((UnknownName, ConfigError), match="no worker"):
                await feed.stack("stuck", "stuck-9")
        task.cancel()
    with pytest.raises(PoolError, match="no socket there"):
        await feeds[1].stack("stuck", "stuck-0")


async def test_the_socket_samples_a_worker_and_refuses_what_is_too_much(runtime_dir: Path) -> None:
    async with stuck_pool() as pool, Monitor(pool) as monitor:
        task = await running(pool, "regex")
        address = resolve(str(monitor.address))
        async with open_client(address) as service, connected(address) as http:
            first = asyncio.create_task(service.stack_samples("stuck", "stuck-0", 0.3))
            await asyncio.sleep(0.1)
            assert (await http.post(STACK, params={"seconds": "0.1"})).status_code == 503
            found = await first
            assert found.samples
            assert any("regex (stuck.py:" in folded for folded in found.folded)
            for seconds in ("0", "-1", "nan", "inf", "61", "x", ""):
                assert (await http.post(STACK, params={"seconds": seconds})).status_code == 400
            assert (await http.get(STACK)).status_code == 405
        task.cancel()


async def test_sampling_ends_with_the_viewer(runtime_dir: Path) -> None:
    """Who has gone is not sampled for: the worker is left alone, and others may sample it."""
    async with stuck_pool() as pool, Monitor(pool) as monitor:
        task = await running(pool, "regex")
        address = resolve(str(monitor.address))
        async with open_client(address) as service:
            gone = asyncio.create_task(service.stack_samples("stuck", "stuck-0", 60.0))
            await asyncio.sleep(0.1)
            gone.cancel()
            await asyncio.wait([gone])
        async with connected(address) as http, asyncio.timeout(10):
            while (await http.post(STACK, params={"seconds": "0.01"})).status_code != 200:
                await asyncio.sleep(0.02)
        task.cancel()


async def test_sampling_does_not_keep_a_monitor_from_closing(runtime_dir: Path) -> None:
    async with stuck_pool() as pool:
        task = await running(pool, "regex")
        async with AsyncExitStack() as clients:
            async with Monitor(pool) as monitor:
                service = await clients.enter_async_context(open_client(resolve(str(monitor.address))))
                sampling = asyncio.create_task(service.stack_samples("stuck", "stuck-0", 60.0))
                await asyncio.sleep(0.1)
            assert (await sampling).samples  # what was seen until then
        task.cancel()


async def test_a_request_that_is_cancelled_ends() -> None:
    """A service may limit the time. An end of the request is not a failure of the pool."""

    class Slow(OtherPool):
        async def stack(self, _slot: str) -> Any:
            await asyncio.Event().wait()

    asking = asyncio.create_task(Monitor(Slow(None)).stack("other", "any"))
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking


async def test_a_mounted_app_takes_no_stacks() -> None:
    import httpx

    async with stuck_pool() as pool, Monitor(pool) as monitor:
        transport = httpx.ASGITransport(monitor.asgi())
        async with httpx.AsyncClient(transport=transport, base_url="http://mounted") as http:
            answer = await http.post(STACK)
            assert answer.status_code == 403
            assert "a mounted app takes no stacks" in answer.json()["error"]


class OtherPool:
    """A pool of another package, with a method `stack` that does what the test says."""

    name = "other"

    def __init__(self, told: Any) -> None:
        self.told = told

    def status(self) -> PoolView:
        raise NotImplementedError

    def workers(self) -> list[WorkerView]:
        return []

    async def stack(self, _slot: str) -> Any:
        if isinstance(self.told, BaseException):
            raise self.told
        return self.told


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("here\ud800", ("here\\ud800", None)),
        (None, (None, "no reason is known")),
        (b"bytes", (None, "no reason is known")),
        (ValueError("broken"), (None, "ValueError: broken")),
        (asyncio.CancelledError("its own"), (None, "CancelledError: its own")),
    ],
)
async def test_what_a_foreign_pool_tells_is_checked(told: Any, expected: Any) -> None:
    monitor = Monitor(OtherPool(told))
    found = await monitor.stack("other", "any")
    assert (found.stack, found.reason) == expected
    with pytest.raises(UnknownName, match="no pool 'nope'; there are other"):
        await monitor.stack("nope", "any")


async def test_a_pool_without_stacks_is_said_to_have_none() -> None:
    class Plain(OtherPool):
        stack: Any = None  # type: ignore[assignment]

    found = await Monitor(Plain(None)).stack("other", "any")
    assert found.reason == "pool other cannot tell what its workers do"


async def test_only_some_workers_are_sampled_at_once() -> None:
    samplings = stacks.Samplings()
    with (
        samplings.one("p", "p-0"),
        pytest.raises(PoolError, match="sampled already, by another viewer"),
        samplings.one("p", "p-0"),
    ):
        pass
    opened = [samplings.one("p", f"p-{number}") for number in range(stacks.SAMPLED_AT_ONCE)]
    for one in opened:
        one.__enter__()
    with pytest.raises(PoolError, match="workers are sampled already"), samplings.one("p", "more"):
        pass
    opened[0].__exit__(None, None, None)
    with samplings.one("p", "more"):
        pass


# -- the command ------------------------------------------------------------------------------------------------------

SERVICE = f"""
import asyncio
from pool_monitor import Monitor, Pool

async def main():
    async with Pool({STUCK!r}, name="stuck", size=3, drain_timeout=0.0) as pool, Monitor(pool) as monitor:
        await asyncio.gather(*(pool.run("ok") for _ in range(3)))
        calls = [
            asyncio.create_task(pool.options(worker="stuck-0").run("spin")),
            asyncio.create_task(pool.options(worker="stuck-1").run("wait")),
        ]
        while pool.status().busy < 2:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        print(monitor.address, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.gate
def test_the_command_tells_what_workers_are_doing(
    program: Callable[..., Program], command: Callable[..., Done], tmp_path: Path
) -> None:
    service = program("-c", SERVICE)
    assert service.process.stdout is not None
    address = service.process.stdout.readline().decode().strip()

    busy = command("stack", "-", address)
    assert busy.code == 0
    assert "stuck-0: on spin for " in busy.out
    assert line("spin") in busy.out
    assert "stuck-1: on wait for " in busy.out
    assert line("inner") in busy.out
    assert "stuck-2" not in busy.out

    one = command("stack", "stuck-2", address, "--json")
    assert one.code == 0
    assert json.loads(one.out)["workers"][0] == {
        "pool": "stuck",
        "worker": "stuck-2",
        "operation": None,
        "stack": "Main thread:\n  (not in code of the target)",
        "reason": None,
    }

    unknown = command("stack", "nope", address)
    assert unknown.code == 2
    assert "there are stuck-0, stuck-1, stuck-2" in unknown.err

    page = tmp_path / "flame.html"
    assert command("stack", "-", address, "--flame", "1s", "--output", str(page)).code == 0
    for name in ("stuck-0", "spin (stuck.py:", "stuck-1", "wait_inside (stuck.py:"):
        assert name in page.read_text()
    assert command("stack", "stuck-0", address, "--output", str(tmp_path / "no" / "file")).code == 2
    assert command("stack", "stuck-0", address, "--flame", "2m").code == 2
    assert command("stack", "stuck-0", str(tmp_path / "none.sock")).code == 3
