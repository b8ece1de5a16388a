"""A closed loop of callers, and what it saw."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, NamedTuple

WORKERS, CALLERS = 2, 8
PAYLOAD = {"id": 17, "name": "a small payload", "values": [1, 2, 3]}


class Slice(NamedTuple):
    """What one pool did in one slice of time."""

    per_second: float
    p50_us: float
    p99_us: float
    parent_cpu_us: float


async def drive(
    call: Callable[[Any], Awaitable[Any]],
    seconds: float,
    *,
    payload: Any = PAYLOAD,
    callers: int = CALLERS,
    then: Callable[[], object] = lambda: None,
) -> Slice:
    """So many *callers*, each calling again as soon as it is answered, for *seconds*; *then* counts too."""
    taken: list[float] = []
    end = time.perf_counter() + seconds

    async def caller() -> None:
        began = time.perf_counter()
        while True:
            await call(payload)
            began, before = time.perf_counter(), began
            taken.append(began - before)
            if began >= end:
                return

    cpu, began = time.process_time(), time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    then()
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    taken.sort()
    count = len(taken)
    return Slice(count / seconds, taken[count // 2] * 1e6, taken[count * 99 // 100] * 1e6, cpu / count * 1e6)


def median(slices: Iterable[Slice]) -> Slice:
    """The median of each column."""
    return Slice(*(statistics.median(column) for column in zip(*slices, strict=True)))


def ratio(ours: list[Slice], base: list[Slice]) -> float:
    """The median over the rounds of how much faster *ours* was than *base* in the same round."""
    return statistics.median(one.per_second / other.per_second for one, other in zip(ours, base, strict=True))
