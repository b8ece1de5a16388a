"""The collector: hears how calls end and keeps the windows a Snapshot is made from.

Theory of operation
-------------------
A handler puts four numbers per call into one plain list and returns: no clock is read, no lock taken, nothing the
garbage collector tracks is made. Of calls that end well only the numbers are asked for (`telemetry.attach` with
*bind*), so no mapping is made for them at all. The list is folded into the windows in bulk: on every tick (once a
second), on every read, and when it is full.

Everything folded at once counts at one moment: when the first call of it ended, the only one the clock is read for.
So a call is never counted later than it ended, and earlier by less than the time between two folds: it may leave a
window up to a tick too soon, and never stays too long.

Time in here begins as that of the wall clock and never steps (`SteadyClock`): slots begin on full minutes of the
wall clock, and go on doing so while nobody sets it.

When a filter thins out an event (`telemetry.configure`), what is heard of it counts as many times as its weight says.

It is used from one thread, that of the event loop its pools run on. Nothing in here waits, blocks or does I/O.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

from pool_monitor import telemetry
from pool_monitor.clock import Clock, SteadyClock
from pool_monitor.errors import ConfigError
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
from pool_monitor.metrics import error_text, pool_stats
from pool_monitor.metrics.block import Block
from pool_monitor.metrics.columns import (
    DEATHS,
    DISTRIBUTIONS,
    FAILED,
    GAUGE_SUMS,
    GAUGES,
    OUTCOMES,
    PEAK_GAUGES,
    SAMPLES,
)
from pool_monitor.metrics.failed_calls import FailedCalls
from pool_monitor.metrics.fold import CATEGORY_CODES, KIND_CODES, RECORD, fold
from pool_monitor.metrics.last_failures import LastFailures
from pool_monitor.metrics.occurrences import Occurrences
from pool_monitor.metrics.pool_stats import PoolStats
from pool_monitor.metrics.recording import Part, Recorded, Totals
from pool_monitor.metrics.series import ROW_BYTES, Key, Names, Registry, can_be_told
from pool_monitor.metrics.trend import TrendRing
from pool_monitor.metrics.window import LONGEST, SECOND_NS, Window, Windows
from pool_monitor.snapshot import CRASHED, START_FAILED, MonitorView, PoolView
from pool_monitor.snapshot.checks import plain_text
from pool_monitor.telemetry import (
    FAILURES,
    EventName,
    HandlerFunction,
    Measurements,
    Metadata,
    describe,
    pass_on,
)

BUFFER_EVENTS = 2048
"""Calls buffered at most: folding that many at once takes half a millisecond; more would be little cheaper per call."""
MEMORY_LIMIT = 64 * 1024 * 1024
MEMORY_PER_SERIES, MEMORY_PER_POOL = 32 * 1024, 256 * 1024
"""What the limit grows by per series and pool when there may be more than fit into `MEMORY_LIMIT`."""
LAST_ERRORS = 1024
"""Slots whose last error is remembered: more than a machine can run."""
_DRIFT_S = 0.75
"""Seconds by which the wall clock has to differ from the drift noted last, for that to be a step of it."""
_TEXT_LIMIT = 80
_UNWANTED_ENDS = {"health": "did not answer", "protocol": "spoke nonsense"}
"""Why a worker was killed that nobody wanted to end, in words: it counts as dead like one that crashed."""

_FULL = BUFFER_EVENTS * RECORD
_FAILURES = {outcome: number for number, outcome in enumerate(OUTCOMES) if outcome != "ok"}
_FAILED = range(len(OUTCOMES))[FAILED]
_OTHER_CATEGORY = CATEGORY_CODES["other"]
_INTS_BYTES = (RECORD - 1) * 32
"""The integers of one record, all but its code."""
_BUFFER_BYTES = BUFFER_EVENTS * (RECORD * 8 * 9 // 8 + _INTS_BYTES) + 1024  # a list allots an eighth ahead
_ERROR_BYTES = 1024
"""Upper estimate of one remembered error."""
_numbers = itertools.count(1)


class Collector:
    """Counts the calls of *pools*, by name; those of other pools are somebody else's business.

    *series_limit* is the most histograms kept (`pool_monitor.metrics.series`), *memory_limit* the most bytes all
    of this may ever hold: 64 MiB, or 32 KiB per series and 256 KiB per pool if that is more. When the windows would
    need more they reach back less far, and say so. Raises ConfigError when the two do not go together, and when the
    process may not have so many addresses.
    """

    def __init__(
        self, pools: Iterable[str], clock: Clock, series_limit: int = 2000, memory_limit: int | None = None
    ) -> None:
        self.id = f"pool_monitor.collector-{next(_numbers)}"
        self._clock = SteadyClock(clock)
        self._registry = Registry(pools, series_limit)
        self.series_limit = series_limit
        rows, number = self._registry.row_limit, len(self._registry.pools)
        asked = series_limit * MEMORY_PER_SERIES + number * MEMORY_PER_POOL
        self.memory_limit = max(MEMORY_LIMIT, asked) if memory_limit is None else memory_limit
        fixed = _BUFFER_BYTES + LAST_ERRORS * _ERROR_BYTES + TrendRing.bytes_for(number) + rows * ROW_BYTES
        fixed += LastFailures.bytes_for(number)
        fixed += FailedCalls.most_bytes(number, rows)
        needed = fixed + Windows.most_fixed_bytes(rows, number)
        if needed > self.memory_limit:
            raise ConfigError(
                f"series_limit={series_limit} needs {needed:,} bytes but memory_limit={self.memory_limit:,}; "
                "lower the one or raise the other"
            )
        self._windows_limit = self.memory_limit - fixed
        self._codes = self._registry.codes
        self._buffer: list[Any] = []
        self._stamp_ns = 0
        self._last_errors: dict[tuple[str, str], _LastError] = {}
        self._last_deaths: dict[str, str] = {}
        self._recycled_at_ns: int | None = None
        self._listener: Callable[[int, Block, Names], object] | None = None
        self._events = self._dropped = self._clamped = self._overflowed = self._handler_failures = 0
        self._start()

    def _start(self) -> None:
        self._clock.set()
        self._drift = 0
        now_ns = self._clock.now_ns()
        self._since_ns = now_ns
        self._sampled_at: dict[str, int] = {}
        self._recycled_at_ns = None
        self._weights: tuple[int, int] | None = None  # to be asked for
        self._buffer.clear()
        self._last_errors.clear()
        self._last_deaths.clear()
        self._failures = LastFailures(self._registry.pools)
        self._failed = FailedCalls(len(self._registry.pools), self._registry.row_limit)
        self._occurred = Occurrences(self._registry.pools, self._leave_out)
        self._trend = TrendRing(len(self._registry.pools))
        self._windows = self._reserved(now_ns)

    def _reserved(self, now_ns: int) -> Windows:
        """Empty windows. Raises ConfigError when the system has no room for them."""
        self.__dict__.pop("_windows", None)  # the old ones first: both at once would take twice the room
        rows, pools = self._registry.row_limit, len(self._registry.pools)
        try:
            return Windows(now_ns, rows, pools, self._windows_limit, self._on_closed)
        except (OSError, MemoryError) as error:
            wanted = Windows.most_fixed_bytes(rows, pools) / 2**20
            raise ConfigError(
                f"series_limit={self.series_limit} reserves {wanted:,.0f} MiB of addresses, and the system has no room "
                f"for them ({describe(error)}); lower series_limit in [metrics], or raise the limit (ulimit -v)"
            ) from error

    # -- lifecycle ------------------------------------------------------------------------------------------------

    def attach(self) -> None:
        """Begin to listen, with empty windows: what they cover begins now. Attaching again starts over."""
        self.detach()
        self._start()
        for handler_id, (spec, function) in self._handlers().items():
            telemetry.attach(handler_id, spec.name, function, bind=self._bind if spec is OPERATION_STOP else None)

    def detach(self) -> None:
        """Stop listening. What was counted can still be read. Does nothing when it does not listen."""
        for handler_id in self._handlers():
            telemetry.detach(handler_id)

    @property
    def collecting(self) -> bool:
        """Whether it hears everything it should: attached, and none of its handlers struck out."""
        return self._handlers().keys() <= {handler.id for handler in telemetry.list_handlers()}

    def tick(self) -> None:
        """Fold what is buffered, let old slots go, tidy up. To be called once a second, best when `until_tick` says."""
        for _ in self.ticking():
            pass

    def ticking(self) -> Iterator[None]:
        """`tick` in steps: the first brings everything up to now; the others, all of them short, can wait."""
        self._catch_up()
        yield
        yield from self._windows.tidy()

    def until_tick(self) -> float:
        """Seconds to the next full second of its clock."""
        return (SECOND_NS - self._clock.now_ns() % SECOND_NS) / SECOND_NS

    def sample(self, status: PoolView) -> None:
        """Remember a pool's gauges for their course over time; once a second is as often as they are kept."""
        self._catch_up()
        if status.name not in self._registry.pools or self._sampled_at.get(status.name) == self._windows.second:
            return
        self._sampled_at[status.name] = self._windows.second
        pool, opened = self._registry.pools.index(status.name), self._windows.open
        opened.sums.pool_sums[pool, SAMPLES] += 1
        opened.sums.pool_sums[pool, GAUGE_SUMS] += [getattr(status, gauge) for gauge in GAUGES]
        peaks = opened.highest.peaks
        peaks[pool] = [max(high, getattr(status, gauge)) for high, gauge in zip(peaks[pool], PEAK_GAUGES, strict=True)]

    def on_second(self, listener: Callable[[int, Block, Names], object] | None) -> None:
        """Have *listener* told every second that closes: its start on the wall clock (whole seconds), what was
        counted in it, and whose numbers those are. One listener; None: nobody.
        """
        self._listener = listener

    def finish(self) -> None:
        """Close the second under way too, so that the listener is told of it."""
        self._windows.close_second(self._catch_up())

    def _on_closed(self, second: int, block: Block) -> None:
        self._trend.add(second, block.pool_sums)
        if self._listener is not None:
            self._listener(second + self._drift_s(), block, self._registry.names())

    def _drift_s(self) -> int:
        """By how many seconds the wall clock has been set ahead since the beginning.

        The last answer holds while it is nearly right. With a clock that is ahead by half a second, rounding alone
        would give one answer or the other at every look.
        """
        ahead_s = (self._clock.wall_ns() - self._clock.now_ns()) / SECOND_NS
        if abs(ahead_s - self._drift) > _DRIFT_S:
            self._drift = round(ahead_s)
        return self._drift

    def _handlers(self) -> dict[str, tuple[EventSpec, HandlerFunction]]:
        return self._of_snapshots() | {f"{self.id}.{name}": pair for name, pair in self._occurred.handlers.items()}

    def _of_snapshots(self) -> dict[str, tuple[EventSpec, HandlerFunction]]:
        """Of those, what Snapshots are made of."""
        return {
            f"{self.id}.stop": (OPERATION_STOP, self._on_stop),
            f"{self.id}.exception": (OPERATION_EXCEPTION, self._on_exception),
            f"{self.id}.crash": (WORKER_CRASH, self._on_crash),
            f"{self.id}.terminate": (WORKER_TERMINATE, self._on_terminate),
            f"{self.id}.error": (POOL_ERROR, self._on_error),
            f"{self.id}.failure": (HANDLER_FAILURE, self._on_handler_failure),
            f"{self.id}.filter": (TELEMETRY_FILTER, self._on_filter),
        }

    # -- reading --------------------------------------------------------------------------------------------------

    def pool_stats(self, pool: str, window: Window) -> PoolStats:
        """What was measured of *pool* in *window*, up to now. Raises KeyError for a pool that is not collected."""
        if pool not in self._registry.pools:
            raise KeyError(pool)
        now_ns = self._catch_up()
        index, store = self._registry.pools.index(pool), self._windows[window]
        return pool_stats.pool_stats(
            windows=self._windows,
            window=window,
            layout=self._registry.layout(pool),
            trend=self._trend.trend(index, window, now_ns, self._clock.wall_ns()),
            sums=(store.running.pool_sums + self._windows.open.sums.pool_sums)[index],
            last_death=self._last_deaths.get(pool),
            failures=self._failures.of(pool, now_ns),
            covered_s=store.covered_ns(now_ns) / SECOND_NS,
            last_errors=self._errors_of(pool, now_ns),
        )

    def block(self, window: Window) -> tuple[Block, Names]:
        """Everything *window* covers, up to now, and whose numbers it holds."""
        self._catch_up()
        return self._windows.block(window), self._registry.names()

    def recorded(self, window: Window) -> Recorded:
        """Everything *window* covers, up to now, slot by slot."""
        self._catch_up()
        store, drift_s = self._windows[window], self._drift_s()
        parts = [
            Part(slot * window.slot + drift_s, window.slot, block)
            for slot, blocks in store.slots.items()
            for block in blocks
        ]
        # A wall clock that is ahead by a fraction of a second must not put what happens now into the future.
        started = min(store.open * window.slot + drift_s, int(self.wall_s()))
        parts.append(Part(started, window.slot, self._windows.open.block()))
        return Recorded(self._registry.names(), parts)

    def totals(self) -> Totals:
        """Everything counted since it was attached."""
        self._catch_up()
        return pool_stats.totals(
            self._windows, self._registry, self._failed, self._occurred, since_s=self.since_s, at_s=self.wall_s(),
            drift_s=self._drift_s(),
        )  # fmt: skip

    def reach(self, window: Window) -> tuple[float, bool]:
        """Since when *window* has everything, in seconds since the epoch; and whether nothing was counted before."""
        self._catch_up()
        store = self._windows[window]
        first_ns = max(store.since_ns, store.first * store.slot_ns)
        return first_ns / SECOND_NS + self._drift_s(), first_ns == self._since_ns

    @property
    def since_s(self) -> float:
        """When counting began, in seconds since the epoch, by the wall clock as it is set now."""
        return self._since_ns / SECOND_NS + self._drift_s()

    def wall_s(self) -> float:
        """The wall clock, in seconds."""
        return self._clock.wall_ns() / SECOND_NS

    def covered_seconds(self, window: Window) -> float:
        """How far back from now *window* reaches."""
        now_ns = self._catch_up()
        return self._windows[window].covered_ns(now_ns) / SECOND_NS

    def self_view(self, viewers: int = 0) -> MonitorView:
        """What the collector knows about itself."""
        self._catch_up()
        return MonitorView(
            collecting=self.collecting,
            events=self._events,
            dropped=self._dropped,
            clamped=self._clamped,
            handler_failures=self._handler_failures,
            series=len(self._registry) * len(DISTRIBUTIONS),
            series_limit=self.series_limit,
            overflowed=self._overflowed,
            memory_bytes=self.memory_bytes(),
            memory_limit_bytes=self.memory_limit,
            viewers=viewers,
            weights={
                spec.dotted: weight
                for spec, _function in self._of_snapshots().values()
                if (weight := telemetry.weight(spec.name)) != 1
            },
        )

    def memory_bytes(self) -> int:
        """Bytes held now: at most ``memory_limit``."""
        buffer = sys.getsizeof(self._buffer) + len(self._buffer) // RECORD * _INTS_BYTES
        return (
            buffer
            + len(self._last_errors) * _ERROR_BYTES
            + len(self._registry) * ROW_BYTES
            + self._failures.nbytes
            + self._trend.nbytes
            + self._failed.nbytes
            + self._windows.nbytes
        )

    def _errors_of(self, pool: str, now_ns: int) -> dict[str, tuple[str, float]]:
        """The last error of every slot of *pool* and its age in seconds, those within the longest window."""
        ages = {
            worker: (error.text, (now_ns - error.at_ns) / SECOND_NS)
            for (of_pool, worker), error in self._last_errors.items()
            if of_pool == pool
        }
        return {worker: (text, age_s) for worker, (text, age_s) in ages.items() if age_s <= LONGEST.seconds}

    # -- folding --------------------------------------------------------------------------------------------------

    def _catch_up(self) -> int:
        """Bring windows and chart to now. Returns now, monotonic ns."""
        now_ns = self._clock.now_ns()
        self._fold()
        self._windows.advance(now_ns)
        return now_ns

    def _fold(self) -> None:
        if not self._buffer:
            return
        if self._weights is None:
            self._weights = _weights()
        try:
            batch = fold(self._buffer, self._registry.pool_of_rows(), len(self._registry.pools), self._weights)
        finally:
            self._buffer.clear()
        self._events += batch.events
        self._dropped += batch.dropped
        self._clamped += batch.clamped
        self._windows.add(self._stamp_ns, batch)
        if batch.unwell is not None:
            self._failed.add(batch.unwell, self._registry.names().rows, self._stamp_ns)

    def _admit(self, key: Key) -> int | None:
        """The code for a call of a *key* not seen before; None when it is not to be counted."""
        if key[0] not in self._registry.pools:
            return None
        if not _is_key(key):
            self._dropped += 1
            return None
        code = self._row_for(key)
        if code is None:
            self._overflowed += 1
            code = self._registry.other(key, self._clock.now_ns())
        return code

    def _row_for(self, key: Key) -> int | None:
        """The code of a *key* of ours, which gets a row if there is one; None when there is none left."""
        code = self._registry.admit(key, self._clock.now_ns())
        if code is None and self._recycle():
            code = self._registry.admit(key, self._clock.now_ns())
        return code

    def _recycle(self) -> bool:
        """Free the rows nobody uses. Looks for them once a second at most: it is asked at every call that overflows."""
        now_ns = self._clock.now_ns()
        if self._recycled_at_ns is not None and now_ns - self._recycled_at_ns < SECOND_NS:
            return False
        self._recycled_at_ns = now_ns
        self._catch_up()  # what is buffered refers to rows by number
        rows = self._registry.recycle(~self._windows.used())
        self._windows.recycle(rows)
        self._failed.keep(self._registry.names().rows)
        if rows:
            OPERATION_STOP.event.rebind()  # what was bound to those rows is not any more
        return bool(rows)

    # -- handlers -------------------------------------------------------------------------------------------------

    def _bind(self, pool: str, operation: str, worker: str, session_kind: str) -> Callable[[int, int, int], object]:
        """What is told the numbers of the calls that end well, of one kind: `_count`, with all that is known bound."""
        key, kind = (pool, operation, worker), KIND_CODES.get(session_kind, 0)
        row_code = self._row_for(key) if pool in self._registry.pools and _is_key(key) else None
        if row_code is None:
            return partial(self._count, key, kind)  # not ours, or without a row so far: nothing to bind
        code = row_code + kind
        buffer, extend, now_ns = self._buffer, self._buffer.extend, self._clock.now_ns

        def record(duration: int, queue: int, execution: int) -> None:
            if not buffer:
                self._stamp_ns = now_ns()
            extend((code, duration, queue, execution))
            if len(buffer) >= _FULL:
                self._fold()

        return record

    def _count(self, key: Key, more: int, duration: Any, queue: Any, execution: Any) -> bool:
        """Buffer a call of *key*, with *more* added to its code. Returns whether it is one to count."""
        code = self._codes.get(key)
        if code is None:
            code = self._admit(key)
            if code is None:
                return False
        if not self._buffer:
            self._stamp_ns = self._clock.now_ns()
        self._buffer += (code + more, duration, queue, execution)
        if len(self._buffer) >= _FULL:
            self._fold()
        return True

    def _leave_out(self, error: BaseException) -> None:
        """Count an event that raised *error* when it was read: its mappings, and what is in them, are the emitter's."""
        pass_on(error)
        self._dropped += 1

    def _on_stop(self, _name: EventName, measurements: Measurements, metadata: Metadata, _config: Any) -> None:
        try:
            key = (metadata["pool"], metadata["operation"], metadata["worker"])
            self._count(key, KIND_CODES.get(metadata.get("session_kind", "none"), 0), *_numbers_of(measurements))
        except FAILURES as error:
            self._leave_out(error)

    def _on_exception(self, _name: EventName, measurements: Measurements, metadata: Metadata, _config: Any) -> None:
        try:
            key = (metadata["pool"], metadata["operation"], metadata.get("worker"))
            outcome = _FAILURES[metadata["outcome"]]
            failed = outcome in _FAILED
            more = outcome + KIND_CODES.get(metadata.get("session_kind", "none"), 0)
            if failed:
                more += CATEGORY_CODES.get(metadata.get("category", "other"), _OTHER_CATEGORY)
            counted = self._count(key, more, *_numbers_of(measurements))
        except FAILURES as error:
            self._leave_out(error)
            return
        if counted and failed:
            self._note_failure(*key, metadata)

    def _on_crash(self, _name: EventName, _measurements: Measurements, metadata: Metadata, _config: Any) -> None:
        try:
            pool, worker, text = metadata["pool"], metadata["worker"], error_text.crash(metadata)
            more, operation = error_text.last_words(metadata), metadata.get("operation")
        except FAILURES as error:
            self._leave_out(error)
            return
        if pool in self._registry.pools:
            times = telemetry.weight(WORKER_CRASH.name)
            self._note_death(pool, text, times)
            self._note_error(pool, worker, CRASHED + text, of_process=True)
            self._failures.note(pool, CRASHED[:-2], more, operation, worker, self._clock.now_ns(), times)

    def _on_terminate(self, _name: EventName, _measurements: Measurements, metadata: Metadata, _config: Any) -> None:
        try:
            pool, text = metadata["pool"], _UNWANTED_ENDS.get(metadata["reason"])
        except FAILURES as error:
            self._leave_out(error)
            return
        if text is not None and pool in self._registry.pools:
            self._note_death(pool, text, telemetry.weight(WORKER_TERMINATE.name))

    def _on_error(self, _name: EventName, _measurements: Measurements, metadata: Metadata, _config: Any) -> None:
        try:
            pool, worker, text = metadata["pool"], metadata.get("worker"), error_text.trouble(metadata)
            kind = START_FAILED[:-2] if text.startswith(START_FAILED) else str(metadata["category"])
        except FAILURES as error:
            self._leave_out(error)
            return
        if pool in self._registry.pools:
            self._note_error(pool, worker, text, of_process=True)
            times = telemetry.weight(POOL_ERROR.name)
            message = text.removeprefix(START_FAILED)
            self._failures.note(pool, kind, message, None, worker, self._clock.now_ns(), times)

    def _on_filter(self, _name: EventName, _m: Measurements, _metadata: Metadata, _config: Any) -> None:
        self._catch_up()  # what is buffered was heard under the filter that goes
        self._weights = None

    def _on_handler_failure(self, _name: EventName, _m: Measurements, metadata: Metadata, _config: Any) -> None:
        self._handler_failures += 1
        if metadata.get("handler_id") in self._handlers():
            self._dropped += 1

    # -- what goes wrong on a slot ---------------------------------------------------------------------------------

    def _note_death(self, pool: str, text: str, times: int) -> None:
        self._last_deaths[pool] = plain_text(text, _TEXT_LIMIT)
        now_ns = self._catch_up()  # what is buffered ended before
        self._windows.note(now_ns, self._registry.pools.index(pool), DEATHS, times)

    def _note_failure(self, pool: str, operation: str, worker: str | None, metadata: Metadata) -> None:
        now_ns = self._clock.now_ns()
        error = metadata.get("error")
        text = error if isinstance(error, str) else metadata["outcome"]
        if self._weights is None:
            self._weights = _weights()
        reason = metadata.get("reason")
        if isinstance(reason, str):  # the error's own words: what it is and where stands beside them
            reason = reason.removeprefix(f"{operation}: ").removeprefix(f"{text}: ").removeprefix(text)
        self._failures.note(pool, text, reason or None, operation, worker, now_ns, self._weights[1])
        if worker is None:
            return
        last = self._last_errors.get((pool, worker))
        if metadata["outcome"] == "worker_lost" and last and last.of_process and now_ns - last.at_ns < SECOND_NS:
            return  # the call that died with the worker says less than what the worker died of
        self._note_error(pool, worker, text, of_process=False)

    def _note_error(self, pool: str, worker: Any, text: str, *, of_process: bool) -> None:
        if not isinstance(worker, str) or not can_be_told(worker):
            return
        self._last_errors.pop((pool, worker), None)
        self._last_errors[pool, worker] = _LastError(plain_text(text, _TEXT_LIMIT), self._clock.now_ns(), of_process)
        if len(self._last_errors) > LAST_ERRORS:
            del self._last_errors[next(iter(self._last_errors))]


class _LastError(NamedTuple):
    """What went wrong on a slot last: a call of it, or its process."""

    text: str
    at_ns: int
    of_process: bool


def _is_key(key: tuple[Any, Any, Any]) -> bool:
    _pool, operation, worker = key
    return isinstance(operation, str) and (worker is None or isinstance(worker, str))


def _numbers_of(measurements: Measurements) -> tuple[Any, Any, Any]:
    """What `_bind` is told, from the mapping."""
    return measurements["duration"], measurements["queue_duration"], measurements.get("execution_duration", ABSENT)


def _weights() -> tuple[int, int]:
    """What one heard event stands for: of calls that ended well, and of the others."""
    return telemetry.weight(OPERATION_STOP.name), telemetry.weight(OPERATION_EXCEPTION.name)
