"""The intake: counts the events of pools into the stores of a collector, calls in bulk and other events one by one.

Theory of operation
-------------------
A handler appends four numbers per call to one plain list and returns. It reads no clock, takes no lock, and makes
nothing that the garbage collector tracks. For calls that end well it receives only the numbers (`telemetry.attach` with
*bind*), so no mapping is made for them at all. The list is folded into the windows in bulk: on every tick (once a
second), on every read, and when it is full.

All calls of one fold count at the same moment: when the first of them ended, the only time the clock is read. So a call
never counts later than it ended, and earlier by less than the time between two folds. It may leave a window up to one
tick too soon, and never stays too long.

When a filter samples an event (`telemetry.configure`), each event that arrives counts as many times as its weight.
"""

from __future__ import annotations

import random
import statistics
import sys
from collections import deque
from collections.abc import Callable
from functools import partial
from operator import index
from typing import Any

from pool_monitor import telemetry
from pool_monitor.clock import SteadyClock
from pool_monitor.events import (
    ABSENT,
    HANDLER_FAILURE,
    OPERATION_EXCEPTION,
    OPERATION_STOP,
    POOL_ERROR,
    TELEMETRY_FILTER,
    WORKER_CRASH,
    WORKER_TERMINATE,
    EventSpec,
)
from pool_monitor.metrics.columns import DEATHS, FAILED, OUTCOMES
from pool_monitor.metrics.error_groups import FailedCall
from pool_monitor.metrics.error_text import crash_text, crash_text_with_output, pool_error_text
from pool_monitor.metrics.event_counters import EventCounters
from pool_monitor.metrics.fold import CATEGORY_CODES, KIND_CODES, LONGEST_NS, RECORD, CallBatch, fold
from pool_monitor.metrics.ladder import ONE_IN, Mode
from pool_monitor.metrics.series import RowKey, RowRegistry
from pool_monitor.metrics.stores import Stores
from pool_monitor.metrics.window import SECOND_NS
from pool_monitor.snapshot import CRASHED, START_FAILED
from pool_monitor.telemetry import FAILURES, EventName, HandlerFunction, Measurements, Metadata, pass_on

BUFFER_EVENTS = 2048
"""Most calls in the buffer. Folding this many takes half a millisecond; a larger buffer is hardly cheaper per call."""
_UNWANTED_ENDS = {"health": "did not answer", "protocol": "violated the protocol"}
"""How a worker died that the pool terminated for this reason. It counts as a death, like a crash."""

