"""What the advisor remembers of one pool: its calls, and the figures that are computed from them.

Calls come in a plain list of numbers, `RECORD` for each. They are put among the latest calls when the list is full
(`keep`), and are counted in bulk (`fold`): once a second, and when there are `MANY`.
"""

from __future__ import annotations

import math
import statistics
import struct
from collections import deque
from collections.abc import Mapping
from operator import index
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pool_monitor.advisor import call_ring, operation_journal, worker_journal
from pool_monitor.advisor.bucket_ring import BucketRing
from pool_monitor.advisor.call_ring import CallRing
from pool_monitor.advisor.history import (
    BUCKET_S,
    BUCKETS,
    CALLS,
    CANCELLED,
    ERROR,
    OK,
    OPERATIONS,
    REJECTED,
    SPAN_S,
    SPANS,
    TIMEOUT,
    WORKER_LOST,
    WORKERS,
    Incident,
)
from pool_monitor.advisor.numbering import Numbering
from pool_monitor.advisor.operation_journal import OperationJournal
from pool_monitor.advisor.worker_journal import WorkerJournal
from pool_monitor.snapshot import PoolView
from pool_monitor.telemetry import FAILURES, pass_on

RECORD = 5
"""Numbers of a call in the buffer: its code, when it ended, and its whole, waiting and execution time in ns."""
BUFFER = 1024
"""Most calls in the buffer. Putting them among the latest calls takes a tenth of a millisecond."""
FULL = BUFFER * RECORD
MANY = 4 * BUFFER
"""Calls that are counted within the second too, in a third of a millisecond: a quarter of them takes half as long."""
FEW, FOLD_S = 512, 30.0
"""Calls that are counted within a second, and after how many seconds fewer are."""
OUTCOMES = {
    "ok": OK,
    "error": ERROR,
    "timeout": TIMEOUT,
    "cancelled": CANCELLED,
    "worker_lost": WORKER_LOST,
    "rejected": REJECTED,
}
INCIDENTS = 1000
INCIDENT_S = 10.0
INCIDENTS_KEPT_S = 9 * 3600.0
ERRORS = 256
STARTS = 20
"""Starts of workers whose median is the cold start."""
LONGEST_NS = 2**53
"""A longer time than this, 104 days, is nonsense."""
_MEAN_OF = 10_000  # calls that the mean of the service time weighs

COUNTED = (
    *("ended", "failed", "timed_out", "refused", "retries", "wait_sum", "wait_over", "service_sum"),
    *("arrivals", "cpu", "cpu_samples", "size", "ready", "busy", "waiting", "ticks", "starts", "start_seconds"),
    *("deaths", "planned_ends", "resizes", "reversals"),
)
"""The columns of the buckets of a pool. ``size`` to ``waiting`` are sums over ``ticks``."""
_SPAN_COLUMNS = ("calls", "needed", "size", "busy", "ticks", "service_sum", "wall", "known")

BYTES = (
    call_ring.BYTES
    + BUCKETS * (len(COUNTED) + 1) * 8
    + SPANS * (len(_SPAN_COLUMNS) + 1) * 8
    + operation_journal.BYTES
    + worker_journal.BYTES
    + FULL * 40
    + (MANY + BUFFER) * RECORD * 8
    + 2 * INCIDENTS * 300
)
"""Most bytes of a `PoolJournal`: about 13 MB, with as many operations and workers as are told apart."""


def code_of(operation: int, worker: int, outcome: int = OK, error: int = -1) -> int:
    """The code of a call in the buffer."""
    return (((error + 1) << 9 | (worker + 1)) << 8 | operation) << 3 | outcome


def _block(numbers: list[Any]) -> NDArray[np.int64]:
    """Rows of *numbers*, the records of calls one after the other. Raises as numpy does for what is no integer."""
    try:
        flat = np.frombuffer(struct.pack(f"{len(numbers)}q", *numbers), np.int64)  # in half the time that numpy takes
    except struct.error:
        flat = np.array(numbers, np.int64)
    return np.ascontiguousarray(flat.reshape(-1, RECORD).T)


class _Gauges(NamedTuple):
    """What the arrivals are computed from."""

    instance: str | None
    completed: int
    refused: int
    open_calls: int


