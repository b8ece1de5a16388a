"""`Journal`: keeps what the advisor and the tuner know of the pools, from the events of calls, workers and resources.

Theory of operation
-------------------
The handlers only append numbers or add to a sum. Of a call that ended well they get the numbers alone, by the lane of
its event, and put them into the list of the pool's `PoolJournal`, with the time. Once a second, in `tick`, the list is
counted in bulk, and the gauges of the pools are added. `history` makes copies, which may be used in another thread.

The time is that of the clock that was passed in: the same journal runs in a service and in the laboratory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from pool_monitor import events, telemetry
from pool_monitor.advisor.call_ring import CallChunk, joined
from pool_monitor.advisor.history import (
    CALLS,
    SPAN_S,
    Buckets,
    Calls,
    OperationHistory,
    PoolHistory,
    Spans,
    WorkerHistory,
)
from pool_monitor.advisor.host_journal import HostJournal
from pool_monitor.advisor.pool_journal import FULL, OUTCOMES, PoolJournal, code_of
from pool_monitor.clock import Clock
from pool_monitor.events import ABSENT, EventSpec
from pool_monitor.snapshot import PoolView, WorkerView
from pool_monitor.telemetry import FAILURES, EventName, Measurements, Metadata, Record, pass_on
from pool_monitor.tunable import Tunable

CALLS_OF_ALL = 4 * CALLS
"""Calls that are kept of all pools together: 8 MB, an eighth of the memory limit of a monitor that has set none."""
CALLS_LEAST = 5_000
"""Calls that are kept of a pool, however many pools there are."""
_PLANNED_ENDS = ("resize", "close")
"""Reasons of ``pool.worker.terminate`` that are planned. A recycled process emits ``pool.worker.recycle`` besides."""
_INCIDENTS = ("error", "timeout", "worker_lost")


class Journal:
    """Keeps the histories of *pools*, by name, on *clock*. Events of other pools are ignored.

    *instances* are the ids of the pools that have one: events of another pool of the same name are then ignored too.
    *wait_target* is the wait in seconds that 95 % of the calls may have; None: the mean time of a call on a worker.
    *journal_id* names its handlers. It is used from the thread of the event loop. Its memory is bounded: see
    `PoolJournal`.
    """

    def __init__(
        self,
        pools: Iterable[str],
        clock: Clock,
        *,
        journal_id: str,
        instances: Mapping[str, str] | None = None,
        wait_target: float | None = None,
    ) -> None:
        self._clock = clock
        self._id = journal_id
        self._instances = dict(instances or {})
        names = list(pools)
        most = calls_of_each(len(names))
        self.pools = {pool: PoolJournal(pool, wait_target, most) for pool in names}
        self.host = HostJournal()
        self.since = self.now()
        """When it began, in monotonic seconds."""
        self.dropped = 0
        """Events that could not be read."""
        self._filters: telemetry.Filters | None = None
        self._weights = 1, 1
        self._cpu_ns: dict[tuple[str, int], tuple[object, float]] = {}

    def now(self) -> float:
        """Monotonic seconds."""
        return self._clock.monotonic_ns() / 1e9

    def wall(self) -> float:
        """Seconds since the epoch."""
        return self._clock.wall_ns() / 1e9

    def attach(self) -> None:
        """Attach the handlers. What was kept before stays."""
        self.detach()
        for name, (spec, handler, bind) in self._handlers().items():
            telemetry.attach(name, spec.name, handler, bind=bind)

    def detach(self) -> None:
        """Detach the handlers, if they are attached."""
        for name in self._handlers():
            telemetry.detach(name)

    @property
    def held_bytes(self) -> int:
        """Bytes of memory that it takes."""
        return self.host.nbytes + sum(pool.nbytes for pool in self.pools.values())

    def tick(self, views: Mapping[str, PoolView], workers: Mapping[str, Sequence[WorkerView]] | None = None) -> None:
        """Count the calls of the last second, and take the gauges of the pools. To be called once a second.

        *workers* has the limits of the workers' memory, and may be left out.
        """
        now, wall = self.now(), self.wall()
        if telemetry.filters() is not self._filters:
            self._filters = telemetry.filters()
            stop, exception = events.OPERATION_STOP.name, events.OPERATION_EXCEPTION.name
            self._weights = telemetry.weight(stop), telemetry.weight(exception)
        for name, pool in self.pools.items():
            pool.fold_when_due(now)
            if pool.weights != self._weights:
                pool.fold()
                pool.weights = self._weights
            view = views.get(name)
            if view is not None:
                pool.note_gauges(now, wall, view)
            pool.close_incidents(now)
            for worker in (workers or {}).get(name, ()):
                pool.by_worker.limit(pool.workers.number(worker.id), worker.rss_limit)
        self.host.tick(now)

    def memory_left(self) -> float | None:
        """The bytes of memory that no worker of any pool takes, nor will take once all that are wanted have started;
        None: not known.
        """
        free = self.host.memory_free
        if free is None:
            return None
        for name, pool in self.pools.items():
            coming = pool.wanted - self.host.ready_then.get(name, pool.wanted)
            if coming > 0:
                free -= coming * (pool.by_worker.large_memory() or 0.0)
        return max(free, 0.0)

    # -- histories -------------------------------------------------------------------------------------------------

    def history(self, name: str, tunables: Sequence[Tunable] = ()) -> PoolHistory:
        """What is known of one pool now. The values are copies. *tunables* are those of the pool."""
        return self.taken(name, tunables)()

    def taken(self, name: str, tunables: Sequence[Tunable] = ()) -> Callable[[], PoolHistory]:
        """What is known of one pool now. The function makes the history of it, which takes up to a tenth of a second;
        a thread may call it.
        """
        pool = self.pools[name]
        pool.fold()
        now = self.now()
        settings = {tunable.name: tunable.value for tunable in tunables}
        size = next((tunable for tunable in tunables if tunable.name == "size"), None)
        buckets = _buckets(pool, self.host, now)
        known = buckets.size[~np.isnan(buckets.size)]
        now_size = round(float(known[-1])) if len(known) else 1
        most = pool.calls.most
        return partial(
            _made,
            pool.calls.chunks(most),
            pool.by_operation.taken(now),
            pool.by_worker.taken(now, len(pool.workers)),
            pool=name,
            now=now,
            wall=self.wall(),
            since=self.since,
            wait_target=math.nan if pool.wait_target is None else pool.wait_target,
            cold_start=pool.cold_start,
            low=now_size if size is None else round(size.low),
            high=now_size if size is None else round(size.high),
            settings=settings,
            buckets=buckets,
            spans=_spans(pool, now),
            operations=pool.operations.all(),
            workers=pool.workers.all(),
            errors=pool.errors.all(),
            incidents=pool.all_incidents(),
            cpu_quota=self.host.cpus if self.host.throttled_known else None,
            memory_free=self.host.memory_free,
            calls_most=most,
            one_in=max(pool.weights),
        )

    def latest_calls(self, name: str, since_total: int) -> tuple[Calls, int]:
        """The calls that have ended after the first *since_total*, and how many there were until now."""
        pool = self.pools[name]
        pool.keep()
        total = pool.calls.total
        return pool.calls.latest(total - since_total), total

    def note_needed(self, name: str, needed: Mapping[float, float]) -> None:
        """Keep the sizes that spans have needed, by the beginning of the span."""
        for at, size in needed.items():
            self.pools[name].note_needed(at, size)

    # -- handlers --------------------------------------------------------------------------------------------------

    def _handlers(self) -> dict[str, tuple[EventSpec, telemetry.HandlerFunction, telemetry.Bind | None]]:
        of_pools: list[tuple[EventSpec, Callable[[PoolJournal, Measurements, Metadata], object]]] = [
            (events.OPERATION_EXCEPTION, self._on_exception),
            (events.POOL_RESIZE, self._on_resize),
            (events.POOL_RETRY, self._on_retry),
            (events.WORKER_READY, self._on_ready),
            (events.WORKER_CRASH, self._on_crash),
            (events.WORKER_TERMINATE, self._on_terminate),
            (events.WORKER_RECYCLE, self._on_recycle),
            (events.RESOURCE_WORKER, self._on_worker),
        ]
        of_host: list[tuple[EventSpec, Callable[[Measurements, Metadata], object]]] = [
            (events.RESOURCE_HOST, self._on_host),
            (events.RESOURCE_PROCESS, self._on_process),
            (events.LOOP_RESUME, self._on_loop_resume),
        ]
        found: dict[str, tuple[EventSpec, telemetry.HandlerFunction, telemetry.Bind | None]] = {}
        for spec, method in of_pools:
            found[f"{self._id}.{spec.dotted}"] = (spec, self._of_pool(method), None)
        for spec, of_all in of_host:
            found[f"{self._id}.{spec.dotted}"] = (spec, self._of_host(of_all), None)
        stop, lag = events.OPERATION_STOP, events.LOOP_LAG
        found[f"{self._id}.{stop.dotted}"] = (stop, self._of_pool(self._on_stop), self.bind)
        found[f"{self._id}.{lag.dotted}"] = (lag, self._of_host(self._on_lag), partial(_bind_lag, self))
        return found

    def _of_pool(self, method: Callable[[PoolJournal, Measurements, Metadata], object]) -> telemetry.HandlerFunction:
        def handle(_name: EventName, measurements: Measurements, metadata: Metadata, _config: Any) -> None:
            try:
                pool = self._pool(metadata["pool"], metadata.get("pool_instance"))
                if pool is not None:
                    method(pool, measurements, metadata)
            except FAILURES as error:
                pass_on(error)
                self.dropped += 1

        return handle

    def _of_host(self, method: Callable[[Measurements, Metadata], object]) -> telemetry.HandlerFunction:
        def handle(_name: EventName, measurements: Measurements, metadata: Metadata, _config: Any) -> None:
            try:
                method(measurements, metadata)
            except FAILURES as error:
                pass_on(error)
                self.dropped += 1

        return handle

    def _pool(self, name: Any, instance: object) -> PoolJournal | None:
        """The journal that an event of a pool belongs to; None: it is of another pool."""
        expected = self._instances.get(name)
        return self.pools.get(name) if expected is None or not instance or instance == expected else None

    def bind(self, pool: str, operation: str, worker: str, _session_kind: str = "", pool_instance: str = "") -> Record:
        """A function that keeps a call that ended well, given its numbers."""
        journal = self._pool(pool, pool_instance)
        if journal is None:
            return _ignore
        code = code_of(journal.operations.number(operation), journal.workers.number(worker))
        buffer, extend = journal.buffer, journal.buffer.extend
        keep_full, now_ns = journal.keep_full, self._clock.monotonic_ns

        def record(duration: int, queue: int, execution: int) -> None:
            extend((code, now_ns(), duration, queue, execution))
            if len(buffer) >= FULL:
                keep_full()

        return record

    def _on_stop(self, pool: PoolJournal, measurements: Measurements, metadata: Metadata) -> None:
        record = self.bind(pool.pool, metadata["operation"], metadata["worker"])
        execution = measurements.get("execution_duration", ABSENT)
        record(measurements["duration"], measurements["queue_duration"], execution)

    def _on_exception(self, pool: PoolJournal, measurements: Measurements, metadata: Metadata) -> None:
        outcome, worker_name = metadata["outcome"], metadata.get("worker")
        operation = pool.operations.number(metadata["operation"])
        worker = -1 if worker_name is None else pool.workers.number(worker_name)
        error = pool.errors.number(_text(metadata.get("error"), outcome))
        code = code_of(operation, worker, OUTCOMES[outcome], error)
        times = measurements["duration"], measurements["queue_duration"]
        execution = measurements.get("execution_duration", ABSENT)
        pool.buffer += (code, self._clock.monotonic_ns(), *map(int, times), int(execution))
        if len(pool.buffer) >= FULL:
            pool.keep_full()
        if worker >= 0 and outcome in _INCIDENTS:
            pool.note_failure(self.now(), operation, worker, error)

    def _on_resize(self, pool: PoolJournal, measurements: Measurements, _metadata: Metadata) -> None:
        pool.note_resize(self.now(), _number(measurements["size_before"]), _number(measurements["size_after"]))

    def _on_retry(self, pool: PoolJournal, _measurements: Measurements, _metadata: Metadata) -> None:
        pool.buckets.add(self.now(), retries=1.0)

    def _on_ready(self, pool: PoolJournal, measurements: Measurements, metadata: Metadata) -> None:
        worker = pool.workers.number(metadata["worker"])
        pool.note_start(self.now(), worker, _number(measurements["duration"]) / 1e9)

    def _on_crash(self, pool: PoolJournal, _measurements: Measurements, metadata: Metadata) -> None:
        pool.note_end(self.now(), pool.workers.number(metadata["worker"]), planned=False)

    def _on_terminate(self, pool: PoolJournal, _measurements: Measurements, metadata: Metadata) -> None:
        if metadata["reason"] != "recycle":  # `_on_recycle` counts it
            planned = metadata["reason"] in _PLANNED_ENDS
            pool.note_end(self.now(), pool.workers.number(metadata["worker"]), planned=planned)

    def _on_recycle(self, pool: PoolJournal, _measurements: Measurements, metadata: Metadata) -> None:
        pool.note_end(self.now(), pool.workers.number(metadata["worker"]), planned=True)

    def _on_worker(self, pool: PoolJournal, measurements: Measurements, metadata: Metadata) -> None:
        now, pid = self.now(), metadata.get("pid")
        worker = pool.workers.number(metadata["worker"])
        rss, leak = measurements.get("rss"), measurements.get("leak_rate")
        if rss is not None:
            pool.by_worker.sample(now, worker, pid, _number(rss), None if leak is None else _number(leak))
        ratio, used_ns = measurements.get("cpu_ratio"), measurements.get("cpu_duration")
        key = pool.pool, worker
        if ratio is not None:
            self.host.note_own(now, key, _number(ratio))
        if used_ns is not None:
            used = _number(used_ns) / 1e9
            before = self._cpu_ns.get(key)
            self._cpu_ns[key] = (pid, used)
            if before is not None and before[0] == pid and used >= before[1]:
                pool.buckets.add(now, cpu=used - before[1], cpu_samples=1.0)

    def _on_host(self, measurements: Measurements, _metadata: Metadata) -> None:
        taken = {
            column: _number(measurements[name])
            for name, column in _HOST_COLUMNS.items()
            if measurements.get(name) is not None
        }
        self.host.note(self.now(), **taken)
        self.host.cpus = taken.get("host_cpus", self.host.cpus)
        self.host.throttled_known = self.host.throttled_known or "throttled_ratio" in taken
        total, used = measurements.get("memory_total"), measurements.get("memory_used")
        if total is not None and used is not None:
            self.host.memory_free = max(_number(total) - _number(used), 0.0)
            self.host.ready_then = {name: pool.ready for name, pool in self.pools.items()}

    def _on_process(self, measurements: Measurements, _metadata: Metadata) -> None:
        ratio = measurements.get("cpu_ratio")
        if ratio is not None:
            self.host.note_own(self.now(), _OWN_PROCESS, _number(ratio))

    def _on_loop_resume(self, measurements: Measurements, _metadata: Metadata) -> None:
        self.host.note_block(self.now(), _number(measurements["duration"]) / 1e9)

    def _on_lag(self, measurements: Measurements, _metadata: Metadata) -> None:
        self.host.note_lag(self.now(), _number(measurements["duration"]) / 1e9)


_HOST_COLUMNS = {
    "cpu_ratio": "host_cpu_ratio",
    "cpus": "host_cpus",
    "throttled_ratio": "throttled_ratio",
    "pressure_cpu": "pressure_cpu",
}
_OWN_PROCESS = "process"


def calls_of_each(pools: int) -> int:
    """How many calls are kept of each of so many pools: the more pools, the fewer, so that the memory of the monitor
    has room for them.
    """
    return min(CALLS, max(CALLS_LEAST, CALLS_OF_ALL // max(pools, 1)))


def _made(
    chunks: list[CallChunk],
    by_operation: Callable[[], dict[int, OperationHistory]],
    by_worker: Callable[[], dict[int, WorkerHistory]],
    *,
    calls_most: int,
    **known: Any,
) -> PoolHistory:
    calls = joined(chunks, calls_most)
    return PoolHistory(calls=calls, by_operation=by_operation(), by_worker=by_worker(), calls_most=calls_most, **known)


def _buckets(pool: PoolJournal, host: HostJournal, now: float) -> Buckets:
    numbers, columns = pool.columns(now)
    of_host, figures = host.columns(now)
    merged = dict(columns)
    places = np.searchsorted(of_host, numbers)
    there = places < len(of_host)
    there[there] = of_host[places[there]] == numbers[there]
    for name, values in figures.items():
        merged[name] = np.full(len(numbers), np.nan)
        merged[name][there] = values[places[there]]
    merged["lag_samples"] = np.nan_to_num(merged["lag_samples"])
    return Buckets(at=numbers.astype(np.float64) * pool.buckets.seconds, **merged)


def _spans(pool: PoolJournal, now: float) -> Spans:
    numbers, columns = pool.spans.before(now)
    ticks, calls = columns["ticks"], columns["calls"]
    with np.errstate(divide="ignore", invalid="ignore"):
        return Spans(
            at=numbers.astype(np.float64) * SPAN_S,
            wall=columns["wall"],
            calls=calls,
            needed=np.where(columns["known"] > 0, columns["needed"], np.nan),
            size=np.where(ticks > 0, columns["size"] / ticks, np.nan),
            busy=np.where(ticks > 0, columns["busy"] / ticks, np.nan),
            service_mean=np.where(calls > 0, columns["service_sum"] / calls, np.nan),
        )


def _bind_lag(journal: Journal) -> Record:
    return lambda duration: journal.host.note_lag(journal.now(), duration / 1e9)


def _ignore(_duration: int, _queue: int, _execution: int) -> None:
    """Take the numbers of a call of another pool."""


def _text(error: object, otherwise: str) -> str:
    return error if isinstance(error, str) else otherwise


def _number(value: Any) -> float:
    """A measurement. Raises ValueError for what is none."""
    number = float(value)
    if not (math.isfinite(number) and number >= 0):
        raise ValueError(f"{value!r} is no measurement")
    return number