_FULL = BUFFER_EVENTS * RECORD
_FAILURES = {outcome: number for number, outcome in enumerate(OUTCOMES) if outcome != "ok"}
_FAILED = range(len(OUTCOMES))[FAILED]
_OTHER_CATEGORY = CATEGORY_CODES["other"]
_INTS_BYTES = (RECORD - 1) * 32
"""Bytes of the integers of one record, without its code."""
LAG_SPAN_NS = 10 * SECOND_NS
"""The stretch of time that the lag covers."""
_LAGS = 256
"""Most folds whose lag is kept."""
_ONE_IN = {Mode.FULL: 1, Mode.SAMPLED: ONE_IN, Mode.COUNTERS: 0, Mode.OFF: 0}
BUFFER_BYTES = BUFFER_EVENTS * (RECORD * 8 * 9 // 8 + _INTS_BYTES) + 1024  # a list allocates an eighth in advance
"""Most bytes that the buffer takes."""


class Intake:
    """Counts events of the pools of *registry* into *stores*. Events of other pools are ignored.

    The collector attaches and detaches the handlers, under ids that begin with *collector_id*. An intake is used from
    one thread and does no I/O. `reset` must be called before any other method.
    """

    def __init__(self, collector_id: str, registry: RowRegistry, stores: Stores, clock: SteadyClock) -> None:
        self._collector_id = collector_id
        self._registry = registry
        self._stores = stores
        self._clock = clock
        self._codes = registry.codes
        self._buffer: list[Any] = []
        self._stamp_ns = 0
        self.events = self.dropped = self.clamped = self.overflowed = self.handler_failures = 0
        """Calls folded; events that were invalid; durations out of range; calls without a row of their own; handlers
        that telemetry has detached. A `reset` does not reset them.
        """
        self.mode = Mode.FULL
        """What is kept of each call. The collector changes it, after `catch_up`."""
        self.squeezed = False
        """Whether calls were counted without their durations because there was no memory for more histograms."""
        self._lags: deque[tuple[int, int]] = deque(
            maxlen=_LAGS
        )  # of each fold: when, and how long the first call waited

    def reset(self) -> None:
        """Empty the buffer, and reset the counters of other events. The collector resets the stores."""
        self._freed_at_ns: int | None = None
        self._weights: tuple[int, int] | None = None  # None: read them from telemetry when they are needed
        self._buffer.clear()
        self._lags.clear()
        self.mode, self.squeezed = Mode.FULL, False
        self.event_counters = EventCounters(self._registry, self._drop)

    @property
    def nbytes(self) -> int:
        """Bytes that the buffer takes now: at most `BUFFER_BYTES`."""
        return sys.getsizeof(self._buffer) + len(self._buffer) // RECORD * _INTS_BYTES

    @property
    def buffered(self) -> int:
        """Calls in the buffer that are not folded yet: at most `BUFFER_EVENTS`."""
        return len(self._buffer) // RECORD

    def lag(self) -> tuple[float, float] | None:
        """How long calls waited in the buffer until they were folded, in seconds: the longest wait, and the median over
        the folds of the longest wait in each. They cover the last 10 s; None: no call was folded in that time.
        """
        since_ns = self._clock.now_ns() - LAG_SPAN_NS
        waits = [wait for at, wait in self._lags if at >= since_ns]
        return (max(waits) / SECOND_NS, statistics.median(waits) / SECOND_NS) if waits else None

    def handlers(self) -> dict[str, tuple[EventSpec, HandlerFunction]]:
        """The handlers to attach, by id, each with its event."""
        counted = {f"{self._collector_id}.{name}": pair for name, pair in self.event_counters.handlers.items()}
        return self.snapshot_handlers() | counted

    def snapshot_handlers(self) -> dict[str, tuple[EventSpec, HandlerFunction]]:
        """The handlers that Snapshots depend on."""
        return {
            f"{self._collector_id}.stop": (OPERATION_STOP, self._on_stop),
            f"{self._collector_id}.exception": (OPERATION_EXCEPTION, self._on_exception),
            f"{self._collector_id}.crash": (WORKER_CRASH, self._on_crash),
            f"{self._collector_id}.terminate": (WORKER_TERMINATE, self._on_terminate),
            f"{self._collector_id}.error": (POOL_ERROR, self._on_error),
            f"{self._collector_id}.failure": (HANDLER_FAILURE, self._on_handler_failure),
            f"{self._collector_id}.filter": (TELEMETRY_FILTER, self._on_filter),
        }

    # -- folding --------------------------------------------------------------------------------------------------

    def catch_up(self) -> int:
        """Bring windows and chart up to now. Returns now in ns, as the collector's clock counts it."""
        now_ns = self._clock.now_ns()
        self.fold()
        if self.mode is Mode.OFF:
            self._stores.windows.skip(now_ns)
        else:
            self._stores.windows.advance(now_ns)
        return now_ns

    def fold(self) -> None:
        """Count the calls in the buffer, all at the time of the first of them."""
        if not self._buffer:
            return
        if self._weights is None:
            self._weights = _weights()
        windows = self._stores.windows
        try:
            batch = self._batch(self.mode, self._weights)
            if not windows.has_room(batch.keys):
                self.squeezed = True
                batch = self._batch(Mode.COUNTERS, self._weights)
        finally:
            self._buffer.clear()
        self.events += batch.events
        self.dropped += batch.dropped
        self.clamped += batch.clamped
        windows.add(self._stamp_ns, batch)
        if batch.unsuccessful is not None:
            self._stores.failure_histograms.add(batch.unsuccessful, self._registry.names().rows, self._stamp_ns)
        now_ns = self._clock.now_ns()
        self._lags.append((now_ns, now_ns - self._stamp_ns))

    def _batch(self, mode: Mode, weights: tuple[int, int]) -> CallBatch:
        """The buffered calls, with what *mode* keeps of them."""
        registry, one_in = self._registry, _ONE_IN[mode]
        # A fixed phase would always take the first call of a fold. S311: this is no secret.
        phase = random.randrange(one_in) if one_in > 1 else 0  # noqa: S311
        return fold(self._buffer, registry.pool_of_rows(), len(registry.pools), weights, one_in=one_in, phase=phase)

    def _admit(self, key: RowKey) -> int | None:
        """The code for a call of a new *key*; None when the call must not be counted."""
        if key[0] not in self._registry.pools:
            return None
        if not _is_key(key):
            self.dropped += 1
            return None
        code = self._row_for(key)
        if code is None:
            self.overflowed += 1
            code = self._registry.other(key, self._clock.now_ns())
        return code

    def _row_for(self, key: RowKey) -> int | None:
        """The code of a *key* of the registry's pools, which gets a row if one is free; None when no row is free."""
        code = self._registry.register(key, self._clock.now_ns())
        if code is None and self._free_rows():
            code = self._registry.register(key, self._clock.now_ns())
        return code

    def _free_rows(self) -> bool:
        """Free unused rows, at most once a second: every call without a row calls this. Returns whether any was."""
        now_ns = self._clock.now_ns()
        if self._freed_at_ns is not None and now_ns - self._freed_at_ns < SECOND_NS:
            return False
        self._freed_at_ns = now_ns
        self.catch_up()  # what is buffered refers to rows by number
        rows = self._registry.free_rows(~self._stores.windows.used())
        self._stores.windows.clear_rows(rows)
        self._stores.failure_histograms.keep(self._registry.names().rows)
        if rows:
            OPERATION_STOP.event.rebind()  # replaces the functions bound to the freed rows
        return bool(rows)

    # -- handlers -------------------------------------------------------------------------------------------------

    def bind(
        self, pool: str, operation: str, worker: str, session_kind: str, pool_instance: str = ""
    ) -> Callable[[int, int, int], object]:
        """A function that counts a successful call of one kind, given its numbers: `_count` with the rest bound."""
        if not self._registry.is_collected(pool, pool_instance):
            return _ignore
        key, kind = (pool, operation, worker), KIND_CODES.get(session_kind, 0)
        row_code = self._row_for(key) if _is_key(key) else None
        if row_code is None:
            return partial(self._count, key, kind)  # no row yet: there is no code to bind
        code = row_code + kind
        buffer, extend, now_ns = self._buffer, self._buffer.extend, self._clock.now_ns

        def record(duration: int, queue: int, execution: int) -> None:
            if not buffer:
                self._stamp_ns = now_ns()
            extend((code, duration, queue, execution))
            if len(buffer) >= _FULL:
                self.fold()

        return record

    def _count(self, key: RowKey, more: int, duration: Any, queue: Any, execution: Any) -> bool:
        """Buffer a call of *key*, with *more* added to its code. Returns whether the call counts."""
        code = self._codes.get(key)
        if code is None:
            code = self._admit(key)
            if code is None:
                return False
        if not self._buffer:
            self._stamp_ns = self._clock.now_ns()
        self._buffer += (code + more, duration, queue, execution)
        if len(self._buffer) >= _FULL:
            self.fold()
        return True

    def _drop(self, error: BaseException) -> None:
        """Count an event as dropped: reading it raised *error*. An emitter may put any value into its mappings."""
        pass_on(error)
        self.dropped += 1

    def _on_stop(self, _name: EventName, measurements: Measurements, metadata: Metadata, _config: Any) -> None:
        try:
            key = (metadata["pool"], metadata["operation"], metadata["worker"])
            if self._is_collected(metadata):
                self._count(key, KIND_CODES.get(metadata.get("session_kind", "none"), 0), *_numbers_of(measurements))
        except FAILURES as error:
            self._drop(error)

    def _on_exception(self, _name: EventName, measurements: Measurements, metadata: Metadata, _config: Any) -> None:
        try:
            key = (metadata["pool"], metadata["operation"], metadata.get("worker"))
            outcome = _FAILURES[metadata["outcome"]]
            failed = outcome in _FAILED
            if not self._is_collected(metadata):
                return
            more = outcome + KIND_CODES.get(metadata.get("session_kind", "none"), 0)
            if failed:
                more += CATEGORY_CODES.get(metadata.get("category", "other"), _OTHER_CATEGORY)
            numbers = _numbers_of(measurements)
            counted = self._count(key, more, *numbers)
        except FAILURES as error:
            self._drop(error)
            return
        if counted and failed:
            self._note_failure(*key, metadata, grouped=_will_count(numbers))

    def _on_crash(self, _name: EventName, _measurements: Measurements, metadata: Metadata, _config: Any) -> None:
        try:
            pool, worker, text = metadata["pool"], metadata["worker"], crash_text(metadata)
            more, operation = crash_text_with_output(metadata), metadata.get("operation")
            collected = self._is_collected(metadata)
        except FAILURES as error:
            self._drop(error)
            return
        if collected:
            times = telemetry.weight(WORKER_CRASH.name)
            self._note_death(pool, text, times)
            now_ns = self._clock.now_ns()
            self._stores.last_errors.note(pool, worker, CRASHED + text, now_ns, of_process=True)
            self._stores.failures.note(pool, CRASHED[:-2], more, operation, worker, now_ns, times)

    def _on_terminate(self, _name: EventName, _measurements: Measurements, metadata: Metadata, _config: Any) -> None:
        try:
            pool, text = metadata["pool"], _UNWANTED_ENDS.get(metadata["reason"])
            collected = text is not None and self._is_collected(metadata)
        except FAILURES as error:
            self._drop(error)
            return
        if text is not None and collected:
            self._note_death(pool, text, telemetry.weight(WORKER_TERMINATE.name))

    def _on_error(self, _name: EventName, _measurements: Measurements, metadata: Metadata, _config: Any) -> None:
        try:
            pool, worker, text = metadata["pool"], metadata.get("worker"), pool_error_text(metadata)
            kind = START_FAILED[:-2] if text.startswith(START_FAILED) else str(metadata["category"])
            collected = self._is_collected(metadata)
        except FAILURES as error:
            self._drop(error)
            return
        if collected:
            now_ns, times = self._clock.now_ns(), telemetry.weight(POOL_ERROR.name)
            self._stores.last_errors.note(pool, worker, text, now_ns, of_process=True)
            message = text.removeprefix(START_FAILED)
            self._stores.failures.note(pool, kind, message, None, worker, now_ns, times)

    def _on_filter(self, _name: EventName, _m: Measurements, _metadata: Metadata, _config: Any) -> None:
        self.catch_up()  # the buffered events passed the old filter
        self._weights = None

    def _on_handler_failure(self, _name: EventName, _m: Measurements, metadata: Metadata, _config: Any) -> None:
        self.handler_failures += 1
        if metadata.get("handler_id") in self.handlers():
            self.dropped += 1

    # -- what goes wrong on a slot ---------------------------------------------------------------------------------

    def _is_collected(self, metadata: Metadata) -> bool:
        return self._registry.is_collected(metadata["pool"], metadata.get("pool_instance"))

    def _note_death(self, pool: str, text: str, times: int) -> None:
        self._stores.last_errors.note_death(pool, text)
        now_ns = self.catch_up()  # the buffered calls ended before the death
        self._stores.windows.note(now_ns, self._registry.pools.index(pool), DEATHS, times)

    def _note_failure(
        self, pool: str, operation: str, worker: str | None, metadata: Metadata, *, grouped: bool
    ) -> None:
        now_ns = self._clock.now_ns()
        error = metadata.get("error")
        text = error if isinstance(error, str) else metadata["outcome"]
        if self._weights is None:
            self._weights = _weights()
        reason, message = metadata.get("reason"), None
        if isinstance(reason, str):  # without the operation and the error: an entry has fields for them
            message = reason.removeprefix(f"{operation}: ").removeprefix(f"{text}: ").removeprefix(text) or None
        times = self._weights[1]
        self._stores.failures.note(pool, text, message, operation, worker, now_ns, times)
        if grouped:
            failure = FailedCall.of(text, message, operation, worker, metadata)
            self._stores.error_groups.note(pool, failure, self._stamp_ns, now_ns, times)
        if worker is None:
            return
        last_errors = self._stores.last_errors
        if metadata["outcome"] == "worker_lost" and last_errors.process_just_failed(pool, worker, now_ns):
            return  # how the worker died says more than that a call was lost with it
        last_errors.note(pool, worker, text, now_ns, of_process=False)


def _ignore(_duration: int, _queue: int, _execution: int) -> None:
    """Take the numbers of a call of another pool."""


def _is_key(key: tuple[Any, Any, Any]) -> bool:
    _pool, operation, worker = key
    return isinstance(operation, str) and (worker is None or isinstance(worker, str))


def _numbers_of(measurements: Measurements) -> tuple[Any, Any, Any]:
    """The numbers of a call from *measurements*, in the order of a record."""
    return measurements["duration"], measurements["queue_duration"], measurements.get("execution_duration", ABSENT)


def _will_count(numbers: tuple[Any, Any, Any]) -> bool:
    """Whether `fold` counts a call with *numbers*. Folding happens later, but only what counts belongs to a group."""
    duration, queue, execution = numbers
    try:
        return all(0 <= index(ns) <= LONGEST_NS for ns in (duration, queue, 0 if execution == ABSENT else execution))
    except FAILURES as error:
        pass_on(error)
        return False


def _weights() -> tuple[int, int]:
    """How many calls one event stands for: of a call that ended well, and of any other."""
    return telemetry.weight(OPERATION_STOP.name), telemetry.weight(OPERATION_EXCEPTION.name)
