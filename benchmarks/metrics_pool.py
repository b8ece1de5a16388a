"""What a monitor costs the pool it watches: one pool, with and without, in many short slices."""

from __future__ import annotations

import asyncio
import random
import statistics
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial

from benchmarks.load import CALLERS, WORKERS, Load, Slice, drive
from benchmarks.tables import Table
from benchmarks.turns import interval
from pool_monitor import Monitor, MonitorConfig, Pool
from pool_monitor.config import ServiceConfig

SECONDS, ROUNDS, WARM_S = 0.1, 150, 0.5
BARE, AGAIN, WATCHED = "not monitored", "not monitored, a second time", "monitored"
QUIET = MonitorConfig(service=ServiceConfig(socket=False))


async def measure(rounds: int, seconds: float) -> dict[str, list[Slice]]:
    """A slice of each kind in each round, in any order."""
    slices: dict[str, list[Slice]] = {BARE: [], AGAIN: [], WATCHED: []}
    chance = random.Random(1)
    async with Pool("benchmarks.targets:Work", name="bench", size=WORKERS) as pool:
        await drive(lambda value: pool.run("echo", value), Load("small", CALLERS, min(WARM_S, 10 * seconds)))
        for _ in range(rounds):
            for kind in chance.sample(list(slices), len(slices)):
                slices[kind].append(await _slice(pool, seconds, watched=kind == WATCHED))
    return slices


async def _slice(pool: Pool, seconds: float, *, watched: bool) -> Slice:
    async with AsyncExitStack() as stack:
        monitor = await stack.enter_async_context(Monitor(pool, config=QUIET)) if watched else None
        for length in (seconds / 10, seconds):  # what is new to both is not what is asked
            # What has not been folded by the end is what the slice owes.
            owed: Callable[[], object] = _nothing if monitor is None else partial(next, monitor._collector.ticking())
            done = await drive(lambda value: pool.run("echo", value), Load("small", CALLERS, length), owed)
    return done


def _nothing() -> None:
    pass


def table(rounds: int = ROUNDS, seconds: float = SECONDS) -> Table:
    slices = asyncio.run(measure(rounds, seconds))
    return Table(
        "a pool that is monitored",
        f"One pool of {WORKERS} workers, {CALLERS} callers, a small payload; a monitor is entered and left in turns. "
        f"{rounds} rounds of one slice of {seconds:g} s of each kind, in an order of chance; ratios are the median of "
        "those of a round, and the interval it lies in with a confidence of 95 %. A slice ends when all of its calls "
        "are folded. The second row says what this machine can tell apart.",
        ["", "calls/s, ratio", "95 %", "CPU per call, ratio", "95 %", "calls/s", "parent CPU µs/call"],
        [_row(kind, slices) for kind in (BARE, AGAIN, WATCHED)],
    )


def _row(kind: str, slices: dict[str, list[Slice]]) -> list[str]:
    mine, base = slices[kind], slices[BARE]
    middle = [f"{statistics.median(one.per_second for one in mine):,.0f}",
              f"{statistics.median(one.parent_s / one.calls * 1e6 for one in mine):.1f}"]  # fmt: skip
    if kind == BARE:
        return [kind, "1.000", "-", "1.000", "-", *middle]
    rates = [one.per_second / other.per_second for one, other in zip(mine, base, strict=True)]
    cpu = [one.parent_s / one.calls / (other.parent_s / other.calls) for one, other in zip(mine, base, strict=True)]
    return [kind, *_ratio(rates), *_ratio(cpu), *middle]


def _ratio(ratios: Sequence[float]) -> list[str]:
    low, high = interval(ratios)
    return [f"{statistics.median(ratios):.3f}", f"{low:.3f} to {high:.3f}"]
