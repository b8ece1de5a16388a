"""The collector: hears how calls end and keeps the windows a Snapshot is made from.

Theory of operation
-------------------
A handler puts four numbers per call into one plain list and returns: no clock is read, no lock taken, nothing the
garbage collector tracks is made. The list is folded into the windows in bulk: on every tick (once a second), on every
read, and when it is full.

Everything folded at once counts at one moment: when the first call of it ended, the only one the clock is read for.
So a call is never counted later than it ended, and earlier by less than the time between two folds: it may leave a
window up to a tick too soon, and never stays too long. With ticks right after each full second (`until_tick`) the
seconds of the chart are true ones.

It is used from one thread, that of the event loop its pools run on. Nothing in here waits, blocks or does I/O.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable
from typing import Any, NamedTuple

from pool_monitor import telemetry
from pool_monitor.clock import Clock
from pool_monitor.errors import ConfigError
from pool_monitor.events import (
    HANDLER_FAILURE,
    OPERATION_EXCEPTION,
    OPERATION_STOP,
    POOL_ERROR,
    WORKER_CRASH,
    WORKER_TERMINATE,
    EventSpec,
)
from pool_monitor.metrics import query, words
from pool_monitor.metrics.fold import ABSENT, DISTRIBUTIONS, FAILED, OUTCOMES, RECORD, fold
from pool_monitor.metrics.query import PoolStats
from pool_monitor.metrics.series import ROW_BYTES, Key, Registry
from pool_monitor.metrics.trend import TrendRing
from pool_monitor.metrics.window import LONGEST, SECOND_NS, Window, Windows
from pool_monitor.snapshot import CRASHED, MonitorView
from pool_monitor.telemetry import EventName, HandlerFunction, Measurements, Metadata

BUFFER_EVENTS = 8192
"""Calls buffered at most: folding that many at once takes well under a millisecond and stays in the cache."""
MEMORY_LIMIT = 64 * 1024 * 1024
MEMORY_PER_SERIES = 32 * 1024
"""What the limit grows by per series when more are allowed than fit into `MEMORY_LIMIT`."""
LAST_ERRORS = 4096
"""Slots whose last error is remembered: far more than a machine can run."""
_TEXT_LIMIT = 80
_UNWANTED_ENDS = {"health": "did not answer", "protocol": "spoke nonsense"}
"""Why a worker was killed that nobody wanted to end, in words: it counts as dead like one that crashed."""

_FULL = BUFFER_EVENTS * RECORD
_FAILURES = {outcome: number for number, outcome in enumerate(OUTCOMES) if outcome != "ok"}
_FAILED = range(len(OUTCOMES))[FAILED]
_INTS_BYTES = (RECORD - 1) * 32
"""The integers of one record, all but its code."""
_BUFFER_BYTES = BUFFER_EVENTS * (RECORD * 8 * 9 // 8 + _INTS_BYTES) + 1024  # a list allots an eighth ahead
_ERROR_BYTES = 1024
"""Upper estimate of one remembered error."""
_numbers = itertools.count(1)


class Collector:
    """Counts the calls of *pools*, by name; those of other pools are somebody else's business.

    *series_limit* is the most histograms kept (`pool_monitor.metrics.series`), *memory_limit* the most bytes all
    of this may ever hold: 64 MiB, or 32 KiB per series if that is more. When the windows would need more they reach
    back less far, and say so. Raises ConfigError when the two do not go together.
    """

    def __init__(
        self, pools: Iterable[str], clock: Clock, series_limit: int = 2000, memory_limit: int | None = None
    ) -> None:
        self.id = f"pool_monitor.collector-{next(_numbers)}"
        self._clock = clock
        self._registry = Registry(pools, series_limit)
        self.series_limit = series_limit
        self.memory_limit = (
            max(MEMORY_LIMIT, series_limit * MEMORY_PER_SERIES) if memory_limit is None else memory_limit
        )

        fixed = _BUFFER_BYTES + LAST_ERRORS * _ERROR_BYTES + TrendRing.bytes_for(len(self._registry.pools))
        fixed += self._registry.row_limit * ROW_BYTES
        needed = fixed + Windows.fixed_bytes(self._registry.row_limit)
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
        self._events = self._dropped = self._clamped = self._overflowed = self._handler_failures = 0
        self._start()

    def _start(self) -> None:
        now_ns = self._clock.monotonic_ns()
        self._buffer.clear()
        self._last_errors.clear()
        self._last_deaths.clear()
        self._trend = TrendRing(now_ns, len(self._registry.pools))
        self._windows = Windows(now_ns, self._registry.row_limit, self._windows_limit)

    # -- lifecycle ------------------------------------------------------------------------------------------------

    def attach(self) -> None:
        """Begin to listen, with empty windows: what they cover begins now. Attaching again starts over."""
        self.detach()
        self._start()
        for handler_id, (spec, function) in self._handlers().items():
            telemetry.attach(handler_id, spec.name, function)

    def detach(self) -> None:
        """Stop listening. What was counted can still be read. Does nothing when it does not listen."""
        for handler_id in self._handlers():
            telemetry.detach(handler_id)

    @property
    def collecting(self) -> bool:
        """Whether it hears everything it should: attached, and none of its handlers struck out."""
        return self._handlers().keys() <= {handler.id for handler in telemetry.list_handlers()}

    def tick(self) -> None:
        """Fold what is buffered and let old slots go. To be called once a second, best when `until_tick` says."""
        self._catch_up()

    def until_tick(self) -> float:
        """Seconds to the next full second of the monotonic clock."""
        return (SECOND_NS - self._clock.monotonic_ns() % SECOND_NS) / SECOND_NS

    def _handlers(self) -> dict[str, tuple[EventSpec, HandlerFunction]]:
        return {
            f"{self.id}.stop": (OPERATION_STOP, self._on_stop),
            f"{self.id}.exception": (OPERATION_EXCEPTION, self._on_exception),
            f"{self.id}.crash": (WORKER_CRASH, self._on_crash),
            f"{self.id}.terminate": (WORKER_TERMINATE, self._on_terminate),
            f"{self.id}.error": (POOL_ERROR, self._on_error),
            f"{self.id}.failure": (HANDLER_FAILURE, self._on_handler_failure),
        }

    # -- reading --------------------------------------------------------------------------------------------------

    def pool_stats(self, pool: str, window: Window) -> PoolStats:
        """What was measured of *pool* in *window*, up to now. Raises KeyError for a pool that is not collected."""
        if pool not in self._registry.pools:
            raise KeyError(pool)
        now_ns = self._catch_up()
        index, covered_ns = self._registry.pools.index(pool), self._windows[window].covered_ns(now_ns)
        return query.pool_stats(
            store=self._windows[window],
            layout=self._registry.layout(pool),
            known=self._windows.used(),
            trend=self._trend.trend(index, window, now_ns, self._clock.wall_ns()),
            deaths=self._trend.deaths(index, now_ns - covered_ns, now_ns),
            last_death=self._last_deaths.get(pool),
            covered_s=covered_ns / SECOND_NS,
            last_errors=self._errors_of(pool, now_ns),
        )

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
        )

    def memory_bytes(self) -> int:
        """Bytes held now: at most ``memory_limit``."""
        buffer = sys.getsizeof(self._buffer) + len(self._buffer) // RECORD * _INTS_BYTES
        return (
            buffer
            + len(self._last_errors) * _ERROR_BYTES
            + len(self._registry) * ROW_BYTES
            + self._trend.nbytes
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
        now_ns = self._clock.monotonic_ns()
        self._fold()
        self._windows.grow(self._registry.size)
        self._windows.advance(now_ns)
        self._trend.advance(now_ns)
        return now_ns

    def _fold(self) -> None:
        if not self._buffer:
            return
        try:
            batch = fold(self._buffer, self._registry.size)
        finally:
            self._buffer.clear()
        self._events += batch.events
        self._dropped += batch.dropped
        self._clamped += batch.clamped
        self._windows.add(self._stamp_ns, batch)
        ok, errors = batch.tallies[:, 0], batch.tallies[:, FAILED].sum(axis=1)
        self._trend.add(self._stamp_ns, self._registry.pool_of_rows(), ok, errors)

    def _admit(self, key: Key) -> int | None:
        """The code for calls of a *key* not seen before; None when they are not to be counted."""
        pool, operation, worker = key
        if pool not in self._registry.pools:
            return None
        if not (isinstance(operation, str) and (worker is None or isinstance(worker, str))):
            self._dropped += 1
            return None
        code = self._registry.admit(key)
        if code is None and self._recycle():
            code = self._registry.admit(key)
        if code is None:
            self._overflowed += 1
            code = self._registry.other(key)
        return code

    def _recycle(self) -> bool:
        """Free the rows nobody uses. Looks for them once a second at most: it is asked at every call that overflows."""
        now_ns = self._clock.monotonic_ns()
        if self._recycled_at_ns is not None and now_ns - self._recycled_at_ns < SECOND_NS:
            return False
        self._recycled_at_ns = now_ns
        self._catch_up()  # what is buffered refers to rows by number
        return self._registry.recycle(~self._windows.used())

    # -- handlers -------------------------------------------------------------------------------------------------

    def _on_stop(self, _name: EventName, measurements: Measurements, metadata: Metadata, _config: Any) -> None:
        buffer = self._buffer
        try:
            key = (metadata["pool"], metadata["operation"], metadata["worker"])
            code = self._codes.get(key)
            duration, queue = measurements["duration"], measurements["queue_duration"]
            execution = measurements.get("execution_duration", ABSENT)
        except Exception:  # noqa: BLE001 - whatever is odd about an event, it is one to leave out
            self._dropped += 1
            return
        if code is None:
            code = self._admit(key)
            if code is None:
                return
        if not buffer:
            self._stamp_ns = self._clock.monotonic_ns()
        buffer += (code, duration, queue, execution)
        if len(buffer) >= _FULL:
            self._fold()

    def _on_exception(self, _name: EventName, measurements: Measurements, metadata: Metadata, _config: Any) -> None:
        buffer = self._buffer
        try:
            key = (metadata["pool"], metadata["operation"], metadata.get("worker"))
            code = self._codes.get(key)
            outcome = _FAILURES[metadata["outcome"]]
            duration, queue = measurements["duration"], measurements["queue_duration"]
            execution = measurements.get("execution_duration", ABSENT)
        except Exception:  # noqa: BLE001 - as above
            self._dropped += 1
            return
        if code is None:
            code = self._admit(key)
            if code is None:
                return
        now_ns = self._clock.monotonic_ns()
        if not buffer:
            self._stamp_ns = now_ns
        buffer += (code + outcome, duration, queue, execution)
        if len(buffer) >= _FULL:
            self._fold()
        if outcome in _FAILED and key[2] is not None:
            self._note_failure(key[0], key[2], metadata, now_ns)

    def _on_crash(self, _name: EventName, _measurements: Measurements, metadata: Metadata, _config: Any) -> None:
        try:
            pool, worker, text = metadata["pool"], metadata["worker"], words.crash(metadata)
        except Exception:  # noqa: BLE001 - as above
            self._dropped += 1
            return
        if pool in self._registry.pools:
            self._note_death(pool, text)
            self._note_error(pool, worker, CRASHED + text, of_process=True)

    def _on_terminate(self, _name: EventName, _measurements: Measurements, metadata: Metadata, _config: Any) -> None:
        try:
            pool, text = metadata["pool"], _UNWANTED_ENDS.get(metadata["reason"])
        except Exception:  # noqa: BLE001 - as above
            self._dropped += 1
            return
        if text is not None and pool in self._registry.pools:
            self._note_death(pool, text)

    def _on_error(self, _name: EventName, _measurements: Measurements, metadata: Metadata, _config: Any) -> None:
        try:
            pool, worker, text = metadata["pool"], metadata.get("worker"), words.trouble(metadata)
        except Exception:  # noqa: BLE001 - as above
            self._dropped += 1
            return
        if pool in self._registry.pools:
            self._note_error(pool, worker, text, of_process=True)

    def _on_handler_failure(self, _name: EventName, _m: Measurements, metadata: Metadata, _config: Any) -> None:
        self._handler_failures += 1
        if metadata.get("handler_id") in self._handlers():
            self._dropped += 1

    # -- what goes wrong on a slot ---------------------------------------------------------------------------------

    def _note_death(self, pool: str, text: str) -> None:
        self._last_deaths[pool] = text[:_TEXT_LIMIT]
        now_ns = self._catch_up()  # what is buffered ended before
        self._trend.died(now_ns, self._registry.pools.index(pool))

    def _note_failure(self, pool: str, worker: str, metadata: Metadata, now_ns: int) -> None:
        last = self._last_errors.get((pool, worker))
        if metadata["outcome"] == "worker_lost" and last and last.of_process and now_ns - last.at_ns < SECOND_NS:
            return  # the call that died with the worker says less than what the worker died of
        error = metadata.get("error")
        self._note_error(pool, worker, error if isinstance(error, str) else metadata["outcome"], of_process=False)

    def _note_error(self, pool: str, worker: Any, text: str, *, of_process: bool) -> None:
        if not isinstance(worker, str):
            return
        self._last_errors.pop((pool, worker), None)
        self._last_errors[pool, worker] = _LastError(text[:_TEXT_LIMIT], self._clock.monotonic_ns(), of_process)
        if len(self._last_errors) > LAST_ERRORS:
            del self._last_errors[next(iter(self._last_errors))]


class _LastError(NamedTuple):
    """What went wrong on a slot last: a call of it, or its process."""

    text: str
    at_ns: int
    of_process: bool
