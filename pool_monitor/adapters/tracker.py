"""The ledger: which calls of somebody else's pool are open, where they are, and what is told of them.

Everything in here may be called from any thread. Nothing waits but for the lock, which is held for a few look-ups.
"""

from __future__ import annotations

import functools
import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextvars import Context
from itertools import islice
from typing import TYPE_CHECKING, Any

from pool_monitor import events
from pool_monitor.adapters.relay import Relay
from pool_monitor.adapters.remote import run_chunk
from pool_monitor.adapters.worker_slots import Slots
from pool_monitor.errors import ConfigError
from pool_monitor.snapshot import PoolState, PoolView, WorkerState, WorkerView
from pool_monitor.telemetry import FAILURES, describe, pass_on

if TYPE_CHECKING:
    from pool_monitor.adapters.remote import Ran
    from pool_monitor.adapters.worker_slots import Holder, Slot
    from pool_monitor.errors import Outcome

REASON_MAX = 1000
"""Characters kept of an exception's text: events may have to wait, and the text is anybody's."""

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
_NOBODY: Holder = 0  # ran it, as far as anybody tells
_ids = itertools.count(1 << 40)  # those of a Pool's calls begin at 1


class Call:
    """One call, from the moment it is asked for to its one end."""

    __slots__ = ("attempts", "begun_ns", "id", "operation", "ran_ns", "slot", "started_ns", "told")

    def __init__(self, operation: str) -> None:
        self.id = next(_ids)
        self.operation = operation
        self.started_ns = time.monotonic_ns()
        self.begun_ns: int | None = None
        self.ran_ns: int | None = None
        """When it had run for now; None while it runs."""
        self.slot: Slot | None = None
        self.attempts = 0
        self.told = False


