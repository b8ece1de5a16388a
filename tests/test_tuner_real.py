"""The tuner with real pools: it settles where the laboratory says, and the schedule is kept to the second."""

from __future__ import annotations

import asyncio
from datetime import datetime
from statistics import median
from typing import Any

import pytest

from benchmarks.lab.scenario import Scenario, parse
from benchmarks.lab.simulator import Simulator, run
from benchmarks.lab.traffic import Traffic, draw
from benchmarks.lab.tuned import Tuned
from pool_monitor import Monitor, MonitorConfig, Pool
from pool_monitor.config import AlertsConfig, ServiceConfig, TunerConfig
from pool_monitor.config.resources import ResourcesConfig
from pool_monitor.config.tuner import ScheduleEntry
from pool_monitor.testing import InlinePool, ManualClock
from tests.helpers.gates import in_gates
from tests.helpers.support import OPS, eventually

SEED = 1
STEP_AT, END_AT, LAST = 4.0, 18.0, 5
"""When the load rises, when it ends, and for how many seconds the sizes at the end are looked at."""
SCENARIO: dict[str, Any] = {
    "name": "real-step",
    "duration_s": END_AT,
    "wait_target_s": 0.2,
    "cold_start_s": 0.2,
    "n0": 4,
    "n_min": 1,
    "n_max": 20,
    "service": {"kind": "lognormal", "mean_s": 0.2, "cv": 0.5},
    "rate": {"kind": "linear", "points": [[0.0, 8.0], [STEP_AT, 8.0], [STEP_AT, 22.0], [END_AT, 22.0]]},
}


class Watched(Tuned):
    """The tuner in the laboratory, with the size of each second."""

    def __init__(self, scenario: Scenario) -> None:
        super().__init__(scenario)
        self.sizes: list[int] = []

    def second(self, simulator: Simulator) -> None:
        super().second(simulator)
        self.sizes.append(simulator.pool.size)


async def real_sizes(scenario: Scenario, traffic: Traffic) -> tuple[list[int], int]:
    """Play *traffic* on a real pool with a real monitor. Return the size of each second, and the failed calls."""
    config = MonitorConfig(
        tuner=TunerConfig(mode="auto", wait_target=scenario.wait_target_s),
        service=ServiceConfig(socket=False),
        alerts=AlertsConfig(enabled=False),
        resources=ResourcesConfig(enabled=False),
    )
    sizes: list[int] = []
    pool = Pool(OPS, name="text", size=scenario.n0, min_size=scenario.n_min, max_size=scenario.n_max)

    async def call(at: float, seconds: float) -> None:
        await asyncio.sleep(began + at - loop.time())
        await pool.run("sleep", seconds)

    async def look() -> None:
        while True:
            await asyncio.sleep(1.0)
            sizes.append(pool.size)

    async with pool, Monitor(pool, config=config):
        loop = asyncio.get_running_loop()
        began = loop.time()
        looking = asyncio.ensure_future(look())
        calls = zip(traffic.arrivals.tolist(), traffic.services.tolist(), strict=True)
        ended = await asyncio.gather(*(call(at, seconds) for at, seconds in calls), return_exceptions=True)
        looking.cancel()
    return sizes, sum(isinstance(one, BaseException) for one in ended)


@pytest.mark.slow
@pytest.mark.gate
async def test_under_a_real_step_a_real_pool_settles_where_the_laboratory_says():
    scenario = parse(SCENARIO)
    traffic, simulated = draw(scenario, SEED), Watched(scenario)
    run(scenario, SEED, simulated)
    sizes, failed = await real_sizes(scenario, traffic)
    assert failed == 0
    assert median(simulated.sizes[-LAST:]) >= 2 * max(simulated.sizes[: int(STEP_AT)]), "it is a step"
    assert median(sizes[-LAST:]) == pytest.approx(median(simulated.sizes[-LAST:]), abs=2), (sizes, simulated.sizes)


MONDAY = "2026-01-05"


def at(clock: str) -> float:
    """The wall-clock time of that time of day on a Monday, where this runs."""
    return datetime.fromisoformat(f"{MONDAY}T{clock}").timestamp()


@pytest.mark.parametrize("mode", ["recommend", "auto"])
@pytest.mark.parametrize("kind", [InlinePool, in_gates(Pool)])
async def test_the_workers_of_the_schedule_are_ready_before_it_begins(kind: type[Pool], mode: Any):
    entry = ScheduleEntry(days="mon-fri", start="09:00", end="18:00", min_size=6)
    config = MonitorConfig(
        tuner=TunerConfig(mode=mode, schedule=(entry,), interval=3600.0), service=ServiceConfig(socket=False)
    )
    clock = ManualClock(at("08:57:00"))
    async with (
        kind(OPS, name="text", size=2, max_size=8) as pool,
        Monitor(pool, config=config, clock=clock) as monitor,
    ):
        await eventually(lambda: monitor.tuner.view() is not None)

        async def until(clock_time: str) -> int:
            """Let time pass, in steps of 10 s. Return the workers that are ready then."""
            while clock.wall_ns() / 1e9 < at(clock_time):
                clock.advance(10.0)
                await monitor.tuner.step()
            await eventually(lambda: pool.status().idle == pool.size)
            return pool.status().idle

        assert await until("08:58:30") <= 2
        assert await until("08:59:30") == 6
        assert await until("09:03:00") == 6
        clock.step_wall(at("17:59:50") - clock.wall_ns() / 1e9)
        await until("18:04:00")
        assert pool.size == 2, "also in auto, where the policy knows nothing without a call"
