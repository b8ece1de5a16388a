"""Tracks the calls of another pool: which calls are open, which slots they run on. Emits their events.

All methods may be called from any thread. They wait only for the lock, which is held for a few look-ups.
"""

from __future__ import annotations

import functools
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextvars import Context
from itertools import islice
from typing import TYPE_CHECKING, Any

from pool_monitor import emit, events
from pool_monitor.adapters.relay import Relay
from pool_monitor.adapters.timed_call import run_chunk
from pool_monitor.adapters.worker_slots import SlotTable
from pool_monitor.emit import PoolIdentity
from pool_monitor.errors import ConfigError
from pool_monitor.snapshot import PoolState, PoolView, WorkerState, WorkerView
from pool_monitor.telemetry import FAILURES, describe, pass_on

if TYPE_CHECKING:
    from pool_monitor.adapters.timed_call import Timing
    from pool_monitor.adapters.tracked_call import Holder, TrackedCall, WorkerSlot
    from pool_monitor.errors import Outcome

REASON_MAX = 1000
"""Characters that are kept of an exception's text. Bounds the memory of events that wait."""

_START = events.OPERATION_START.event
_STOP = events.OPERATION_STOP.event
_EXCEPTION = events.OPERATION_EXCEPTION.event
_REJECT = events.QUEUE_REJECT.event

_CATEGORIES: dict[Outcome, str] = {
    "error": "operation",
    "cancelled": "cancelled",
    "worker_lost": "connection",
    "rejected": "resource",
}
_IDLE_SLOTS_ARE: dict[PoolState, WorkerState] = {
    "running": "ready",
    "draining": "terminating",
    "closed": "terminated",
}
_UNKNOWN_WORKER: Holder = 0  # stands for the worker of a call if it is unknown; holds a slot like any other worker


