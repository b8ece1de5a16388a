"""Streams of asynchronous generators, whose `yield` may stand inside of something."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import aclosing
from typing import Any

import pytest

from pool_monitor import OperationError, OperationTimeout, Pool
from tests.helpers import support
from tests.helpers.support import eventually, read

pytestmark = pytest.mark.usefixtures("no_leaks", "both_pools")


def around_pool(**fields: Any) -> Pool:
    return support.POOLS[support.made_of](
        "tests.targets.around", **{"size": 1, "timeout": 20.0, "cancel_grace": 10.0, **fields}
    )


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_what_a_generator_opens_holds_from_one_item_to_the_next(concurrency: int) -> None:
    async with around_pool(concurrency=concurrency) as pool:
        with pytest.raises(OperationError, match="TimeoutError"):
            await read(pool.stream("limited", 0.05))
        assert await read(pool.stream("beside", 3)) == [0, 1, 2]
        for text in "ab":
            assert await read(pool.stream("bound", text)) == [text, text]
        assert pool.status().restarts == 0


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_a_generator_that_is_left_closes_in_its_own_time(concurrency: int) -> None:
    async with around_pool(concurrency=concurrency) as pool:
        for size in (1, 200_000):
            for _ in range(20):
                async with aclosing(pool.stream("closing", size)) as items:
                    await anext(items)
                found: list[int] = []
                while not found:  # it goes on beside others
                    found = await pool.run("what_was_closed")
                assert found == [size]
        assert pool.status().restarts == 0


async def test_a_cancel_that_takes_its_time_does_not_come_in_the_middle_of_the_clean_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where the worker is a thread, it may be between two items as another thread begins to cancel the call."""
    schedule, sleep, cleaning = asyncio.SelectorEventLoop.call_soon_threadsafe, asyncio.sleep, threading.Event()

    def slowly(loop: Any, callback: Any, *args: Any, **more: Any) -> Any:
        if getattr(callback, "__name__", "") == "cancel":
            cleaning.wait(0.3)
        return schedule(loop, callback, *args, **more)

    async def long(seconds: float) -> None:
        if threading.current_thread().name == "inline worker":
            if seconds:  # the clean-up
                cleaning.set()
                seconds = 0.1
            else:  # between two items
                time.sleep(0.02)
        await sleep(seconds)

    monkeypatch.setattr(asyncio.SelectorEventLoop, "call_soon_threadsafe", slowly)
    monkeypatch.setattr(asyncio, "sleep", long)
    async with around_pool() as pool:
        async with aclosing(pool.stream("closing")) as items:
            await anext(items)
        closed: list[int] = []
        end = time.monotonic() + 2
        while not closed and time.monotonic() < end:
            closed = await pool.run("what_was_closed")
        assert closed == [1]


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_a_generator_that_keeps_its_cancellation_to_itself_ends_with_its_next_item(concurrency: int) -> None:
    async with around_pool(concurrency=concurrency) as pool:
        with pytest.raises(OperationTimeout):
            await read(pool.options(timeout=0.05).stream("deaf"))
        await eventually(lambda: pool.status().idle == 1)
        assert pool.status().restarts == 0
