"""A real service whose tuner tries a change, and that kills itself when the trial enters a given state.

``python -m tests.helpers.tuned_service STATE.db STAGE``. Without a STAGE it makes good what is left of an earlier life,
and prints what it has come to.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable

from pool_monitor import Monitor, MonitorConfig, Pool, telemetry
from pool_monitor.config import AlertsConfig, ServiceConfig, StateConfig, TunerConfig
from pool_monitor.config.resources import ResourcesConfig
from tests.helpers.support import OPS

BEFORE, AFTER = 20.0, 22.0
UNDONE = ("rolling_back", "verifying")


def kill_at(stage: str) -> None:
    """End this process as SIGKILL does, when a trial enters *stage*."""

    def handle(_event: object, _measurements: object, about: dict[str, str], _config: object) -> None:
        if about["to"] == stage:
            os.kill(os.getpid(), signal.SIGKILL)

    telemetry.attach("killer", ("tuning", "transition"), handle)


async def until(reached: Callable[[], object]) -> None:
    while not reached():
        await asyncio.sleep(0.02)


async def main(path: str, stage: str) -> None:
    if stage:
        kill_at(stage)
    config = MonitorConfig(
        tuner=TunerConfig(interval=0.1),
        state=StateConfig(path=path),
        service=ServiceConfig(socket=False),
        alerts=AlertsConfig(enabled=False),
        resources=ResourcesConfig(enabled=False),
    )
    async with Pool(OPS, name="text", size=1, health_interval=BEFORE) as pool, Monitor(pool, config=config) as monitor:
        tuner = monitor.tuner
        await until(lambda: (view := tuner.view()) is not None and view.sizing)  # it has looked at the pool
        if stage:
            trial = tuner.propose("text", "health_interval", AFTER)
            tuner.approve(trial, author="test")
            await until(lambda: any(one.state == "validating" for one in tuner.history()))
            if stage in UNDONE:
                tuner.rollback(trial)
            await asyncio.sleep(10)
            raise AssertionError(f"the trial never was {stage}")
        await until(lambda: tuner.pending() or tuner.history()[0].state in ("kept", "rolled_back", "expired"))
        knob = next(one for one in pool.tunables() if one.name == "health_interval")
        states = [one.state for one in (*tuner.pending(), *tuner.history())]
        said = {"value": knob.value, "states": states, "reason": [one.reason for one in tuner.history()]}
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else ""))