class CallTracker:
    """Tracks the calls of the pool *name*. *size* returns its number of workers; None: not known.

    With *sees_begin*, `begin` is called when a call begins. Without it, the oldest open calls count as running, as many
    as there are workers: an executor takes calls from its queue in that order.
    """

    def __init__(self, name: str, size: Callable[[], int | None], *, sees_begin: bool) -> None:
        self.identity = PoolIdentity.new(name)
        self.closing = False
        """Whether the pool was shut down and accepts no more calls."""
        self._known_size = size
        self._sees_begin = sees_begin
        self._relay = Relay(self.identity)
        self._lock = threading.RLock()  # reentrant: a finalizer may run at any point, and make a call
        self._open: dict[int, TrackedCall] = {}
        self._running = 0
        self._peak = 0  # the highest number of calls that ran at once
        self._completed = 0
        # When workers last died, or the pool refused a call because it is closed; None once a later call succeeds.
        self._broken_ns: int | None = None
        self._refusals: Counter[str] = Counter()
        self._slots = SlotTable(name, size)

    # -- calls ----------------------------------------------------------------------------------------------------

    def start(self, call: TrackedCall) -> None:
        """Track a new call."""
        emits, waiting = _START.on, 0
        with self._lock:
            if emits:
                waiting = len(self._open) - self._busy()
            self._open[call.id] = call
            call.reported = self._relay.has_room()
        if emits and call.reported:
            times = {"system_time": time.time_ns(), "monotonic_time": call.started_ns, "waiting": waiting}
            self._relay.emit(_START, times, self._metadata(call))

    def begin(self, call: TrackedCall, holder: Holder | None = None) -> None:
        """Mark the call as running from now on: on the slot of *holder*, or on the least busy slot."""
        now_ns = time.monotonic_ns()
        with self._lock:
            if call.id not in self._open:
                return
            if call.begun_ns is None:
                call.attempts = 1
            else:  # it runs again
                call.attempts += 1
                self._leave_slot(call, now_ns)
            slots = self._slots
            slot = slots.least_busy() if holder is None else slots.held_by(holder)
            if not slot.calls:
                slot.since_ns = now_ns
            slot.calls[call.id] = call
            call.slot, call.begun_ns, call.stopped_ns = slot, now_ns, None
            self._running += 1
            if self._running > self._peak:
                self._peak = self._running

    def pause(self, call: TrackedCall) -> None:
        """Mark the call as no longer running. It may run again before it ends."""
        now_ns = time.monotonic_ns()
        with self._lock:
            if call.id in self._open:
                self._leave_slot(call, now_ns)

    def end(
        self,
        call: TrackedCall,
        error: BaseException | None = None,
        outcome: Outcome = "ok",
        timing: Timing | None = None,
    ) -> None:
        """End the call now, with *error* unless the outcome is ok. *timing*: where and when it ran, if `begin` was not
        called. Does nothing if the call has ended already.
        """
        now_ns = time.monotonic_ns()
        with self._lock:
            if self._open.pop(call.id, None) is None:
                return
            self._completed += 1
            if call.begun_ns is not None:
                self._leave_slot(call, now_ns)
            elif timing is not None or outcome == "ok":
                holder = _UNKNOWN_WORKER if timing is None else (timing.pid, timing.thread)
                slot = call.slot = self._slots.held_by(holder)
                if not slot.calls:
                    slot.since_ns, slot.last_ended = now_ns, call.id
            if outcome == "worker_lost":
                self._broken_ns = now_ns
            elif self._broken_ns is not None and outcome == "ok" and self._broken_ns < call.started_ns:
                self._broken_ns = None
        if not call.reported:
            return
        if error is None:
            if _STOP.on:
                self._relay.emit(_STOP, _measurements(call, timing, now_ns), self._metadata(call))
        elif _EXCEPTION.on:
            metadata = {**self._metadata(call), **_failure(error, outcome)}
            self._relay.emit(_EXCEPTION, _measurements(call, timing, now_ns), metadata)

    def _leave_slot(self, call: TrackedCall, now_ns: int) -> None:
        """Remove the call from its slot, if it runs on one. The caller must hold the lock."""
        slot = call.slot
        if slot is None or call.stopped_ns is not None:
            return
        self._running -= 1
        del slot.calls[call.id]
        call.stopped_ns = now_ns
        if not slot.calls:
            slot.since_ns, slot.last_ended = now_ns, call.id

    def refuse(self, call: TrackedCall, error: BaseException, reason: str) -> None:
        """End a call that the pool has refused. *reason* is ``closed`` or ``saturated``."""
        now_ns = time.monotonic_ns()
        with self._lock:
            if call.id not in self._open:
                return
            self._refusals[reason] += 1
            if reason == "closed":
                self._broken_ns = now_ns
            waiting = max(len(self._open) - 1 - self._busy(), 0)
        if call.reported and _REJECT.on:
            measurements = {"queue_duration": now_ns - call.started_ns, "waiting": waiting}
            self._relay.emit(_REJECT, measurements, {**self._metadata(call), "reason": reason})
        self.end(call, error, "rejected")

    def flush(self) -> None:
        """Emit the waiting events if this is the thread to emit them in."""
        self._relay.flush()

    def _metadata(self, call: TrackedCall) -> dict[str, Any]:
        worker = None if call.slot is None else call.slot.id
        return emit.call_metadata(self.identity, call.operation, call.id, worker=worker)

    # -- gauges ---------------------------------------------------------------------------------------------------

    def status(self) -> PoolView:
        """Return the pool's gauges now."""
        self.flush()
        with self._lock:
            size, busy, state = self._size(), self._busy(), self._state()
            free = max(size - busy, 0)
            return PoolView(
                name=self.identity.name,
                instance=self.identity.instance,
                state=state,
                size=size,
                busy=busy,
                idle=free if state == "running" else 0,
                starting=0,
                draining=free if state == "draining" else 0,
                dead=free if state == "closed" else 0,
                waiting=len(self._open) - busy,
                queue_limit=0,
                sessions=0,
                restarts=0,
                completed=self._completed,
                refusals=dict(self._refusals),
            )

    def workers(self) -> list[WorkerView]:
        """Return the gauges of all slots that have had a call."""
        self.flush()
        now_ns = time.monotonic_ns()
        with self._lock:
            idle = _IDLE_SLOTS_ARE[self._state()]
            unseen = (call for call in self._open.values() if call.slot is None)
            calls = self._slots.oldest_calls(islice(unseen, self._busy() - self._running))
            return [_worker(slot, call, idle, now_ns) for slot, call in calls.items()]

    def _busy(self) -> int:
        return self._running if self._sees_begin else max(self._running, min(len(self._open), self._size()))

    def _size(self) -> int:
        return self._known_size() or max(1, self._peak, len(self._slots))

    def _state(self) -> PoolState:
        if self._broken_ns is not None:
            return "closed"
        if self.closing:
            return "draining" if self._open else "closed"
        return "running"


