"""The settings that a pool offers to a tuner: their ranges, and that a change has its effect on what follows."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pool_monitor import (
    ConfigError,
    Monitor,
    OperationTimeout,
    Pool,
    PoolClosed,
    PoolSaturated,
    QueueTimeout,
    telemetry,
)
from pool_monitor.config import PoolConfig
from pool_monitor.pool.call import Call, Options
from pool_monitor.pool.policy.deadline_wheel import TICK
from pool_monitor.pool.policy.recycle import RecycleLimits
from pool_monitor.pool.policy.retry import RetryBudget
from pool_monitor.pool.tunables import KNOBS
from pool_monitor.testing import InlinePool
from pool_monitor.tunable import Tunable
from tests.helpers.fakes import FakePool
from tests.helpers.gates import in_gates
from tests.helpers.support import OPS, eventually, ops_pool, pid_of
from tests.helpers.virtual import clock, run

EVERYTHING: dict[str, Any] = {
    "first_item_timeout": 5.0,
    "item_timeout": 5.0,
    "recycle_calls": 1000,
    "recycle_age": 3600.0,
    "recycle_rss": 2**30,
}


def knob(pool: Pool, name: str) -> Tunable:
    return next(one for one in pool.tunables() if one.name == name)


def inline(**fields: Any) -> InlinePool:
    return InlinePool(OPS, **{"size": 1, "name": "ops", "timeout": 20.0, "cancel_grace": 0.1, **fields})


@asynccontextmanager
async def paused(**fields: Any) -> AsyncIterator[InlinePool]:
    """A pool whose calls wait."""
    async with inline(**fields) as pool:
        await pool.pause()
        yield pool


def waiting(pool: Pool, **options: Any) -> asyncio.Task[Any]:
    return asyncio.ensure_future(pool.options(**options).run("echo"))


# -- what is offered ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fields", [{}, EVERYTHING, {"concurrency": 8}, {"health_interval": 0.05, "timeout": 0.01}])
def test_a_value_is_in_its_range_and_a_step_away_is_another(fields: dict[str, Any]):
    for one in inline(**fields).tunables():
        assert 0 <= one.low <= one.value <= one.high < math.inf, one
        assert one.step > 0, one
        assert 0 <= one.effect_delay < math.inf, one
        assert one.unit != "count" or one.step == int(one.step), one


def test_what_is_not_set_is_not_offered():
    names = {one.name for one in inline().tunables()}
    assert names == {knob.name for knob in KNOBS} - set(EVERYTHING) - {"concurrency"}
    assert {one.name for one in inline(**EVERYTHING).tunables()} == names | set(EVERYTHING)
    assert {one.name for one in inline(concurrency=4).tunables()} == (names | {"concurrency"}) - {"prefetch"}


def test_every_setting_that_is_offered_is_the_size_or_a_field_of_the_configuration():
    assert {knob.name for knob in KNOBS} - {"size"} <= set(PoolConfig.__struct_fields__)


async def test_a_value_outside_the_range_is_refused_and_nothing_has_changed():
    async with inline(max_size=4) as pool:
        before = [(one.name, one.value) for one in pool.tunables()]
        for one in pool.tunables():
            for value in (one.high * 2 + 1, -1, math.nan, math.inf, True, "4"):
                with pytest.raises(ConfigError, match=one.name):
                    one.set(value)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="whole number"):
            knob(pool, "queue_limit").set(100.5)
        assert [(one.name, one.value) for one in pool.tunables()] == before


async def test_every_setting_can_be_set_anywhere_in_its_range_and_back():
    async with inline(**EVERYTHING, max_size=3) as pool:
        config = pool.config
        for one in pool.tunables():
            before = one.value
            for value in (one.low, one.high):
                one.set(value)
                assert one.value == pytest.approx(value)
            one.set(before)
            assert one.value == before
        assert pool.config == config
        assert await pool.run("echo", 1) == 1


async def test_a_pool_that_is_not_open_cannot_be_changed():
    pool = inline()
    with pytest.raises(PoolClosed):
        knob(pool, "size").set(2)
    async with pool:
        await pool.drain()
        for one in pool.tunables():
            with pytest.raises(PoolClosed):
                one.set(one.high)


def test_the_limits_of_all_workers_together_leave_memory_free():
    pool = inline(recycle_rss=2**30, size=4, max_size=8)
    pool._settings.memory_limit = 5 * 2**30
    limit = knob(pool, "recycle_rss")
    assert (limit.low, limit.high) == (2**29, 0.9 * 5 * 2**30 // 4)
    pool._settings.memory_limit = 2**30
    assert limit.high == limit.value, "what the operator has set stays in its range"
    pool._settings.memory_limit = None
    assert limit.high == 1.5 * 2**30


# -- the size -----------------------------------------------------------------------------------------------------


async def test_the_size_is_that_of_resize_and_is_told_in_the_same_words():
    async with inline(max_size=4) as pool:
        size = knob(pool, "size")
        with telemetry.capture(("pool", "resize")) as resizes:
            size.set(3)
            await pool.resize(2)
            size.set(2)  # has it already
        assert [one.measurements["size_after"] for one in resizes] == [3, 2]
        assert (pool.size, size.value, size.low, size.high) == (2, 2, 1, 4)
        await eventually(lambda: pool.status().idle == 2 and pool.status().busy == 0)


async def test_how_long_a_change_of_the_size_takes_is_measured():
    pool = inline(start_timeout=17.0)
    assert knob(pool, "size").effect_delay == 17.0
    async with pool:
        assert 0 < knob(pool, "size").effect_delay < 17.0


def test_a_pool_may_have_no_worker_only_if_somebody_said_so():
    assert knob(inline(min_size=0), "size").low == 1
    assert knob(inline(min_size=0, size=0), "size").low == 0


# -- calls --------------------------------------------------------------------------------------------------------


async def test_a_lower_queue_limit_refuses_the_next_call():
    async with paused(queue_limit=100) as pool:
        calls = [waiting(pool) for _ in range(16)]
        await eventually(lambda: pool.status().waiting == 16)
        knob(pool, "queue_limit").set(16)
        with pytest.raises(PoolSaturated):
            await pool.run("echo")
        assert pool.status().queue_limit == 16
        await pool.resume()
        await asyncio.gather(*calls)


async def test_a_shorter_wait_holds_for_the_next_call():
    async with paused(max_wait=15.0) as pool:
        first = waiting(pool)
        await eventually(lambda: pool.status().waiting == 1)
        knob(pool, "max_wait").set(0.01)
        with pytest.raises(QueueTimeout):
            await pool.run("echo")
        assert not first.done()
        await pool.resume()
        await first


async def test_without_a_limit_the_wait_is_the_timeout_and_can_be_taken_back():
    async with paused() as pool:
        wait = knob(pool, "max_wait")
        assert (wait.value, wait.high) == (20.0, 20.0)
        wait.set(0.01)
        with pytest.raises(QueueTimeout):
            await pool.run("echo")
        wait.set(20.0)
        assert pool.config.max_wait is None


async def test_a_lower_timeout_ends_the_next_call_and_not_the_one_before():
    async with inline(size=2, timeout=10.0, max_size=2) as pool:
        first = asyncio.ensure_future(pool.run("later", 1, 0.3))
        await eventually(lambda: pool.status().busy == 1)
        pool._settings.change(timeout=0.05)  # below the range of the knob, which would make the test wait
        with pytest.raises(OperationTimeout):
            await pool.run("later", 2, 0.3)
        assert await first == 1


@given(st.lists(st.tuples(st.floats(0.05, 50.0), st.floats(0.0, 10.0), st.booleans()), min_size=1, max_size=12))
@settings(max_examples=40, deadline=None)
def test_deadlines_are_kept_to_the_tick_however_the_timeout_changes(steps: list[tuple[float, float, bool]]) -> None:
    async def main() -> None:
        pool, late = FakePool(0, PoolConfig(timeout=20.0, shed=False), now_ns=clock().time_ns), []
        limited = 20.0

        def made() -> Call:
            call = pool.calls.admit("work", (), {}, Options(), stream=False)
            due = clock().time() + limited

            def ended(future: asyncio.Future[Any]) -> None:
                assert isinstance(future.exception(), QueueTimeout)
                late.append(clock().time() - due)

            call.future.add_done_callback(ended)
            return call

        for timeout, pause, wait in steps:
            made()
            limited = timeout
            changes = {"timeout": timeout, "max_wait": timeout if wait else None}
            pool.calls.configure(msgspec.structs.replace(pool.calls.config, **changes))
            made()
            await asyncio.sleep(pause)
        await asyncio.sleep(60.0)
        assert len(late) == 2 * len(steps)
        assert all(-1e-6 <= one <= 2 * TICK for one in late), late
        pool.calls.close()

    run(main())


@pytest.mark.parametrize(("name", "items"), [("first_item_timeout", 0), ("item_timeout", 1)])
async def test_a_stream_has_the_limits_of_the_moment_at_which_it_begins(name: str, items: int):
    async with inline(**{name: 0.2}, timeout=10.0) as pool:
        knob(pool, name).set(0.1)
        assert getattr(pool.config, name) == 0.1
        with pytest.raises(OperationTimeout, match=r"of 0\.1 s"):
            async for _ in pool.stream("pause_after", items, 5.0):
                pass


async def test_the_pause_before_a_retry_follows_its_setting():
    async with inline() as pool:
        knob(pool, "retry_delay").set(30.0)
        pauses = [pool._calls()._retries._pause(1) for _ in range(50)]
        assert 5.0 < max(pauses) <= 30.0


async def test_without_a_budget_no_call_is_sent_again():
    async with inline() as pool:
        budget = knob(pool, "retry_budget")
        budget.set(0.0)
        assert pool._calls().budget.spend() is False
        budget.set(0.1)
        assert pool._calls().budget.spend() is False  # it has to be earned again


@given(st.floats(0.01, 1.0), st.floats(0.01, 1.0), st.integers(0, 9))
def test_a_budget_that_is_changed_keeps_the_retries_that_are_left(before: float, after: float, spent: int):
    budget, left = RetryBudget(before), 0
    assert all(budget.spend() for _ in range(spent))
    budget.change(after)
    while budget.spend():
        left += 1
    assert left in (10 - spent, 9 - spent)  # a rounding may cost one


# -- workers ------------------------------------------------------------------------------------------------------


async def test_workers_are_pinged_at_the_interval_of_now():
    async with inline(health_interval=60.0, health_timeout=0.02) as pool:
        await eventually(lambda: pool.workers()[0].health == "responsive")
        pool._settings.change(health_interval=0.01)
        with telemetry.capture(("pool", "worker", "health_check")) as checks:
            await eventually(lambda: len(checks) >= 3)


async def test_the_pause_before_a_restart_follows_its_setting():
    async with inline() as pool:
        knob(pool, "backoff_min").set(7.0)
        assert all(7.0 <= pool._roster.workers["ops-0"].backoff.next() <= 30.0 for _ in range(5))


async def test_a_limit_of_calls_holds_for_processes_that_start_later():
    async with inline(recycle_calls=8, recycle_jitter=0.0, max_size=2) as pool:
        assert not knob(pool, "recycle_calls").live
        knob(pool, "recycle_calls").set(4)
        with telemetry.capture(("pool", "worker", "recycle")) as recycled:
            for _ in range(6):
                await pool.run("echo")
            assert not recycled
            await pool.resize(2)
            await eventually(lambda: pool.status().idle == 2)
            for _ in range(4):
                await pool.options(worker="ops-1").run("echo")
            await eventually(lambda: [one.metadata["worker"] for one in recycled] == ["ops-1"])


@given(st.integers(0, 2**32), st.floats(0.5, 4.0))
def test_limits_of_age_and_memory_keep_their_place_in_the_jitter(seed: int, factor: float):
    before = PoolConfig(recycle_age=1000.0, recycle_rss=10**9, recycle_calls=100)
    after = msgspec.structs.replace(before, recycle_age=1000.0 * factor, recycle_rss=round(10**9 * factor))
    drawn = RecycleLimits.draw(before, random.Random(seed))
    moved = drawn.changed(before, after)
    assert drawn.age is not None
    assert drawn.rss is not None
    assert moved.age == pytest.approx(drawn.age * factor)
    assert moved.rss == pytest.approx(drawn.rss * factor, abs=2)
    assert moved.calls == drawn.calls
    assert drawn.changed(before, before) == drawn


async def test_a_process_is_recycled_by_the_memory_limit_of_now():
    async with ops_pool(recycle_rss=2**40, health_interval=0.05) as pool:
        before = pid_of(pool)
        await eventually(lambda: pool.workers()[0].rss)
        pool._settings.change(recycle_rss=2**20)  # below the range of the knob: every process takes more
        await eventually(lambda: pool.workers()[0].pid not in (None, before))


@pytest.mark.parametrize("kind", [InlinePool, in_gates(Pool)])
async def test_a_worker_holds_as_many_calls_as_allowed_now(kind: type[Pool]):
    async with kind(OPS, name="ops", size=1, concurrency=4, max_size=2) as pool:

        async def most(worker: str) -> int:
            calls = [asyncio.ensure_future(pool.options(worker=worker).run("later", 0, 0.03)) for _ in range(10)]
            await eventually(lambda: any(one.calls_held for one in pool.workers() if one.id == worker))
            held = next(one.calls_held for one in pool.workers() if one.id == worker)
            await asyncio.gather(*calls)
            return held

        limit = knob(pool, "concurrency")
        assert await most("ops-0") == 4
        limit.set(2)
        assert await most("ops-0") == 2
        limit.set(8)
        assert await most("ops-0") == 4  # its process was started with 4
        await pool.resize(2)
        await eventually(lambda: pool.status().idle == 2)
        assert await most("ops-1") == 8
        await pool.restart()
        assert await most("ops-0") == 8


async def test_nothing_is_handed_ahead_once_it_is_not_allowed():
    async with inline() as pool:
        roster = pool._roster
        for _ in range(3):
            await asyncio.gather(*(pool.run("echo") for _ in range(100)))
        assert roster.depth > 1
        knob(pool, "prefetch").set(1)
        assert roster.depth == roster.awake_depth == 1
        await asyncio.gather(*(pool.run("echo") for _ in range(100)))
        assert roster.depth == 1
        knob(pool, "prefetch").set(16)
        for _ in range(3):
            await asyncio.gather(*(pool.run("echo") for _ in range(100)))
        assert roster.depth > 1


# -- pools of other packages --------------------------------------------------------------------------------------


class Offer(SimpleNamespace):
    """A tunable of another package."""

    def __init__(self, **changed: Any) -> None:
        good = {"name": "size", "unit": "count", "value": 2.0, "low": 1.0, "high": 4.0, "step": 1.0}
        super().__init__(**{**good, "live": True, "effect_delay": 1.0, "set": print, **changed})


class Foreign:
    """A pool of another package."""

    def __init__(self, offers: Any) -> None:
        self.name, self.offers = "foreign", offers

    def status(self) -> Any:
        raise NotImplementedError

    def workers(self) -> Any:
        raise NotImplementedError

    async def aset(self) -> None:
        raise NotImplementedError

    def tunables(self) -> Any:
        if isinstance(self.offers, Exception):
            raise self.offers
        return self.offers


def test_the_monitor_sees_what_pools_offer():
    foreign, ours = Foreign([Offer(), Offer(name="limit")]), inline()
    without = SimpleNamespace(name="without", status=foreign.status, workers=foreign.workers)
    found = Monitor([foreign, ours, without]).context.tunables()  # type: ignore[list-item]
    assert {pool: [one.name for one in offers] for pool, offers in found.items()} == {
        "foreign": ["size", "limit"],
        "ops": [one.name for one in ours.tunables()],
    }


@pytest.mark.parametrize(
    "offers",
    [
        RuntimeError("broken"),
        None,
        7,
        [None],
        [SimpleNamespace(name="size")],
        [Offer(name="a b")],
        [Offer(name="\x1b[2J")],
        [Offer(name=3)],
        [Offer(unit="m")],
        [Offer(value=math.nan)],
        [Offer(high=math.inf)],
        [Offer(low="1")],
        [Offer(value=5.0)],
        [Offer(step=0.0)],
        [Offer(effect_delay=-1.0)],
        [Offer(set=None)],
        [Offer(set=Foreign.aset)],
        [Offer(), Offer()],
    ],
)
def test_a_pool_that_offers_nonsense_costs_that_pool_and_is_logged_once(offers: Any, caplog: pytest.LogCaptureFixture):
    tunables = Monitor([Foreign(offers), inline()]).context.tunables  # type: ignore[list-item]
    for _ in range(3):
        assert list(tunables()) == ["ops"]
    assert ["what may be changed cannot be read" in record.getMessage() for record in caplog.records] == [True]
