"""Ended calls as a pool emits them, and a collector that has counted an hour of them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle, islice
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from pool_monitor.clock import ManualClock
from pool_monitor.emit import PoolIdentity
from pool_monitor.metrics import Collector
from pool_monitor.metrics.columns import DISTRIBUTIONS
from pool_monitor.metrics.fold import CallBatch, code_of, fold
from pool_monitor.pool import call_events
from pool_monitor.pool.call import Call, Options, next_id
from pool_monitor.pool.transport.interface import CallTimes
from pool_monitor.pool.worker import Worker
from pool_monitor.telemetry import Record, Series

POOL = "bench"
IDENTITY = PoolIdentity(POOL, "0" * 12)
NOW_NS = 10**15
Past = Sequence[tuple[int, int, int]]
PAST: Past = ((60, 46, 3), (1, 960, 20))
"""An hour as (seconds per step, number of steps, number of different steps). First minutes whose calls all end in one
second: a window with steps of a minute cannot tell the difference. Then single seconds, for longer than any window with
finer steps reaches back."""
MOST_CALLS = 250_000
"""Calls generated per step at most: more would hardly use more buckets."""
SERIES_LIMIT, MEMORY_LIMIT = 2000, 1 << 30
"""The first is a monitor's default. The second is in effect no limit, to see how much memory is needed."""

Row = tuple[str, str]
"""An operation and a worker: three series."""


class Done(NamedTuple):
    """A call that ended well, at `NOW_NS`."""

    call: Call
    times: CallTimes

    @property
    def row(self) -> Row:
        return self.call.operation, cast(Worker, self.call.worker).id

    @property
    def seconds(self) -> tuple[float, float, float]:
        """Latency, queue, execution."""
        latency_ns = NOW_NS - self.call.started_ns
        return latency_ns / 1e9, (self.call.queue_ns or 0) / 1e9, self.times.execution_ns / 1e9


class _OnWorker:
    """What `call_events.ended` reads of a worker."""

    def __init__(self, name: str) -> None:
        self.id = name
        self.records: dict[str, dict[str, Record]] = {}
        self.records_of: Series | None = None


def rows_of(series: int, workers: int = 1) -> list[Row]:
    """Return the rows of *series*: operations on so many *workers*."""
    count = -(-series // len(DISTRIBUTIONS))
    return [(f"operation_{number // workers}", f"{POOL}-{number % workers}") for number in range(count)]


def room_for(rows: Sequence[Row]) -> int:
    """Return the series limit that keeps all *rows* separate. An eighth is reserved for calls beyond the limit."""
    return max(SERIES_LIMIT, (len(rows) * 8 // 7 + 2) * len(DISTRIBUTIONS))


def done(rows: Sequence[Row], count: int, seed: int = 1) -> list[Done]:
    """Return *count* calls of *rows*, in random order."""
    chance, options, no_future = random.Random(seed), Options(), cast(Any, None)
    workers = {worker: cast(Worker, _OnWorker(worker)) for _, worker in rows}
    found = []
    for queue_ns, execution_ns in _durations_ns(count, seed).tolist():
        operation, worker = chance.choice(rows)
        call = Call(next_id(), operation, (), {}, options, no_future, None, 0.0, NOW_NS - queue_ns - execution_ns)
        call.queue_ns, call.worker, call.attempts = queue_ns, workers[worker], 1
        found.append(Done(call, CallTimes(execution_ns, execution_ns)))
    return found


def emit_ended(work: Sequence[Done]) -> None:
    """Emit the end of calls, as the pool does when they have succeeded."""
    ended = call_events.ended
    for call, times in work:
        ended(IDENTITY, call, None, times, NOW_NS)


def skip_all(work: Sequence[Done]) -> None:
    for _call, _times in work:
        pass


def _durations_ns(count: int, seed: int) -> NDArray[np.int64]:
    """Return queue and execution times (medians 60 µs and 24 ms), both with a long tail; shape (count, 2)."""
    return np.random.default_rng(seed).lognormal([11.0, 17.0], 0.8, (count, 2)).astype(np.int64)


class Hour(NamedTuple):
    """A collector all of whose windows are full."""

    collector: Collector
    clock: ManualClock
    rows: list[Row]
    per_second: int
    """Calls a second that it has counted."""

    @property
    def series(self) -> int:
        return len(self.rows) * len(DISTRIBUTIONS)


class Handler(Protocol):
    """Receives calls while it is attached."""

    def attach(self) -> None: ...

    def detach(self) -> object: ...


@contextmanager
def attached(handler: Handler) -> Iterator[None]:
    handler.attach()
    try:
        yield
    finally:
        handler.detach()


@contextmanager
def an_hour(rows: list[Row], per_second: int) -> Iterator[Hour]:
    """A collector that has counted *per_second* calls a second for an hour, attached while the context is open."""
    clock = ManualClock()
    collector = Collector([POOL], clock, series_limit=room_for(rows), memory_limit=MEMORY_LIMIT)
    with attached(collector):
        grow_old(collector, clock, rows, per_second)
        yield Hour(collector, clock, rows, per_second)


def grow_old(collector: Collector, clock: ManualClock, rows: list[Row], per_second: int, past: Past = PAST) -> None:
    """Let *past* go by: a little more than an hour by default.

    Its calls are put straight into the windows: emitting them one by one would take longer than the benchmark.
    """
    for row in rows:
        emit_ended(done([row], 1))
    numbers = {key[1:]: number for number, key in enumerate(collector.totals().names.rows)}
    codes = [code_of(numbers[row]) for row in rows]
    for seconds, steps, variety in past:
        calls = min(per_second * seconds, MOST_CALLS)
        some = [_batch(codes, len(numbers), calls, seed) for seed in range(variety)]
        for batch in islice(cycle(some), steps):
            collector._stores.windows.add(round(collector.wall_s() * 1e9), batch)
            clock.advance(seconds)
            collector.tick()


def _batch(codes: list[int], rows: int, calls: int, seed: int) -> CallBatch:
    queue, execution = _durations_ns(calls, seed).T
    code = np.random.default_rng(seed).choice(codes, calls)
    records = np.stack((code, queue + execution, queue, execution), axis=1)
    return fold(records.reshape(-1).tolist(), np.zeros(rows, np.intp), 1)
