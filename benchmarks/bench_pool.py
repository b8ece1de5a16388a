"""Round trips per second of our pool and of ProcessPoolExecutor driven from asyncio, in one run.

2 workers, 8 callers in a closed loop, a small payload. The pools take turns in slices, so that whatever else the
machine does hits all of them; the median slice counts.
"""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from benchmarks.load import CALLERS, WORKERS, Slice, drive, median, ratio
from benchmarks.targets import echo
from pool_monitor import Monitor, MonitorConfig, Pool
from pool_monitor.config import ServiceConfig

ROUNDS = 5


async def measure(seconds: float) -> dict[str, list[Slice]]:
    loop = asyncio.get_running_loop()
    quiet = MonitorConfig(service=ServiceConfig(socket=False))
    target = "benchmarks.targets:Work"
    # Forked before our pools exist, so that it inherits nothing of theirs.
    with ProcessPoolExecutor(WORKERS, mp_context=multiprocessing.get_context("fork")) as peer:
        await asyncio.gather(*(loop.run_in_executor(peer, echo, 1) for _ in range(WORKERS * 4)))
        async with (
            Pool(target, name="bare", size=WORKERS) as bare,
            Pool(target, name="watched", size=WORKERS) as watched,
        ):
            calls: dict[str, Callable[[Any], Awaitable[Any]]] = {
                "ProcessPoolExecutor": lambda value: loop.run_in_executor(peer, echo, value),
                "pool_monitor": lambda value: bare.run("echo", value),
                "pool_monitor, monitored": lambda value: watched.run("echo", value),
            }
            slices: dict[str, list[Slice]] = {name: [] for name in calls}
            async with Monitor(watched, config=quiet):
                for number in range(ROUNDS + 1):
                    for name, call in calls.items():
                        done = await drive(call, seconds if number else 0.3)
                        if number:  # the first round warms up
                            slices[name].append(done)
    return slices


def main(seconds: float) -> None:
    slices = asyncio.run(measure(seconds))
    medians = {name: median(rows) for name, rows in slices.items()}
    base = medians["ProcessPoolExecutor"]
    print(f"\nround trips, {WORKERS} workers, {CALLERS} callers, median of {ROUNDS} slices of {seconds:g} s")
    print(f"{'':26}{'calls/s':>10}{'ratio':>8}{'p50 us':>9}{'p99 us':>9}{'parent CPU us/call':>20}")
    for name, row in medians.items():
        times = row.per_second / base.per_second
        print(
            f"{name:26}{row.per_second:10,.0f}{times:8.2f}{row.p50_us:9.0f}{row.p99_us:9.0f}{row.parent_cpu_us:20.1f}"
        )
    kept = ratio(slices["pool_monitor, monitored"], slices["pool_monitor"])
    print(f"monitored / not monitored: {kept:.3f} (median of the rounds' ratios)")
