"""`PoolHistory`: what the patterns are given. Values only; `journal` makes them from events.

All times are monotonic seconds, on one clock. Columns are arrays of equal length, oldest first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int32]

BUCKET_S = 10.0
"""Seconds of a row of `Buckets`."""
BUCKETS = 9 * 360
"""Rows of 10 s that are kept: 9 hours."""
SPAN_S = 600.0
"""Seconds of a row of `Spans`."""
SPANS = 8 * 144
"""Rows that are kept: 8 days."""
CALLS = 50_000
"""Calls that are kept."""
OPERATIONS = WORKERS = 256
"""Operations and workers that are told apart; those above count as one, named ``(other)``."""
OK, ERROR, TIMEOUT, CANCELLED, WORKER_LOST, REJECTED = range(6)
"""The values of `Calls.outcome`."""


class Calls(NamedTuple):
    """The latest calls that have ended, in the order of their ends. At most `CALLS`; a call that was refused is there
    too, without a worker. None is left out between them, so that a replay is right, however short the time is that they
    cover: 25 s at 2,000 calls a second.
    """

    arrived: Floats
    started: Floats
    """When a worker was free for it; NaN: it never had one."""
    ended: Floats
    operation: Ints
    """Index in `PoolHistory.operations`."""
    worker: Ints
    """Index in `PoolHistory.workers`; -1: none."""
    outcome: Ints
    error: Ints
    """Index in `PoolHistory.errors`; -1: none."""


class Buckets(NamedTuple):
    """One row for each 10 s that are over. A figure that was not measured is NaN; a time in which nothing was measured
    at all, such as a suspended machine, has no rows.
    """

    at: Floats
    """The beginning of the row."""
    arrivals: Floats
    ended: Floats
    """Calls that had a worker and have ended."""
    failed: Floats
    """Calls that ended with an error of their operation, or lost their worker."""
    timed_out: Floats
    """Calls that ended with their time-out, also those that had no worker yet."""
    refused: Floats
    retries: Floats
    wait_sum: Floats
    """Seconds that the calls that ended have waited."""
    wait_over: Floats
    """Calls among them that waited longer than the target."""
    service_sum: Floats
    """Seconds that they were on a worker."""
    cpu: Floats
    """Processor-seconds of the workers, as measured from outside."""
    size: Floats
    """Mean of the workers wanted."""
    ready: Floats
    """Mean of the workers that were ready."""
    busy: Floats
    """Mean of the workers that were busy."""
    waiting: Floats
    """Mean of the calls in the queue."""
    starts: Floats
    """Workers that became ready."""
    start_seconds: Floats
    """Seconds that these starts took together."""
    deaths: Floats
    """Processes that ended unplanned: they crashed, or were killed, also because of one call."""
    planned_ends: Floats
    """Processes that ended because they were recycled, restarted or retired, or the pool closed."""
    resizes: Floats
    reversals: Floats
    """Resizes in the direction opposite to the one before."""
    lag_samples: Floats
    lag_p99: Floats
    """Seconds that the event loop was late (at 100 samples, the second largest)."""
    blocked: Floats
    """Seconds for which the event loop was blocked."""
    throttled_ratio: Floats
    """Share of the scheduling periods in which the cgroup was throttled."""
    host_cpu_ratio: Floats
    """Share of the processors in use, by whomever."""
    host_cpus: Floats
    """Processors that may be used."""
    own_cpus: Floats
    """Processors that the workers and this process used."""
    pressure_cpu: Floats
    """Share of the time in which some task waited for a processor."""


class Spans(NamedTuple):
    """One row for each ten minutes, for long memories."""

    at: Floats
    wall: Floats
    """The same as wall-clock time, seconds since the epoch."""
    calls: Floats
    needed: Floats
    """The smallest size with which 95 % of its calls would have waited for at most 0.7 times the target, by replay."""
    size: Floats
    busy: Floats
    service_mean: Floats


class OperationHistory(NamedTuple):
    """One operation, in hourly histograms of the time on a worker, which is that of `Calls`, from the start to the end:
    what the worker measures itself is less. See `service_bounds`.
    """

    hours: Floats
    """The beginning of each hour: at most 8 days."""
    counts: NDArray[np.int64]
    """Calls that the operation ended itself, well or with an error, by hour and class of that time. The last class
    has those beyond the highest bound.
    """
    timeouts: Floats
    """By hour: calls on a worker that ended with the time-out. They are in no class."""
    failed: Floats
    """By hour: calls that ended with an error, or lost their worker."""
    timeout: float | None
    """The time-out of these calls in seconds, if they were seen to end there or the pool told; None: not known."""
    span_calls: Floats
    """By hour and ten minutes of it: the calls that are in the classes."""
    span_levels: Floats
    """By hour and ten minutes of it: the mean of the logarithms of their seconds; NaN: there are none."""


class WorkerHistory(NamedTuple):
    """One slot, in windows of 5 minutes; at most 9 hours."""

    at: Floats
    calls: Floats
    busy: Floats
    """Seconds on a call."""
    expected: Floats
    """Seconds that the same mix of operations took on all workers, on the average."""
    failed: Floats
    since: float | None
    """When its process became ready; None: it is not."""
    rss: Floats
    """The latest samples of its process, 10 s apart or as measured; at most 24 hours of 5-minute minima before."""
    rss_at: Floats
    rss_limit: float | None
    leak_rate: float | None
    """Bytes per second, if the monitor's watch of resources calls it a leak."""


class Incident(NamedTuple):
    """Failures of one class, of one operation on one worker, within 10 s of the first. Refused and cancelled calls, and
    those that never had a worker, are none.
    """

    at: float
    """When the first of them ended."""
    worker: int
    operation: int
    error: int
    failures: int


class PoolHistory(NamedTuple):
    """What is known of one pool, and of the host it runs on."""

    pool: str
    now: float
    wall: float
    since: float
    """When the history began."""
    wait_target: float
    cold_start: float | None
    low: int
    high: int
    """The range of the pool's size."""
    settings: Mapping[str, float]
    """The values of the pool's tunables, by name."""
    calls: Calls
    buckets: Buckets
    spans: Spans
    operations: tuple[str, ...]
    workers: tuple[str, ...]
    errors: tuple[str, ...]
    by_operation: Mapping[int, OperationHistory]
    by_worker: Mapping[int, WorkerHistory]
    incidents: tuple[Incident, ...]
    """The latest, at most 1,000, of the last 9 hours."""
    cpu_quota: float | None = None
    """The limit of the cgroup in processors; None: there is none, or it is not known."""
    memory_free: float | None = None
    """Bytes that may still be used."""
    calls_most: int = CALLS
    """Calls that are kept of this pool: with so many in `calls`, earlier ones are forgotten."""
    one_in: int = 1
    """Above 1, a filter leaves out calls, and each in `calls` stands for so many: a replay is of no use. All counts are
    of all calls.
    """


def service_bounds() -> Floats:
    """The upper bounds of the classes of `OperationHistory.counts`, in seconds: from 10 us, each 5 % above the last."""
    return np.asarray(1e-5 * 1.05 ** np.arange(400), dtype=np.float64)
