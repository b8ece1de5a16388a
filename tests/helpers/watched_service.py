"""A service that is watched from outside: a monitor of a pool that does nothing. Its event loop can be blocked.

A line ``block SECONDS`` on stdin blocks the loop, ``degrade`` has a part of the monitor fail; the end of stdin, or
SIGTERM, ends the service in order. With LOAD in the environment, its loop is half busy. With BEAT_URL, it sends a
heartbeat every second.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time

from pool_monitor import Monitor
from pool_monitor.config import AlertsConfig, MonitorConfig, ResourcesConfig, ServiceConfig
from pool_monitor.config.alerts import HeartbeatConfig
from pool_monitor.snapshot import PoolView, WorkerView


class IdlePool:
    name = "idle"

    def status(self) -> PoolView:
        counts = dict.fromkeys(("starting", "draining", "dead", "waiting", "sessions", "restarts", "completed"), 0)
        return PoolView(name=self.name, state="running", size=1, busy=0, idle=1, queue_limit=1, **counts)

    def workers(self) -> list[WorkerView]:
        return [WorkerView(id="idle-0", state="ready", state_age=1, pid=1, age=1, restarts=0, operation=None)]


async def busy() -> None:
    """Keep the event loop half busy."""
    while True:
        end = time.perf_counter() + 0.02
        while time.perf_counter() < end:
            pass
        await asyncio.sleep(0.02)


async def serve(name: str) -> None:
    heartbeat = HeartbeatConfig(url_env="BEAT_URL", every=1) if "BEAT_URL" in os.environ else None
    config = MonitorConfig(
        service=ServiceConfig(name=name),
        resources=ResourcesConfig(enabled=False),
        alerts=AlertsConfig(default_rules=False, interval=1.0, heartbeat=heartbeat),
    )
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    async with Monitor(IdlePool(), config=config) as monitor:

        def obey() -> None:
            words = os.read(0, 1000).decode().split()
            match words:
                case ["block", seconds]:
                    time.sleep(float(seconds))
                case ["degrade"]:
                    monitor.context.degraded("history", "disk full")
                case ["recover"]:
                    monitor.context.recovered("history", "it is written again")
                case []:
                    loop.remove_reader(0)
                    ended.set()

        loop.add_reader(0, obey)
        print(monitor.address, flush=True)
        load = asyncio.ensure_future(busy()) if "LOAD" in os.environ else None
        await ended.wait()
        if load is not None:
            load.cancel()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