class Ledger:
    """The calls of the pool *name*. *size* says how many workers it has, or None when nobody knows.

    With *shows* a call's beginning is seen when it happens (`begin`). Without, as many of the open calls as there are
    workers are taken to run, those that were asked for first: so does any executor that works through a queue.
    """

    def __init__(self, name: str, size: Callable[[], int | None], *, shows: bool) -> None:
        self.name = name
        self.closing = False
        """It was told to take no more calls."""
        self._known_size = size
        self._shows = shows
        self._relay = Relay(name)
        self._lock = threading.RLock()  # a finalizer may run anywhere, and start a call
        self._open: dict[int, Call] = {}
        self._running = 0
        self._peak = 0  # calls at once
        self._completed = 0
        self._broken_ns: int | None = None  # since its workers died, or it refused a call
        self._refusals: Counter[str] = Counter()
        self._slots = Slots(name, size)

    # -- calls ----------------------------------------------------------------------------------------------------

    def start(self, call: Call) -> None:
        """It was asked for."""
        heard, waiting = _START.on, 0
        with self._lock:
            if heard:
                waiting = len(self._open) - self._busy()
            self._open[call.id] = call
            call.told = self._relay.room()
        if heard and call.told:
            times = {"system_time": time.time_ns(), "monotonic_time": call.started_ns, "waiting": waiting}
            self._relay.tell(_START, times, self._about(call))

    def begin(self, call: Call, holder: Holder | None = None) -> None:
        """It runs from now on: on the slot of *holder*, or on one that is idle."""
        now_ns = time.monotonic_ns()
        with self._lock:
            if call.id not in self._open:
                return
            if call.begun_ns is None:
                call.attempts = 1
            else:  # not for the first time
                call.attempts += 1
                self._leave_slot(call, now_ns)
            slots = self._slots
            slot = slots.idle() if holder is None else slots.held_by(holder)
            if not slot.calls:
                slot.since_ns = now_ns
            slot.calls[call.id] = call
            call.slot, call.begun_ns, call.ran_ns = slot, now_ns, None
            self._running += 1
            if self._running > self._peak:
                self._peak = self._running

    def pause(self, call: Call) -> None:
        """It has run, and may be run again before it ends."""
        now_ns = time.monotonic_ns()
        with self._lock:
            if call.id in self._open:
                self._leave_slot(call, now_ns)

    def end(
        self, call: Call, error: BaseException | None = None, outcome: Outcome = "ok", ran: Ran | None = None
    ) -> None:
        """It has ended, now, with *error* unless the outcome is ok. *ran* says where and when, if `begin` did not.

        Only the first end of a call is one.
        """
        now_ns = time.monotonic_ns()
        with self._lock:
            if self._open.pop(call.id, None) is None:
                return
            self._completed += 1
            if call.begun_ns is not None:
                self._leave_slot(call, now_ns)
            elif ran is not None or outcome == "ok":
                slot = call.slot = self._slots.held_by(_NOBODY if ran is None else (ran.pid, ran.thread))
                if not slot.calls:
                    slot.since_ns, slot.last = now_ns, call.id
            if outcome == "worker_lost":
                self._broken_ns = now_ns
            elif self._broken_ns is not None and outcome == "ok" and self._broken_ns < call.started_ns:
                self._broken_ns = None
        if not call.told:
            return
        if error is None:
            if _STOP.on:
                self._relay.tell(_STOP, _measured(call, ran, now_ns), self._about(call))
        elif _EXCEPTION.on:
            self._relay.tell(_EXCEPTION, _measured(call, ran, now_ns), {**self._about(call), **_failed(error, outcome)})

    def _leave_slot(self, call: Call, now_ns: int) -> None:
        """It does not run any longer. Does nothing when it did not. Needs the lock."""
        slot = call.slot
        if slot is None or call.ran_ns is not None:
            return
        self._running -= 1
        del slot.calls[call.id]
        call.ran_ns = now_ns
        if not slot.calls:
            slot.since_ns, slot.last = now_ns, call.id

    def refuse(self, call: Call, error: BaseException, reason: str) -> None:
        """It was not accepted: *reason* is closed or saturated."""
        now_ns = time.monotonic_ns()
        with self._lock:
            if call.id not in self._open:
                return
            self._refusals[reason] += 1
            if reason == "closed":
                self._broken_ns = now_ns
            waiting = max(len(self._open) - 1 - self._busy(), 0)
        if call.told and _REJECT.on:
            measurements = {"queue_duration": now_ns - call.started_ns, "waiting": waiting}
            self._relay.tell(_REJECT, measurements, {**self._about(call), "reason": reason})
        self.end(call, error, "rejected")

    def catch_up(self) -> None:
        """Tell what has not been told, if this is the place for it."""
        self._relay.catch_up()

    # -- what is told ---------------------------------------------------------------------------------------------

    def _about(self, call: Call) -> dict[str, Any]:
        about = {"pool": self.name, "operation": call.operation, "call_id": call.id, "session_kind": "none"}
        if call.slot is not None:
            about["worker"] = call.slot.id
        return about

    # -- gauges ---------------------------------------------------------------------------------------------------

    def status(self) -> PoolView:
        """The pool's gauges now."""
        self.catch_up()
        with self._lock:
            size, busy, state = self._size(), self._busy(), self._state()
            free = max(size - busy, 0)
            return PoolView(
                name=self.name,
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
        """The gauges of every slot that has had a call."""
        self.catch_up()
        now_ns = time.monotonic_ns()
        with self._lock:
            idle = _IDLE_SLOTS_ARE[self._state()]
            begun_unseen = (call for call in self._open.values() if call.slot is None)
            calls = self._slots.calls(islice(begun_unseen, self._busy() - self._running))
            return [_worker(slot, call, idle, now_ns) for slot, call in calls.items()]

    def _busy(self) -> int:
        return self._running if self._shows else max(self._running, min(len(self._open), self._size()))

    def _size(self) -> int:
        return self._known_size() or max(1, self._peak, len(self._slots))

    def _state(self) -> PoolState:
        if self._broken_ns is not None:
            return "closed"
        if self.closing:
            return "draining" if self._open else "closed"
        return "running"


def _worker(slot: Slot, call: Call | None, idle: WorkerState, now_ns: int) -> WorkerView:
    since_ns = slot.since_ns
    if call is not None and not slot.calls:  # it began when it was asked for, or when the slot had ended another
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


def _measured(call: Call, ran: Ran | None, now_ns: int) -> dict[str, int]:
    """The measurements of a call that ends now."""
    duration = now_ns - call.started_ns
    measurements = {"duration": duration, "queue_duration": duration, "attempts": call.attempts}
    begun_ns, ended_ns = (call.begun_ns, call.ran_ns or now_ns) if ran is None else (ran.begun_ns, ran.ended_ns)
    if begun_ns is not None:
        execution = ended_ns - begun_ns
        if call.started_ns <= begun_ns <= ended_ns <= now_ns:
            queue = begun_ns - call.started_ns
        else:  # by the clock of another machine, where only the difference means something
            execution = min(execution, duration)
            queue = duration - execution
        measurements["queue_duration"] = queue
        measurements["execution_duration"] = execution
        measurements["transport_duration"] = duration - queue - execution
    return measurements


def _failed(error: BaseException, outcome: Outcome) -> dict[str, str]:
    """What is told of a call that failed."""
    return {
        "kind": "cancelled" if outcome == "cancelled" else "error",
        "outcome": outcome,
        "category": _CATEGORIES[outcome],
        "error": type(error).__name__,
        "reason": describe(error)[:REASON_MAX],
    }


def operation_of(function: Any, args: tuple[Any, ...] = ()) -> str:
    """What a call of *function* is called: after the function within, where it is handed to another one."""
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
    """An attribute of what belongs to others; None if there is none, or if looking raises, as proxies may."""
    try:
        return getattr(thing, name, None)
    except FAILURES as error:
        pass_on(error)
        return None


def checked(what: str, name: object, number: tuple[str, object]) -> None:
    """Raises ConfigError when the name of a pool, or how many workers it has, is none."""
    if not isinstance(name, str) or not name or not name.isprintable():
        raise ConfigError(f"{what}(name={name!r:.80}): needs a non-empty printable string")
    key, value = number
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise ConfigError(f"{what}({key}={value!r:.80}): needs a whole number of at least 1, or None")