def _worker(slot: WorkerSlot, call: TrackedCall | None, idle: WorkerState, now_ns: int) -> WorkerView:
    since_ns = slot.since_ns
    if call is not None and not slot.calls:  # assigned: it began when it was made, or when the slot became free
        since_ns = max(call.started_ns, since_ns)
    return WorkerView(
        id=slot.id,
        state=idle if call is None else "busy",
        state_age=(now_ns - since_ns) / 1e9,
        pid=slot.pid,
        age=None,
        restarts=0,
        operation=None if call is None else call.operation,
        call_age=None if call is None else (now_ns - max(since_ns, call.begun_ns or 0)) / 1e9,
        calls_held=len(slot.calls) or int(call is not None),
    )


def _measurements(call: TrackedCall, timing: Timing | None, now_ns: int) -> dict[str, int]:
    """Return the measurements of a call that ends now."""
    duration = now_ns - call.started_ns
    if timing is None:
        begun_ns, ended_ns = call.begun_ns, call.stopped_ns or now_ns
    else:
        begun_ns, ended_ns = timing.begun_ns, timing.ended_ns
    if begun_ns is None:
        return emit.call_measurements(duration, duration, call.attempts)
    execution = ended_ns - begun_ns
    if call.started_ns <= begun_ns <= ended_ns <= now_ns:
        queue = begun_ns - call.started_ns
    else:  # from another machine: only differences of its clock are meaningful
        execution = min(execution, duration)
        queue = duration - execution
    return emit.call_measurements(duration, queue, call.attempts, execution)


def _failure(error: BaseException, outcome: Outcome) -> dict[str, str]:
    """Return the metadata that a failed call has besides that of any call."""
    reason = describe(error)[:REASON_MAX]
    if outcome == "error":
        return emit.raised_metadata(error, reason)
    return emit.failure_metadata(outcome, category=_CATEGORIES[outcome], error=type(error).__name__, reason=reason)


def operation_of(function: Any, args: tuple[Any, ...] = ()) -> str:
    """Return the operation of a call of *function*: its name, or the name of the innermost function that it wraps."""
    while True:
        if isinstance(function, functools.partial):
            function, args = function.func, (*function.args, *args)
        elif args and (function is run_chunk or isinstance(attribute(function, "__self__"), Context)):
            function, args = args[0], args[1:]
        else:
            break
    name = attribute(function, "__name__")
    return name if isinstance(name, str) and name else type(function).__name__


def attribute(thing: object, name: str) -> Any:
    """Return an attribute of a foreign object; None if it is missing, or if reading it raises, as with some proxies."""
    try:
        return getattr(thing, name, None)
    except FAILURES as error:
        pass_on(error)
        return None


def check_arguments(what: str, name: object, number: tuple[str, object]) -> None:
    """Raise ConfigError for a bad pool name, or a bad *number* (the name and value of an argument)."""
    if not isinstance(name, str) or not name or not name.isprintable():
        raise ConfigError(f"{what}(name={name!r:.80}): needs a non-empty printable string")
    key, value = number
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise ConfigError(f"{what}({key}={value!r:.80}): needs a whole number of at least 1, or None")
