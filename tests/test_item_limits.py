"""Limits of the time to the first item of a stream, and from each item to the next."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from pool_monitor import ConfigError, OperationTimeout, QueueTimeout
from pool_monitor.config import PoolConfig
from pool_monitor.pool.call import Call, Options
from pool_monitor.pool.stream_buffer import STREAM_HIGH, STREAM_LOW
from pool_monitor.pool.worker import Worker
from tests.helpers.fakes import FakePool
from tests.helpers.support import ops_pool, read
from tests.helpers.virtual import clock, run


class Stream:
    """One stream on a fake worker, on virtual time."""

    def __init__(self, pool: FakePool, **options: Any) -> None:
        self.pool, self.calls = pool, pool.calls
        self.call: Call = pool.calls.admit("work", (), {}, Options(**options), stream=True)
        assert self.call.items is not None
        self.items = self.call.items

    @property
    def worker(self) -> Worker:
        return next(iter(self.calls.workers.values()))

    def give(self, count: int = 1) -> None:
        for number in range(count):
            self.calls.item(self.worker, self.call.id, number, 1)

    def take(self, count: int = 1) -> None:
        for _ in range(count):
            _, go_on = self.items.take()
            if go_on:
                self.calls.read_on(self.call)

    async def ended(self) -> tuple[float, str]:
        """Return when the stream ended, and the error."""
        await asyncio.wait([self.call.future])
        error = self.call.future.exception()
        assert error is not None
        return round(clock().time(), 3), f"{type(error).__name__}: {error}"


def played(scene: Callable[[FakePool], Awaitable[Any]], size: int = 1, **fields: Any) -> Any:
    async def scened() -> Any:
        config = PoolConfig(**{"timeout": 1000.0, "first_item_timeout": 2.0, "item_timeout": 1.0, **fields})
        pool = FakePool(size, config, now_ns=clock().time_ns)
        try:
            return await scene(pool)
        finally:
            pool.calls.close()

    return run(scened())


def test_a_stream_that_gives_nothing_ends_at_the_limit_for_its_first_item() -> None:
    async def scene(pool: FakePool) -> Any:
        stream = Stream(pool)
        ended = await stream.ended()
        assert pool.transport(stream.worker).cancelled == {stream.call.id}, "its worker is to be free again"
        return ended

    text = "OperationTimeout: work gave no first item within its first_item_timeout of 2 s, on fake-0"
    assert played(scene) == (2.0, text)


def test_a_pause_after_an_item_ends_it_and_what_came_before_is_there() -> None:
    async def scene(pool: FakePool) -> Any:
        stream = Stream(pool)
        for pause in (1.9, 0.9, 0.9):
            await asyncio.sleep(pause)
            stream.give()
        ended = await stream.ended()
        assert len(stream.items.buffer) == 3
        return ended

    text = "OperationTimeout: work gave nothing after item 3 within its item_timeout of 1 s, on fake-0"
    assert played(scene) == (4.7, text)


def test_each_limit_holds_without_the_other() -> None:
    async def scene(pool: FakePool) -> Any:
        stream = Stream(pool)
        await asyncio.sleep(1.5)
        stream.give()
        return await stream.ended()

    assert played(scene, first_item_timeout=None)[0] == 2.5
    at, text = played(scene, item_timeout=None, timeout=50.0)
    assert (round(at), text) == (50, "OperationTimeout: work was not done within its timeout of 50 s, on fake-0")


def test_a_call_may_bring_limits_of_its_own() -> None:
    async def scene(pool: FakePool) -> Any:
        return await Stream(pool, first_item_timeout=5.0).ended()

    assert played(scene)[0] == 5.0


def test_a_slow_reader_ends_no_stream() -> None:
    async def scene(pool: FakePool) -> Any:
        stream = Stream(pool)
        stream.give(STREAM_HIGH)
        await asyncio.sleep(100)
        stream.give()  # an item that was on its way
        await asyncio.sleep(100)
        assert not stream.call.done
        stream.take(STREAM_HIGH + 1 - STREAM_LOW)  # the worker may go on: the limit counts from now
        return await stream.ended()

    assert played(scene)[0] == 201.0


def test_an_item_on_its_way_to_a_slow_reader_does_not_begin_a_pause() -> None:
    async def scene(pool: FakePool) -> Any:
        stream = Stream(pool)
        stream.give(STREAM_HIGH)
        stream.take(STREAM_HIGH - STREAM_LOW - 5)  # too few for the worker to go on
        stream.give()
        await asyncio.sleep(100)
        assert not stream.call.done
        stream.take(6)
        return await stream.ended()

    assert played(scene)[0] == 101.0


def test_items_that_wait_for_their_reader_do_not_lengthen_the_pause() -> None:
    async def scene(pool: FakePool) -> Any:
        stream = Stream(pool)
        stream.give(5)
        await asyncio.sleep(0.9)
        stream.take(5)
        return await stream.ended()

    assert played(scene)[0] == 1.0


def test_the_limit_for_the_first_item_covers_the_wait_for_a_worker() -> None:
    async def scene(pool: FakePool) -> Any:
        first = Stream(pool)
        second = Stream(pool)
        ended = await second.ended()
        assert not first.call.done or first.call.future.done()
        return ended

    at, text = played(scene, shed=False)
    assert at == 2.0
    assert text.startswith(QueueTimeout.__name__)


def test_a_stream_begun_again_has_its_time_from_the_first_beginning_if_it_gave_nothing() -> None:
    async def scene(pool: FakePool, given: int) -> Any:
        stream = Stream(pool, idempotent=True)
        pool.transport(stream.worker).begin()
        stream.give(given)
        await asyncio.sleep(0.5)
        pool.die(stream.worker)
        pool.start(stream.worker)
        return await stream.ended()

    at, text = played(lambda pool: scene(pool, 0))
    assert (at, text.split(" within")[0]) == (2.0, "OperationTimeout: work gave no first item")
    at, text = played(lambda pool: scene(pool, 3))  # items that the reader has not read
    assert (at, text.split(" within")[0]) == (2.5, "OperationTimeout: work gave no first item")


def test_a_stream_that_has_ended_leaves_no_timer() -> None:
    async def scene(pool: FakePool) -> Any:
        stream = Stream(pool)
        stream.give()
        pool.reply(stream.worker)
        timers = [timer for timer in clock()._scheduled if not timer.cancelled()]  # type: ignore[attr-defined]
        assert not [timer for timer in timers if "ItemLimits" in repr(timer)]
        await asyncio.sleep(5)
        return stream.call.future.exception()

    assert played(scene) is None


def test_calls_that_are_no_streams_have_no_such_limits() -> None:
    async def scene(pool: FakePool) -> Any:
        call = pool.calls.admit("work", (), {}, Options(first_item_timeout=0.1), stream=False)
        await asyncio.sleep(10)
        return call.done

    assert played(scene) is False


@pytest.mark.parametrize("name", ["first_item_timeout", "item_timeout"])
def test_a_limit_that_is_none_is_refused_by_name(name: str) -> None:
    for value in (0, -1, "1", True):
        with pytest.raises(ConfigError, match=name):
            ops_pool(**{name: value})
        with pytest.raises(ConfigError, match=rf"options\({name}={value!r}\): needs a number of seconds above 0"):
            ops_pool().options(**{name: value})


@pytest.mark.usefixtures("no_leaks")
@pytest.mark.parametrize("concurrency", [1, 3])
async def test_the_worker_of_a_stream_that_paused_too_long_goes_on(concurrency: int) -> None:
    async with ops_pool(concurrency=concurrency, cancel_grace=5.0) as pool:
        got: list[Any] = []
        with pytest.raises(OperationTimeout, match=r"pause_after gave nothing after item 3 .* of 0.2 s, on ops-0"):
            await read(pool.options(item_timeout=0.2).stream("pause_after", 3, 60.0), got)
        assert got == [0, 1, 2]
        with pytest.raises(OperationTimeout, match=r"gave no first item within its first_item_timeout of 0.2 s"):
            await read(pool.options(first_item_timeout=0.2).stream("pause_after", 0, 60.0))
        collected = await pool.options(item_timeout=0.2).try_run("pause_after", 2, 60.0)
        assert isinstance(collected.error, OperationTimeout)
        patient = pool.options(first_item_timeout=10.0, item_timeout=10.0)
        assert await read(patient.stream("count", 500)) == list(range(500))
        assert pool.status().restarts == 0
