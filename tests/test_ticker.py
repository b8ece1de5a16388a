"""The task that ticks the monitor: one that hangs, ends or raises is reported and replaced."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from pool_monitor import Monitor, telemetry
from pool_monitor.config import AlertsConfig, MonitorConfig, ResourcesConfig, ServiceConfig
from pool_monitor.findings import doubts
from pool_monitor.metrics.collector import Collector
from pool_monitor.ticker import CHECK_S, STALE_CHECKS, Ticker
from tests.helpers import virtual
from tests.helpers.support import eventually, ops_pool

QUIET = MonitorConfig(
    service=ServiceConfig(socket=False),
    resources=ResourcesConfig(enabled=False),
    alerts=AlertsConfig(enabled=False),
)


class Reports:
    """What a ticker reported, and when."""

    def __init__(self) -> None:
        self.told: list[tuple[str, float, str]] = []

    def degraded(self, part: str, reason: str) -> None:
        self.note("degraded", part, reason)

    def recovered(self, part: str, reason: str) -> None:
        self.note("recovered", part, reason)

    def note(self, state: str, part: str, reason: str) -> None:
        assert part == "ticker"
        self.told.append((state, asyncio.get_running_loop().time(), reason))

    @property
    def states(self) -> list[str]:
        return [state for state, _at, _reason in self.told]

    def ticker(self, tick: Callable[[int], Any]) -> Ticker:
        self.ticks = 0

        async def count() -> None:
            self.ticks += 1
            await tick(self.ticks)

        return Ticker(count, lambda: 1.0, self.degraded, self.recovered)


async def fine(_number: int) -> None:
    pass


async def hangs_at_3(number: int) -> None:
    if number == 3:
        await asyncio.Event().wait()


async def ignores_its_cancellation_at_3(number: int) -> None:
    end = asyncio.get_running_loop().time() + 60.0
    while number == 3 and asyncio.get_running_loop().time() < end:
        try:
            await asyncio.sleep(60.0)
        except asyncio.CancelledError:
            continue


async def raises_from_3_to_5(number: int) -> None:
    if 3 <= number <= 5:
        raise ValueError(f"tick {number}")


async def is_cancelled_at_3(number: int) -> None:
    if number == 3:
        raise asyncio.CancelledError


async def ends_the_program_at_3(number: int) -> None:
    if number == 3:
        raise GeneratorExit


@pytest.mark.parametrize(
    ("tick", "reason", "earliest", "latest"),
    [
        (hangs_at_3, "no tick was finished for 5 s", 3 + 5 * CHECK_S, 3 + (STALE_CHECKS + 1) * CHECK_S),
        (raises_from_3_to_5, "a tick failed: ValueError: tick 3", 3, 3),
        (is_cancelled_at_3, "its task was ended by CancelledError", 3, 3 + CHECK_S),
        (ends_the_program_at_3, "its task was ended by GeneratorExit", 3, 3 + CHECK_S),
    ],
)
def test_a_task_that_fails_is_reported_once_and_replaced(tick, reason, earliest, latest):
    async def main() -> None:
        reports = Reports()
        ticker = reports.ticker(tick)
        ticker.start()
        await asyncio.sleep(15.5)
        await ticker.stop()
        assert reports.states == ["degraded", "recovered"]
        _state, at, said = reports.told[0]
        assert said == reason
        assert earliest <= at <= latest
        assert reports.ticks >= 6
        ticks = reports.ticks
        await asyncio.sleep(10.0)
        assert reports.ticks == ticks

    virtual.run(main())


def test_a_task_that_ticks_is_left_alone():
    async def main() -> None:
        reports = Reports()
        ticker = reports.ticker(fine)
        ticker.start()
        await asyncio.sleep(1000.5)
        await ticker.stop()
        assert (reports.told, reports.ticks) == ([], 1000)

    virtual.run(main())


def test_a_blocked_event_loop_is_not_taken_for_a_hanging_task():
    async def main() -> None:
        reports = Reports()
        ticker = reports.ticker(fine)
        ticker.start()
        for _ in range(5):
            await asyncio.sleep(2.5)
            virtual.clock()._clock.now += 60.0  # everything that was due in this minute is late
        await asyncio.sleep(2.5)
        await ticker.stop()
        assert reports.told == []

    virtual.run(main())


def test_no_second_task_ticks_beside_one_that_ignores_its_cancellation():
    async def main() -> None:
        reports = Reports()
        ticker = reports.ticker(ignores_its_cancellation_at_3)
        ticker.start()
        await asyncio.sleep(50.0)
        assert (reports.ticks, reports.states) == (3, ["degraded"])
        await asyncio.sleep(100.0)
        assert reports.states == ["degraded", "recovered"]
        await ticker.stop()

    virtual.run(main())


def test_stopping_does_not_wait_for_a_task_that_ignores_its_cancellation():
    async def main() -> None:
        reports = Reports()
        ticker = reports.ticker(ignores_its_cancellation_at_3)
        ticker.start()
        await asyncio.sleep(4.0)
        before = asyncio.get_running_loop().time()
        await ticker.stop()
        assert asyncio.get_running_loop().time() - before <= 1.0
        await asyncio.sleep(120.0)

    virtual.run(main())


def test_a_ticker_can_be_started_again():
    async def main() -> None:
        reports = Reports()
        ticker = reports.ticker(fine)
        for _ in range(3):
            ticker.start()
            await asyncio.sleep(3.5)
            await ticker.stop()
        assert (reports.ticks, reports.told) == (9, [])

    virtual.run(main())


# -- in a monitor -------------------------------------------------------------------------------------------------


async def rate(pool: Any, calls: int = 2000) -> float:
    """Calls per second of processor time, of 8 callers: other processes of the machine hardly change it."""

    async def calling() -> None:
        for _ in range(calls // 8):
            await pool.run("echo", 1)

    before = time.process_time()
    await asyncio.gather(*(calling() for _ in range(8)))
    return calls / (time.process_time() - before)


@pytest.mark.usefixtures("no_leaks")
@pytest.mark.parametrize("way", ["hangs", "raises"])
async def test_a_tick_that_hangs_or_raises_costs_the_pool_nothing(monkeypatch, way):
    monkeypatch.setattr("pool_monitor.ticker.CHECK_S", 0.1)  # a whole tick ends far within 6 looks, on any machine
    monkeypatch.setattr(Collector, "until_tick", lambda self: 0.005)  # from the first pause on

    async def hang() -> None:
        await asyncio.Event().wait()

    async def fail() -> None:
        raise RuntimeError("for ever")

    with telemetry.capture(("monitor",)) as events:
        async with ops_pool() as pool, Monitor(pool, config=QUIET) as monitor:
            whole, ticker = monitor._tick, monitor._ticker

            def states() -> list[str]:
                return [e.metadata["state"] for e in events if e.metadata.get("part") == "ticker"]

            well, ill = [await rate(pool)], []
            for _ in range(3):
                monkeypatch.setattr(ticker, "_tick", hang if way == "hangs" else fail)
                before = len(states())
                await eventually(lambda before=before: len(states()) > before)
                ill.append(await rate(pool))
                shown = monitor.snapshot()
                assert "ticker" in shown.monitor.degraded
                assert any(found.kind == "part_degraded" and "ticker" in found.names for found in doubts(shown))
                monkeypatch.setattr(ticker, "_tick", whole)
                await eventually(lambda before=before: len(states()) > before + 1)
                well.append(await rate(pool))
                assert "ticker" not in monitor.snapshot().monitor.degraded
            assert states() == ["degraded", "recovered"] * 3
            assert max(ill) > 0.5 * max(well)
            assert await monitor.ticked()
            assert monitor.snapshot().pools["ops"].total.calls > 0
