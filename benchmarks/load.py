"""The load for one pool, and the measurements of a slice of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Literal, NamedTuple

import msgspec

WORKERS, CALLERS, MANY_CALLERS = 2, 8, 64
PAYLOAD = {"id": 17, "name": "a small payload", "values": [1, 2, 3]}
PAYLOADS = {"small": PAYLOAD, "1 MiB": bytes(1024 * 1024)}

Call = Callable[[Any], Awaitable[Any]]


class Load(msgspec.Struct, frozen=True):
    """The calls that a pool gets in a slice of time."""

    payload: Literal["small", "1 MiB"]
    callers: int
    """Calls in flight at once; with a *rate*, the most of them."""
    seconds: float
    rate: float | None = None
    """Calls a second, evenly spread. None: each caller makes its next call on an answer, and at least one call."""
    beats: bool = False
    """Measure `Slice.held_ms`. Then the event loop never sleeps."""


class Slice(NamedTuple):
    """What one pool did in one slice of time. None: not measured."""

    calls: int
    seconds: float
    p50_us: float | None
    p99_us: float | None
    parent_s: float
    """Processor time of the pool's parent with all its threads."""
    held_ms: float | None = None
    """The longest turn of the event loop."""
    workers_s: float = 0.0
    """Processor time of all processes below the parent."""
    others: float = 0.0
    """Number of processors that were busy with anything except the pool and the benchmark."""

    @property
    def per_second(self) -> float:
        return self.calls / self.seconds

    @property
    def parent_us(self) -> float | None:
        """Processor time of the parent per call."""
        return self.parent_s / self.calls * 1e6 if self.calls else None

    @property
    def workers_us(self) -> float | None:
        """Processor time of the workers per call."""
        return self.workers_s / self.calls * 1e6 if self.calls else None


class Beat:
    """Runs once in every turn of the event loop and measures the longest turn."""

    def __init__(self) -> None:
        self.longest_s, self._last = 0.0, time.perf_counter()
        self._next = asyncio.get_running_loop().call_soon(self._beat)

    def stop(self) -> None:
        self._beat()
        self._next.cancel()

    def _beat(self) -> None:
        now = time.perf_counter()
        self.longest_s, self._last = max(self.longest_s, now - self._last), now
        self._next.cancel()
        self._next = asyncio.get_running_loop().call_soon(self._beat)


async def measured(load: Load, work: Callable[[list[float]], Awaitable[int]]) -> Slice:
    """Measure a slice that *work* fills. *work* appends the seconds of each call to its argument, or nothing if single
    calls have no duration, and returns the number of calls.
    """
    taken: list[float] = []
    cpu, began = time.process_time(), time.perf_counter()
    beat = Beat() if load.beats else None
    calls = await work(taken)
    if beat is not None:
        beat.stop()
    seconds, parent_s = time.perf_counter() - began, time.process_time() - cpu
    taken.sort()
    p50, p99 = (taken[len(taken) * share // 100] * 1e6 if taken else None for share in (50, 99))
    return Slice(calls, seconds, p50, p99, parent_s, None if beat is None else beat.longest_s * 1e3)


async def drive(call: Call, load: Load, then: Callable[[], object] = lambda: None) -> Slice:
    """Measure a slice of *load*, made by calling *call* with the payload. The slice includes *then*."""

    async def work(taken: list[float]) -> int:
        await (_closed(call, load, taken) if load.rate is None else _spread(call, load, load.rate, taken))
        then()
        return len(taken)

    return await measured(load, work)


async def _closed(call: Call, load: Load, taken: list[float]) -> None:
    payload, end = PAYLOADS[load.payload], time.perf_counter() + load.seconds

    async def caller() -> None:
        began = time.perf_counter()
        while True:
            await call(payload)
            began, before = time.perf_counter(), began
            taken.append(began - before)
            if began >= end:
                return

    await asyncio.gather(*(caller() for _ in range(load.callers)))


async def _spread(call: Call, load: Load, rate: float, taken: list[float]) -> None:
    payload, room = PAYLOADS[load.payload], asyncio.Semaphore(load.callers)

    async def caller() -> None:
        began = time.perf_counter()
        try:
            await call(payload)
        finally:
            room.release()
        taken.append(time.perf_counter() - began)

    calls, began = [], time.perf_counter()
    for number in range(round(rate * load.seconds)):
        await _until(began + number / rate)
        await room.acquire()
        calls.append(asyncio.ensure_future(caller()))
    await asyncio.gather(*calls)
    await _until(began + load.seconds)


async def _until(moment: float) -> None:
    if (wait := moment - time.perf_counter()) > 0.0:
        await asyncio.sleep(wait)
