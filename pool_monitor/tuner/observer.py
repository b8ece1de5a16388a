"""`Observer`: makes the observations that a policy is given, from a `Journal` and the gauges of a pool."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import overload

import numpy as np
from numpy.typing import NDArray

from pool_monitor.advisor.history import BUCKET_S, ERROR, TIMEOUT, Calls
from pool_monitor.advisor.journal import Journal
from pool_monitor.snapshot import PoolView
from pool_monitor.tuner.observation import EndedCall, Observation

COLD_START_S = 2.0
"""The cold start that is expected until a start was seen."""
WAIT_TARGET_S = 1.0
"""The target until a call has ended, if none is configured."""
CALLS_MAX = 5000
"""Most calls per second of the interval that an observation has: the latest."""
CPU_BUCKETS = 60
"""Rows of 10 s that the processor-seconds per busy second are taken from: ten minutes."""
USED_BUCKETS = 6
"""The latest of them, which the processors that are used now are taken from."""
BUSY_MIN_S = 10.0
"""Seconds on calls below which the processor-seconds per busy second are not known."""


class Observer:
    """Observes the pool *pool* of *journal*: one observation each time it is asked."""

    def __init__(self, journal: Journal, pool: str) -> None:
        self._journal, self._pool = journal, journal.pools[pool]
        self._at: float | None = None
        self._seen = self._pool.calls.total
        self._arrived = self._refused = self._completed = 0
        self._cpu_fraction: float | None = None
        self._cpu_at = -math.inf

    def observe(
        self,
        view: PoolView,
        *,
        low: int,
        high: int,
        wait_target: float | None = None,
        cold_start: float = COLD_START_S,
        memory_free: float | None = None,
    ) -> Observation:
        """What has happened since the observation before, and the gauges *view*, on the clock of the journal.

        `Journal.tick` must have taken the gauges of this moment before. *low* and *high* are the range in which the
        answer must be. *cold_start* is what is expected before a start was seen, and *memory_free* the bytes that more
        workers may take, if the caller knows better than the host's figures.
        """
        journal, pool = self._journal, self._pool
        now = journal.now()
        columns, total = journal.latest_calls(pool.pool, self._seen)
        self._seen = total
        interval = 0.0 if self._at is None else now - self._at
        arrivals, refused = pool.arrived - self._arrived, pool.refused - self._refused
        completed = pool.completed - self._completed
        self._at, self._arrived, self._refused, self._completed = now, pool.arrived, pool.refused, pool.completed
        kept = _ended(columns, interval)
        self._measure_processors(now)
        measured = pool.cold_start
        target = pool.wait_target if wait_target is None else wait_target
        free = journal.memory_left() if memory_free is None else memory_free
        worker = pool.by_worker.large_memory()
        return Observation(
            now=now,
            wall=journal.wall(),
            interval=interval,
            size=view.size,
            low=low,
            high=high,
            busy=view.busy,
            idle=view.idle,
            starting=view.starting,
            waiting=view.waiting,
            arrivals=arrivals,
            refused=refused,
            calls=_calls(columns, kept),
            wait_target=WAIT_TARGET_S if target is None or not target > 0 else target,
            cold_start=cold_start if measured is None else measured,
            cpus=journal.host.cpus_left(now, pool.pool),
            cpu_fraction=self._cpu_fraction,
            worker_memory=None if worker is None else int(worker),
            memory_free=None if free is None else int(free),
            crash_loops=view.crash_loops,
            failed=int(np.count_nonzero(columns.outcome[kept] == ERROR)) * pool.weights[1],
            ended=max(len(kept), completed - refused),
        )

    def _measure_processors(self, now: float) -> None:
        """Compute again, every 10 s, the processor-seconds per busy second, and the processors that the pool uses."""
        if now - self._cpu_at >= self._pool.buckets.seconds:
            self._cpu_at = now
            _numbers, columns = self._pool.columns(now, CPU_BUCKETS)
            cpu, busy = columns["cpu"], columns["service_sum"]
            measured = ~np.isnan(cpu)
            seconds = float(busy[measured].sum())
            self._cpu_fraction = float(cpu[measured].sum()) / seconds if seconds >= BUSY_MIN_S else None
            if measured[-USED_BUCKETS:].any():
                self._journal.host.note_pool(now, self._pool.pool, float(np.nanmean(cpu[-USED_BUCKETS:])) / BUCKET_S)


class EndedCalls(Sequence[EndedCall]):
    """Calls as columns: an `EndedCall` is made when it is asked for. A policy may look at none of them, or at a few."""

    __slots__ = ("_columns",)

    def __init__(self, columns: NDArray[np.float64]) -> None:
        """*columns*: rows (arrived, started, ended)."""
        self._columns = columns

    def __len__(self) -> int:
        return int(self._columns.shape[1])

    @overload
    def __getitem__(self, place: int) -> EndedCall: ...

    @overload
    def __getitem__(self, place: slice) -> EndedCalls: ...

    def __getitem__(self, place: int | slice) -> EndedCall | EndedCalls:
        found = self._columns[:, place]
        return EndedCalls(found) if isinstance(place, slice) else EndedCall(*found.tolist())

    def __iter__(self) -> Iterator[EndedCall]:
        rows = zip(*self._columns.tolist(), strict=True)
        return map(tuple.__new__, repeat(EndedCall), rows)  # what EndedCall(*row) does, in half the time

    def __repr__(self) -> str:
        return f"<EndedCalls {len(self)}>"


def _ended(columns: Calls, interval: float) -> NDArray[np.intp]:
    """Where the calls are that have ended on a worker, at most the latest `CALLS_MAX` for each second."""
    kept = np.flatnonzero(~np.isnan(columns.started) & (columns.outcome <= TIMEOUT))
    return kept[-max(int(CALLS_MAX * interval), CALLS_MAX) :]


def _calls(columns: Calls, kept: NDArray[np.intp]) -> EndedCalls:
    return EndedCalls(np.array((columns.arrived[kept], columns.started[kept], columns.ended[kept])))