class PoolJournal:
    """The memory of one pool: at most `CALLS` calls (2 MB), 9 hours of buckets, 8 days of spans, and the histories of
    its operations and workers. That is about 3 MB for a usual pool and at most `BYTES`. It is used from one thread.
    """

    def __init__(self, pool: str, wait_target: float | None = None, calls: int = CALLS) -> None:
        """*calls*: how many calls are kept."""
        self.pool = pool
        self.buffer: list[Any] = []
        self.operations, self.workers, self.errors = Numbering(OPERATIONS), Numbering(WORKERS), Numbering(ERRORS)
        self.calls = CallRing(calls)
        self.buckets = BucketRing(COUNTED, BUCKET_S, BUCKETS)
        self.spans = BucketRing(_SPAN_COLUMNS, SPAN_S, SPANS)
        self.by_operation = OperationJournal()
        self.by_worker = WorkerJournal()
        self.incidents: deque[Incident] = deque(maxlen=INCIDENTS)
        self.weights: tuple[int, int] = (1, 1)
        """How many calls one event stands for: of a call that ended well, and of any other."""
        self.dropped = 0
        """Calls left out because their numbers were nonsense."""
        self.configured_target = wait_target
        self.service_mean: float | None = None
        self.starts: deque[float] = deque(maxlen=STARTS)
        self.arrived = self.refused = self.completed = 0
        """Calls that have arrived, that were refused, and that have ended in any way, as the gauges tell, since the
        journal began. Events may be filtered; gauges are not.
        """
        self.wanted = self.ready = 0
        """Workers that there should be, and that are busy or idle, by the latest gauges."""
        self._weighed = 0
        self._gauges: _Gauges | None = None
        self._open_incidents: dict[tuple[int, int, int], Incident] = {}
        self._last_direction = 0
        self._wall_of: int | None = None  # the span whose wall-clock time is noted
        self._folded_at = -math.inf
        self._kept: list[NDArray[np.int64]] = []  # blocks that are among the calls, but not counted yet

    @property
    def nbytes(self) -> int:
        """Bytes of memory that it takes."""
        kept = sum(block.nbytes for block in self._kept)
        stores = (self.calls, self.buckets, self.spans, self.by_operation, self.by_worker)
        return sum(store.nbytes for store in stores) + len(self.buffer) * 40 + len(self.incidents) * 160 + kept

    @property
    def wait_target(self) -> float | None:
        """The wait that 95 % of the calls may have; None: neither configured nor known."""
        return self.service_mean if self.configured_target is None else self.configured_target

    @property
    def cold_start(self) -> float | None:
        """Median of the latest starts of workers in seconds; None: none was seen."""
        return statistics.median(self.starts) if self.starts else None

    # -- calls -----------------------------------------------------------------------------------------------------

    @property
    def uncounted(self) -> int:
        """Calls that were not counted yet."""
        return len(self.buffer) // RECORD + sum(len(block[0]) for block in self._kept)

    def fold_when_due(self, now: float) -> None:
        """Count the calls in the buffer, unless they are few and are there for a few seconds only: counting one costs
        nearly as much as counting a hundred.
        """
        if self.uncounted >= FEW or now - self._folded_at >= FOLD_S:
            self._folded_at = now
            self.fold()

    def keep_full(self) -> None:
        """Empty the buffer, which is full. The calls are counted by `fold_when_due` unless they have become many."""
        self.keep()
        if self.uncounted >= MANY:
            self.fold()

    def fold(self) -> None:
        """Count the calls in the buffer, and those that were only kept."""
        self.keep()
        if self._kept:
            blocks, self._kept = self._kept, []
            self._count(blocks[0] if len(blocks) == 1 else np.concatenate(blocks, axis=1))

    def keep(self) -> None:
        """Put the calls in the buffer among the latest calls. Counting them can wait: it takes five times as long."""
        if not self.buffer:
            return
        try:
            block = _block(self.buffer)
        except (TypeError, ValueError, OverflowError):
            block = self._readable()
        finally:
            self.buffer.clear()
        whole, queue, execution = block[2:]
        good = (queue >= 0) & (queue <= whole) & (whole <= LONGEST_NS) & (execution <= LONGEST_NS)
        if not good.all():
            self.dropped += int((~good).sum())
            block = block[:, good]
        if block.shape[1]:
            self._keep(block)
            self._kept.append(block)

    def _readable(self) -> NDArray[np.int64]:
        """The calls of the buffer whose numbers can be read."""
        found: list[int] = []
        for place in range(0, len(self.buffer), RECORD):
            try:
                numbers = [index(number) for number in self.buffer[place : place + RECORD]]
                np.array(numbers, np.int64)
            except FAILURES as error:
                pass_on(error)
                self.dropped += 1
            else:
                found += numbers
        return _block(found)

    def _keep(self, block: NDArray[np.int64]) -> None:
        code = block[0].astype(np.int32)
        worker = (code >> 11 & 0x1FF) - 1
        ended, whole, queue = block[1:4] / 1e9
        arrived = ended - whole
        started = np.where(worker >= 0, arrived + queue, np.nan)
        codes = (code >> 3 & 0xFF, worker, code & 7, (code >> 20) - 1)
        self.calls.add(np.array((arrived, started, ended)), np.array(codes))

    def _count(self, block: NDArray[np.int64]) -> None:
        code, ended_ns, whole, queue, _execution = block
        outcome = (code & 7).astype(np.int32)
        operation = (code >> 3 & 0xFF).astype(np.int32)
        worker = ((code >> 11 & 0x1FF) - 1).astype(np.int32)
        ended, wait = ended_ns / 1e9, queue / 1e9
        on_worker = worker >= 0
        service = np.where(on_worker, (whole - queue) / 1e9, 0.0)
        weight = np.ones(len(code)) if self.weights == (1, 1) else np.where(outcome == OK, *map(float, self.weights))
        self._learn_mean(service, on_worker & (outcome <= ERROR))
        target = self.wait_target
        over = weight * (on_worker & (wait > (np.inf if target is None else target)))
        self._into_buckets(
            ended,
            (
                weight * on_worker,
                weight * ((outcome == ERROR) | (outcome == WORKER_LOST)),
                weight * (outcome == TIMEOUT),
                weight * (outcome == REJECTED),
                np.zeros(1),
                weight * on_worker * wait,
                over,
                weight * service,
            ),
        )
        if not on_worker.all():
            operation, worker, outcome, weight = (a[on_worker] for a in (operation, worker, outcome, weight))
            service, ended, whole = service[on_worker], ended[on_worker], whole[on_worker]
        if len(ended):
            self.by_operation.add(ended, operation, outcome, service, whole / 1e9, weight)
            self.by_worker.add(ended, operation, worker, outcome, service, weight)

    def _into_buckets(self, ended: NDArray[np.float64], columns: tuple[NDArray[np.float64], ...]) -> None:
        numbers = np.floor(ended / BUCKET_S).astype(np.int64)
        first = int(numbers.min())
        everything = first == numbers.max()  # nearly always: then nothing has to be sorted
        for number in [first] if everything else np.unique(numbers).tolist():
            row = self.buckets.row(number)
            if row is not None:
                mask = numbers == number
                sums = [c.sum() if everything or len(c) == 1 else c[mask].sum() for c in columns]
                row[: len(sums)] += sums
                span = self.spans.row(self.spans.number(number * BUCKET_S))
                if span is not None:
                    span[0] += sums[0]
                    span[5] += sums[7]

    def _learn_mean(self, service: NDArray[np.float64], counted: NDArray[np.bool_]) -> None:
        count = int(counted.sum())
        if count:
            self._weighed = min(self._weighed + count, _MEAN_OF)
            before = self.service_mean or 0.0
            self.service_mean = before + (float(service[counted].mean()) - before) * count / self._weighed

    def note_failure(self, at: float, operation: int, worker: int, error: int) -> None:
        """Count a failure of a call that a worker had."""
        key = (operation, worker, error)
        incident = self._open_incidents.get(key)
        if incident is not None and at - incident.at <= INCIDENT_S:
            self._open_incidents[key] = incident._replace(failures=incident.failures + 1)
            return
        if incident is not None:
            self.incidents.append(incident)
        if len(self._open_incidents) >= INCIDENTS:
            self.close_incidents(at)
        if len(self._open_incidents) < INCIDENTS:
            self._open_incidents[key] = Incident(at, worker, operation, error, 1)

    def close_incidents(self, now: float) -> None:
        """Move the incidents that are over to the others, and forget those of long ago."""
        over = [key for key, incident in self._open_incidents.items() if now - incident.at > INCIDENT_S]
        for key in over:
            self.incidents.append(self._open_incidents.pop(key))
        while self.incidents and now - self.incidents[0].at > INCIDENTS_KEPT_S:
            self.incidents.popleft()

    def all_incidents(self) -> tuple[Incident, ...]:
        """The latest incidents, those that go on too, in the order of their beginnings."""
        both = sorted((*self.incidents, *self._open_incidents.values()), key=lambda incident: incident.at)
        return tuple(both[-INCIDENTS:])

    # -- gauges and workers ----------------------------------------------------------------------------------------

    def note_gauges(self, now: float, wall: float, view: PoolView) -> None:
        """Take the gauges of a second. Arrivals are what has ended and what is open, against the gauges before."""
        gauges = _Gauges(view.instance, view.completed, sum(view.refusals.values()), view.waiting + view.busy)
        before = self._gauges
        if before is None or gauges.instance != before.instance or gauges.completed < before.completed:
            before = _Gauges(gauges.instance, 0, 0, 0) if before is not None else gauges  # a new pool began at 0
        refused = max(gauges.refused - before.refused, 0)
        arrived = max(gauges.completed - before.completed + gauges.open_calls - before.open_calls, refused, 0)
        self._gauges = gauges
        self.arrived += arrived
        self.refused += refused
        self.completed += gauges.completed - before.completed
        self.wanted, self.ready = view.size, view.busy + view.idle
        self.buckets.add(
            now, arrivals=arrived, size=view.size, ready=self.ready, busy=view.busy, waiting=view.waiting, ticks=1
        )
        self.spans.add(now, size=view.size, busy=view.busy, ticks=1)
        number = self.spans.number(now)
        if number != self._wall_of:
            self._wall_of, span = number, self.spans.row(number)
            if span is not None and not span[6]:
                span[6] = wall - (now - number * SPAN_S)

    def note_resize(self, at: float, before: float, after: float) -> None:
        """Count a change of the size."""
        direction = (after > before) - (after < before)
        if direction:
            self.buckets.add(at, resizes=1, reversals=direction == -self._last_direction)
            self._last_direction = direction

    def note_start(self, at: float, worker: int, seconds: float) -> None:
        """Count a worker that became ready after *seconds*."""
        self.starts.append(seconds)
        self.buckets.add(at, starts=1, start_seconds=seconds)
        self.by_worker.began(worker, at)

    def note_end(self, at: float, worker: int, *, planned: bool) -> None:
        """Count the end of a process."""
        self.buckets.add(at, **{"planned_ends" if planned else "deaths": 1.0})
        if not planned:
            self.by_worker.ended(worker)

    def note_needed(self, at: float, needed: float) -> None:
        """Keep the size that the span which began at *at* has needed, as a replay found: the largest of several."""
        span = self.spans.row(self.spans.number(at + SPAN_S / 2))
        if span is not None:
            span[1], span[7] = max(span[1], needed), 1.0

    def columns(
        self, now: float, latest: int | None = None
    ) -> tuple[NDArray[np.int64], Mapping[str, NDArray[np.float64]]]:
        """The rows of 10 s that are over, or the *latest* of them: their numbers and columns, with means instead of
        sums of gauges.
        """
        self.fold()
        numbers, columns = self.buckets.before(now, latest)
        ticks = columns.pop("ticks")
        with np.errstate(divide="ignore", invalid="ignore"):
            for name in ("size", "ready", "busy", "waiting"):
                columns[name] = np.where(ticks > 0, columns[name] / ticks, np.nan)
        columns["arrivals"][ticks == 0] = np.nan
        columns["cpu"][columns.pop("cpu_samples") == 0] = np.nan
        return numbers, columns
