"""Calls meet workers: admission, the queue, hand-over, deadlines, and each call's one end.

Everything here is synchronous and runs on the event loop, between two awaits of anybody: there is no moment at
which a call is half handed over. `Pool` owns the workers' lives and tells this object when one is free or gone;
this object tells `Pool` when a worker has to be killed.

A call that has ended for its caller (timed out, cancelled) may still hold up its worker: ``worker.call`` stays set
until the worker answers or ends, so that nobody else is handed to it and its late answer can reach nobody.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pool_monitor import events
from pool_monitor.errors import (
    OperationCancelled,
    OperationError,
    OperationTimeout,
    PayloadError,
    PoolClosed,
    PoolError,
    PoolSaturated,
    QueueTimeout,
    Rejected,
    UnknownOperation,
)
from pool_monitor.pool.calls import Call, Items, Options
from pool_monitor.pool.deadline import DeadlineWheel
from pool_monitor.pool.queue import WaitQueue
from pool_monitor.pool.session import SessionTable
from pool_monitor.pool.worker import COUNTED_AS, State, Worker

if TYPE_CHECKING:
    from pool_monitor.config import PoolConfig
    from pool_monitor.pool.transport.base import CallTimes, Failure

_START = events.OPERATION_START.event
_STOP = events.OPERATION_STOP.event
_EXCEPTION = events.OPERATION_EXCEPTION.event
_REJECT = events.QUEUE_REJECT.event
_RETRY = events.POOL_RETRY.event
_CHECKOUT = events.WORKER_CHECKOUT.event
_CHECKIN = events.WORKER_CHECKIN.event
_TRANSITION = events.WORKER_TRANSITION.event
_SESSION_START = events.SESSION_START.event
_SESSION_AFFINITY = events.SESSION_AFFINITY.event
_SESSION_EXPIRE = events.SESSION_EXPIRE.event
_SESSION_END = events.SESSION_END.event


class Dispatcher:
    """The calls and the free workers of one pool. Holds at most ``queue_limit`` waiting calls."""

    def __init__(
        self,
        pool: str,
        size: int,
        config: PoolConfig,
        kill: Callable[[Worker, str], None],
        freed: Callable[[Worker], None],
    ) -> None:
        self.pool = pool
        self.size = size  # workers wanted; only for the text of refusals
        self.config = config
        self.accepting = False
        self.operations: Mapping[str, str] = {}
        self.workers: dict[str, Worker] = {}  # every slot, by id
        self.counts: Counter[str] = Counter()  # slots by counted state
        self.completed = 0
        self.sessions: SessionTable[Call] = SessionTable(config.session_ttl, config.session_limit)
        self._loop = asyncio.get_running_loop()
        self._kill, self._freed = kill, freed
        self._idle: OrderedDict[str, Worker] = OrderedDict()  # the last one in is the next one out: warm caches
        self._waiting: WaitQueue[Call] = WaitQueue()
        self._open: dict[int, Call] = {}  # calls that have not ended
        self._running = 0  # of those, calls that are on a worker
        self._wheel: DeadlineWheel[Call] = DeadlineWheel()
        self._timer: asyncio.TimerHandle | None = None
        self._quiet: asyncio.Future[None] | None = None  # set while somebody waits for the last call to end

    # -- what callers ask -----------------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """Calls no worker has yet, in whatever line they stand."""
        return len(self._open) - self._running

    @property
    def open_calls(self) -> int:
        """Calls that have not ended."""
        return len(self._open)

    def admit(
        self,
        operation: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: Options,
        *,
        stream: bool,
        collect: bool = False,
    ) -> Call:
        """Take a call in: hand it to a worker, queue it, or refuse it. Its future tells its end, a refusal included.

        *stream*: the operation is a generator; *collect*: its items are wanted only when they are all there.
        Raises UnknownOperation for what no worker can do.
        """
        self._check(operation, options, stream=stream)
        call = Call(
            operation,
            args,
            kwargs,
            options,
            future=self._loop.create_future(),
            items=Items(self._loop, keep=collect) if stream else None,
            deadline=self._loop.time() + self._timeout(options),
            now_ns=time.monotonic_ns(),
        )
        if _START.on:
            measurements = {"system_time": time.time_ns(), "monotonic_time": call.started_ns, "waiting": self.waiting}
            _START.emit(measurements, self._about(call))
        self._open[call.id] = call
        refusal = self._refusal(call)
        if refusal is not None:
            self._end(call, refusal)
            return call
        self._watch(call, call.deadline if self.config.max_wait is None else self._loop.time() + self.config.max_wait)
        if options.session is None or self._enter_session(call, options.session):
            self._offer(call)
        return call

    def read_on(self, call: Call) -> None:
        """The caller has caught up with its stream."""
        if call.running and call.worker is not None and call.worker.transport is not None:
            call.worker.transport.flow(paused=False)

    def cancel(self, call: Call) -> None:
        """The caller gave up. Does nothing when the call has ended."""
        self._interrupt(call, asyncio.CancelledError(), "cancel")

    def _check(self, operation: str, options: Options, *, stream: bool) -> None:
        if not self.accepting or not self.operations:
            return  # refused anyway, or no worker has told yet what there is
        kind = self.operations.get(operation)
        if kind is None:
            known = ", ".join(sorted(self.operations))
            raise UnknownOperation(f"pool {self.pool!r}: no operation {operation!r}; its target has {known}")
        if kind == "generator" and not stream:
            raise UnknownOperation(
                f"pool {self.pool!r}: {operation!r} is a generator; iterate over stream({operation!r}, ...)"
            )
        if options.worker is not None and options.worker not in self.workers:
            known = ", ".join(self.workers)
            raise UnknownOperation(f"pool {self.pool!r}: no worker {options.worker!r}; there are {known}")

    def _timeout(self, options: Options) -> float:
        return self.config.timeout if options.timeout is None else options.timeout

    def _refusal(self, call: Call) -> Rejected | None:
        if not self.accepting:
            return self.rejected(PoolClosed, "the pool is not open: it is draining, closed or not yet entered")
        # The call itself is counted among the waiting already.
        if self.waiting > self.config.queue_limit and not self._can_start(call):
            return self.rejected(
                PoolSaturated, "the queue is full: call more slowly, add workers, or raise queue_limit", others=1
            )
        return None

    def _can_start(self, call: Call) -> bool:
        """Whether a worker would take the call at once."""
        session = self.sessions.get(call.options.session or "")
        return (session is None or session.active is None) and self._choose(call) is not None

    def rejected(self, kind: type[Rejected], message: str, call: Call | None = None, *, others: int = 0) -> Rejected:
        """A refusal that says how the pool stands."""
        waited_s = 0.0 if call is None else (time.monotonic_ns() - call.started_ns) / 1e9
        return kind(message, pool=self.pool, waited_s=waited_s, waiting=self.waiting - others, size=self.size)

    # -- sessions -------------------------------------------------------------------------------------------------

    def _enter_session(self, call: Call, session_id: str) -> bool:
        """Tie the call to its session. Returns whether it may go on now; else it waits behind the session's others."""
        session, new = self.sessions.use(session_id, self._loop.time())
        call.session = session
        first = session.active is None
        if first:
            session.active = call
        else:
            session.pending.append(call)
        if new:  # it has a call by now, so that it is not itself what is over the limit
            self.expire_sessions()
            if _SESSION_START.on:
                _SESSION_START.emit({"sessions": len(self.sessions)}, {"pool": self.pool, "session": session_id})
        return first

    def _leave_session(self, call: Call) -> None:
        """The call has ended: the next one of its session may go on."""
        session = call.session
        if session is None:
            return
        if session.active is not call:
            session.pending.remove(call)
            return
        self.sessions.left(session, self._loop.time())
        session.active = session.pending.popleft() if session.pending else None
        if session.active is not None:
            self._offer(session.active)

    def expire_sessions(self) -> None:
        """Drop sessions that are out of date or over the limit."""
        for dropped in self.sessions.expire(self._loop.time()):
            if _SESSION_EXPIRE.on:
                _SESSION_EXPIRE.emit(
                    {"idle_duration": round(dropped.idle * 1e9), "sessions": len(self.sessions)},
                    {"pool": self.pool, "session": dropped.id, "reason": dropped.reason},
                )

    def end_session(self, session_id: str) -> bool:
        """Forget a session and its data; calls under way go on. Returns whether there was one."""
        session = self.sessions.end(session_id)
        if session is not None and _SESSION_END.on:
            _SESSION_END.emit(
                {"calls": session.calls, "sessions": len(self.sessions)}, {"pool": self.pool, "session": session_id}
            )
        return session is not None

    def _note_affinity(self, call: Call, worker: Worker) -> None:
        session = call.session
        if session is None:
            return
        here = (worker.id, worker.processes)
        before = (session.worker, session.process)
        session.calls += 1
        session.worker, session.process = here
        if _SESSION_AFFINITY.on:
            last = self.workers.get(before[0] or "")
            alive = last is not None and last.processes == before[1] and last.lifecycle.state is not State.TERMINATED
            result = "new" if before[0] is None else "hit" if here == before else "miss" if alive else "broken"
            metadata = {"pool": self.pool, "session": session.id, "worker": worker.id, "result": result}
            _SESSION_AFFINITY.emit({"calls": session.calls}, metadata)

    # -- hand-over ------------------------------------------------------------------------------------------------

    def _offer(self, call: Call) -> None:
        """Give the call to a free worker, or let it wait."""
        worker = self._choose(call)
        if worker is None:
            self._line(call).push(call)
        elif not self._hand_over(call, worker):
            self._feed(worker)

    def _choose(self, call: Call) -> Worker | None:
        if call.options.worker is not None:
            return self._idle.get(call.options.worker)
        if not self._idle:
            return None
        if call.session is not None and call.session.worker is not None:
            known = self._idle.get(call.session.worker)
            if known is not None:
                return known
        return next(reversed(self._idle.values()))

    def _line(self, call: Call) -> WaitQueue[Call]:
        """Where the call waits."""
        pinned = self.workers.get(call.options.worker or "")
        return self._waiting if pinned is None else pinned.pinned

    def _hand_over(self, call: Call, worker: Worker) -> bool:
        """Send the call. False when it cannot be carried: then it ends, and the worker is as free as before."""
        assert worker.transport is not None
        session = None if call.session is None else (call.session.id, call.session.data)
        now_ns = time.monotonic_ns()  # before it is sent: the worker may be done before the next line runs
        try:
            worker.transport.call(
                call.id, call.operation, call.args, call.kwargs, stream=call.items is not None, session=session
            )
        except PayloadError as error:
            # Not here and now: its end may bring on the next call of its session, which may be no better.
            self._loop.call_soon(self._end, call, error)
            return False
        del self._idle[worker.id]
        worker.call, call.worker = call, worker
        call.attempts += 1
        call.sent_ns = now_ns
        call.queue_ns = call.sent_ns - call.started_ns
        call.running = True
        self._running += 1
        if self.config.max_wait is not None:  # until here the wheel held how long it may wait
            self._wheel.remove(call, call.tick)
            self._watch(call, call.deadline)
        self.move(worker, "checkout", call.sent_ns)
        if _CHECKOUT.on:
            measurements = {"queue_duration": call.queue_ns, "waiting": self.waiting}
            _CHECKOUT.emit(measurements, {**self._about(call), "worker": worker.id})
        self._note_affinity(call, worker)
        return True

    def _feed(self, worker: Worker) -> None:
        """Give a free worker the next call that waits, if any."""
        while worker.id in self._idle and (worker.pinned or self._waiting):
            self._hand_over(worker.pinned.pop() if worker.pinned else self._waiting.pop(), worker)

    # -- what workers tell ----------------------------------------------------------------------------------------

    def ready(self, worker: Worker) -> None:
        """A worker has loaded the target."""
        self._idle[worker.id] = worker
        self._feed(worker)

    def replied(self, worker: Worker, call_id: int, result: Any, data: dict[str, Any] | None, times: CallTimes) -> None:
        """The worker's operation returned, or its stream ended."""
        call = worker.call
        if call is None or call.id != call_id:
            return
        if not call.done:
            if call.session is not None and data is not None:
                call.session.data = data
            self._end(call, None, result, times)
        self._release(worker, call)

    def failed(self, worker: Worker, call_id: int, failure: Failure, times: CallTimes) -> None:
        """The worker's operation raised, or what it gave cannot be carried."""
        call = worker.call
        if call is None or call.id != call_id:
            return
        kind = PayloadError if failure.kind == "payload" else OperationError
        self._end(call, kind(call.operation, failure.type_name, failure.message, failure.traceback), None, times)
        self._release(worker, call)

    def item(self, worker: Worker, call_id: int, value: Any) -> None:
        """The worker's generator yielded."""
        call = worker.call
        if call is None or call.id != call_id or call.done or call.items is None:
            return
        if call.items.put(value) and worker.transport is not None:
            worker.transport.flow(paused=True)

    def lost(self, worker: Worker, error: PoolError) -> None:
        """The worker has ended; *error* is what its call is told."""
        self._idle.pop(worker.id, None)
        call, worker.call = worker.call, None
        if call is None or call.done:
            return
        again = call.options.idempotent and call.attempts <= self.config.retries
        if again and (call.items is None or call.items.start_over()):
            self._running -= 1
            call.running = False
            if _RETRY.on:
                _RETRY.emit({"attempt": call.attempts}, {**self._about(call), "reason": str(error)})
            self._offer(call)
        else:
            self._end(call, error)

    def forget(self, worker: Worker) -> None:
        """The slot is no more: nobody may go on waiting for it."""
        for call in list(worker.pinned):
            worker.pinned.discard(call)
            self._end(call, self.rejected(PoolClosed, f"worker {worker.id!r} has been retired", call))

    def withdraw(self, worker: Worker) -> None:
        """Hand nothing more to this worker."""
        self._idle.pop(worker.id, None)

    def _release(self, worker: Worker, call: Call) -> None:
        now_ns = time.monotonic_ns()
        worker.call = None
        if call.items is not None and worker.transport is not None:
            worker.transport.flow(paused=False)  # its last items may have come too fast for its reader
        if worker.lifecycle.state is not State.BUSY:
            return  # it is being ended
        self.move(worker, "checkin", now_ns)
        if _CHECKIN.on:
            _CHECKIN.emit({"duration": now_ns - call.sent_ns}, {**self._about(call), "worker": worker.id})
        if worker.wanted:
            self.ready(worker)
        else:
            self._freed(worker)

    # -- ends -----------------------------------------------------------------------------------------------------

    def interrupt_all(self) -> int:
        """End every call that has not ended: the pool is closing. Returns how many there were."""
        calls = list(self._open.values())
        for call in calls:
            if call.running:
                self._interrupt(call, OperationCancelled(f"{call.operation}: the pool was closed meanwhile"), "close")
            else:
                self._interrupt(call, self.rejected(PoolClosed, "the pool was closed", call), "close")
        return len(calls)

    async def quiet(self) -> None:
        """Wait until every call has ended."""
        while self._open:
            if self._quiet is None:
                self._quiet = self._loop.create_future()
            await asyncio.shield(self._quiet)

    def _interrupt(self, call: Call, error: BaseException, reason: str) -> None:
        """End a call for its caller now, and see that its worker gets free of it soon."""
        if call.done:
            return
        if not call.running:
            self._line(call).discard(call)
            self._end(call, error)
            return
        self._end(call, error)
        worker = call.worker
        assert worker is not None
        assert worker.transport is not None
        worker.transport.cancel(call.id)
        if call.items is not None:
            worker.transport.flow(paused=False)
        self._loop.call_later(self.config.cancel_grace, self._lose_patience, worker, call, reason)

    def _lose_patience(self, worker: Worker, call: Call, reason: str) -> None:
        if worker.call is call:
            self._kill(worker, reason)

    def _watch(self, call: Call, deadline: float) -> None:
        call.tick = self._wheel.add(call, min(deadline, call.deadline))
        next_at = self._wheel.next_at()
        if next_at is not None and (self._timer is None or next_at < self._timer.when()):
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(next_at, self._expire)

    def _expire(self) -> None:
        now = self._loop.time()
        for call in self._wheel.expired(now):
            if not call.running:
                text = "no worker became free in time: call more slowly, add workers, or give more time"
                self._interrupt(call, self.rejected(QueueTimeout, text, call), "timeout")
            elif call.deadline > now:  # it was to wait no longer, and has been handed over within this loop
                self._watch(call, call.deadline)
            else:
                on = call.worker.id if call.worker is not None else "?"
                text = f"{call.operation} was not done within its timeout of {self._timeout(call.options):g} s, on {on}"
                self._interrupt(call, OperationTimeout(text), "timeout")
        next_at = self._wheel.next_at()
        self._timer = None if next_at is None else self._loop.call_at(next_at, self._expire)

    def _end(self, call: Call, error: BaseException | None, result: Any = None, times: CallTimes | None = None) -> None:
        """The one end of a call. Does nothing the second time."""
        if call.done:
            return
        call.done = True
        now_ns = time.monotonic_ns()
        del self._open[call.id]
        self._wheel.remove(call, call.tick)
        if call.running:
            call.running = False
            self._running -= 1
        self.completed += 1
        self._tell(call, error, result)
        if error is not None:
            self._report(call, error, _measured(call, now_ns, times))
        elif _STOP.on:
            _STOP.emit(_measured(call, now_ns, times), self._about(call, on_worker=True))
        self._leave_session(call)
        if not self._open and self._quiet is not None:
            self._quiet.set_result(None)
            self._quiet = None

    @staticmethod
    def _tell(call: Call, error: BaseException | None, result: Any) -> None:
        if not call.future.done():  # it is when the caller was cancelled
            if error is None:
                call.future.set_result(result)
            elif isinstance(error, asyncio.CancelledError):
                call.future.cancel()
            else:
                call.future.set_exception(error)
        if call.items is not None:
            call.items.wake()

    def _report(self, call: Call, error: BaseException, measurements: dict[str, int]) -> None:
        if isinstance(error, Rejected) and _REJECT.on:
            _REJECT.emit(
                {"queue_duration": measurements["queue_duration"], "waiting": error.waiting},
                {**self._about(call), "reason": error.reason},
            )
        if _EXCEPTION.on:
            outcome = error.outcome if isinstance(error, PoolError) else "cancelled"
            about = self._about(call, on_worker=True)
            about["kind"] = "cancelled" if outcome == "cancelled" else "error"
            about["outcome"] = outcome
            about["category"] = error.category if isinstance(error, PoolError) else "cancelled"
            about["error"] = error.type_name if isinstance(error, OperationError) else type(error).__name__
            about["reason"] = str(error) or type(error).__name__
            _EXCEPTION.emit(measurements, about)

    # -- shared ---------------------------------------------------------------------------------------------------

    def move(self, worker: Worker, trigger: str, now_ns: int) -> None:
        """A worker follows the lifecycle table."""
        since_ns = worker.lifecycle.since_ns
        moved = worker.lifecycle.step(trigger, now_ns)
        self.counts[COUNTED_AS[moved.before]] -= 1
        self.counts[COUNTED_AS[moved.after]] += 1
        if _TRANSITION.on:
            metadata = {
                "pool": self.pool,
                "worker": worker.id,
                "from": moved.before.value,
                "to": moved.after.value,
                "trigger": trigger,
            }
            _TRANSITION.emit({"duration": now_ns - since_ns}, metadata)

    def _about(self, call: Call, *, on_worker: bool = False) -> dict[str, Any]:
        about: dict[str, Any] = {"pool": self.pool, "operation": call.operation, "call_id": call.id}
        if call.options.session is not None:
            about["session"] = call.options.session
        if on_worker and call.worker is not None:
            about["worker"] = call.worker.id
        return about

    def close(self) -> None:
        """Nothing more will happen: stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _measured(call: Call, now_ns: int, times: CallTimes | None) -> dict[str, int]:
    """The measurements of a call that ends now."""
    duration = now_ns - call.started_ns
    measurements = {
        "duration": duration,
        "queue_duration": duration if call.queue_ns is None else call.queue_ns,
        "attempts": call.attempts,
    }
    if times is not None:
        measurements["execution_duration"] = times.execution_ns
        measurements["cpu_duration"] = times.cpu_ns
    return measurements
