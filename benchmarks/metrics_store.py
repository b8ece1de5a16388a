"""What a history costs: the time to write a second, and how late the event loop is meanwhile."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from benchmarks.calls import POOL, attached, done, emit_ended, room_for, rows_of
from benchmarks.tables import Table
from benchmarks.turns import percentile
from pool_monitor.clock import ManualClock
from pool_monitor.metrics import Collector
from pool_monitor.metrics.block import Block
from pool_monitor.metrics.series import Names
from pool_monitor.storage import History

SERIES, SECONDS, REST_S = 2000, 130, 0.02
BEAT_S = 0.0005


def blocks(series: int, seconds: int) -> list[tuple[int, Block, Names]]:
    """Return what a collector reports in *seconds* seconds in which every operation was called once."""
    found: list[tuple[int, Block, Names]] = []
    clock, rows = ManualClock(), rows_of(series)
    collector = Collector([POOL], clock, series_limit=room_for(rows))
    collector.on_second(lambda start, block, names, _errors: found.append((start, block, names)))
    work = [done([row], 1)[0] for row in rows]
    with attached(collector):
        for _ in range(seconds):
            emit_ended(work)
            clock.advance(1)
            collector.tick()
    return found


class WallClock(ManualClock):
    """A clock whose wall time is set by the benchmark, and whose monotonic time is real."""

    def monotonic_ns(self) -> int:
        return time.monotonic_ns()

    def wall_ns(self) -> int:
        return super().monotonic_ns() + 1_700_000_000_000_000_000


async def measure(series: int, seconds: int) -> tuple[list[float], list[float], list[float], list[float]]:
    """Return ms of each transaction; of each flush, with rolling up and deleting; and how late the event loop was at
    each beat, during the flushes and while nothing happened.
    """
    written: list[float] = []
    flushes: list[float] = []
    busy: list[float] = []
    idle: list[float] = []
    clock = WallClock()
    with tempfile.TemporaryDirectory() as folder:
        history = await History.open(Path(folder) / "history.db", clock=clock)
        try:
            for start, block, names in blocks(series, seconds):
                clock.advance(1)
                history.put(start, 1, block, names)
                await _beating(idle, lambda: asyncio.sleep(REST_S))
                began = time.perf_counter_ns()
                await _beating(busy, history.flush)
                flushes.append((time.perf_counter_ns() - began) / 1e6)
                written.append((history.stats().flush_seconds or 0.0) * 1e3)
            if history.degraded is not None:
                raise OSError(history.degraded)
        finally:
            await history.close()
    return written, flushes, busy, idle


async def _beating(late_ms: list[float], work: Callable[[], Awaitable[object]]) -> None:
    """Await *work* while a task notes how late it is woken."""

    async def beat() -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(BEAT_S)
            late_ms.append((time.perf_counter() - began - BEAT_S) * 1e3)

    beating = asyncio.ensure_future(beat())
    try:
        await asyncio.sleep(0)
        await work()
    finally:
        beating.cancel()
        with suppress(asyncio.CancelledError):
            await beating


def table(series: int = SERIES, seconds: int = SECONDS) -> Table:
    written, flushes, busy, idle = asyncio.run(measure(series, seconds))
    named = {
        "writing a second": written,
        "the same, with rolling up and deleting": flushes,
        "the event loop late, while one is written": busy,
        "the event loop late, while nothing happens": idle,
    }
    return Table(
        "history",
        f"Writing {seconds} seconds, one at a time, in each of which all of {len(rows_of(series))} operations were "
        f"called; ms of real time, in a separate thread. A timer of {BEAT_S * 1e3:g} ms shows how late the event loop "
        "is. Its lateness while nothing happens is that of the machine.",
        ["", "p50 ms", "p99 ms", "longest ms"],
        [[name, *(f"{percentile(ms, share):.2f}" for share in (0.5, 0.99, 1.0))] for name, ms in named.items()],
    )
