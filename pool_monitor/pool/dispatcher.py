"""Calls meet workers: admission, the queue, hand-over, deadlines, and each call's one end.

Everything here is synchronous and runs on the event loop, between two awaits of anybody: there is no moment at
which a call is half handed over. `slots.Slots` owns the workers' lives and tells this object when one is free or
gone; this object tells it (`Wardens`) when a worker has to be killed, or is idle and not to be used any more.

A call that has ended for its caller (timed out, cancelled) may still hold up its worker: it stays in
``worker.calls`` until the worker answers or ends, so that its late answer can reach nobody.

While operations are short, a sequential worker is handed several calls ahead of time (`prefetch`). It begins them in
order and lets us see how far it has come, so those it has not begun are taken back when it dies or is held up.
"""

from __future__ import annotations

import asyncio
import math
import time
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
    SessionLost,
)
from pool_monitor.pool import told
from pool_monitor.pool.calls import Call, Items, Options, poisoned
from pool_monitor.pool.gate import SLOWLY, Gate
from pool_monitor.pool.hand_ahead import HELD_UP, LOOK_EVERY, HandAhead
from pool_monitor.pool.queue import WaitQueue
from pool_monitor.pool.retry import RetryBudget, RetryPolicy
from pool_monitor.pool.roster import Roster
from pool_monitor.pool.sessions import Sessions
from pool_monitor.pool.timer import DeadlineTimer
from pool_monitor.pool.transport.base import Failure
from pool_monitor.pool.worker import State, Wardens, Worker

if TYPE_CHECKING:
    from pool_monitor.config import PoolConfig
    from pool_monitor.pool.session import SessionState
    from pool_monitor.pool.transport.base import CallTimes

_START = events.OPERATION_START.event
_STOP = events.OPERATION_STOP.event
_RETRY = events.POOL_RETRY.event
_CHECKOUT = events.WORKER_CHECKOUT.event
_CHECKIN = events.WORKER_CHECKIN.event

_WEIGHT = 0.05  # of the latest call in means


class Dispatcher:
    """The calls of one pool. Holds at most ``queue_limit`` waiting calls."""

    def __init__(
        self,
        pool: str,
        size: int,
        config: PoolConfig,
        wardens: Wardens,
        *,
        now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.pool = pool
        self.config = config
        self.accepting = False
        self.paused = False
        self.operations: Mapping[str, str] = {}
        self.completed = 0
        self.relative_s: float | None = None  # mean of the latest hand-overs; above 0: calls waited for workers
        self.roster = Roster(pool, config.concurrency)
        self.sessions = Sessions(
            self.roster, ttl=config.session_ttl, limit=config.session_limit, strict=config.affinity == "strict"
        )
        self.gate = Gate(pool, size, config, now_ns)
        self._wardens = wardens
        self._loop = asyncio.get_running_loop()
        self._now_ns = now_ns
        self._waiting: WaitQueue[Call] = WaitQueue()
        self._open: dict[int, Call] = {}  # calls that have not ended
        self._running = 0  # of those, calls that are on a worker
        self._deadlines: DeadlineTimer[Call] = DeadlineTimer(self._loop, self._expire)
        self._ahead = HandAhead(self.roster, config.prefetch, self._loop, now_ns)
        self._quiet: asyncio.Future[None] | None = None  # set while somebody waits for the last call to end
        self._budget = RetryBudget(config.retry_budget)
        self._retries = RetryPolicy(config.retries, frozenset(config.retry_errors), self._budget)

    # -- what callers ask -----------------------------------------------------------------------------------------

    @property
    def workers(self) -> dict[str, Worker]:
        """Every slot, by id."""
        return self.roster.workers

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
        plain = not stream and options.worker is None and self.operations.get(operation) == "function"
        if not plain and self.accepting and self.operations:  # else refused anyway, or nobody has told what there is
            self.gate.check(operation, options, self.operations, self.workers, stream)
        now = self._loop.time()
        call = Call(
            operation,
            args,
            kwargs,
            options,
            future=self._loop.create_future(),
            items=Items(self._loop, limit=self.config.frame_limit if collect else None) if stream else None,
            deadline=now + (self.config.timeout if options.timeout is None else options.timeout),
            now_ns=self._now_ns(),
        )
        if options.session is not None:
            call.session_kind = options.affinity or self.config.affinity
        if _START.on:
            told.started(self.pool, call, self.waiting, time.time_ns())
        self._open[call.id] = call
        if not self.accepting or self.gate.shut or self.waiting > self.config.queue_limit:
            refusal = self._refusal(call, now)
            if refusal is not None:
                self._end(call, refusal)
                return call
        self._budget.earn()
        patience = math.inf if self.config.max_wait is None else now + self.config.max_wait
        call.tick = self._deadlines.add(call, min(call.deadline, patience))
        if options.session is None or self.sessions.enter(call, options.session, now):
            self._offer(call)
        return call

    def read_on(self, call: Call) -> None:
        """The caller has caught up with its stream."""
        if call.running and call.worker is not None:
            self._hold(call.worker, call, False)

    def cancel(self, call: Call) -> None:
        """The caller gave up. Does nothing when the call has ended."""
        self._interrupt(call, asyncio.CancelledError(), "cancel")

    # -- refusals -------------------------------------------------------------------------------------------------

    def _refusal(self, call: Call, now: float) -> Rejected | None:
        if not self.accepting:
            return self.rejected(
                PoolClosed, "the pool is not open: it is draining, closed or not yet entered", others=1
            )
        # The call itself is counted among the waiting already.
        if self.waiting > self.config.queue_limit and not self._can_start(call):
            return self.rejected(
                PoolSaturated, "the queue is full: call more slowly, add workers, or raise queue_limit", others=1
            )
        return self.gate.closed(call, now, self.waiting - 1)

    def _can_start(self, call: Call) -> bool:
        """Whether a worker would take the call at once."""
        session = self.sessions.table.get(call.options.session or "")
        return (session is None or session.active is None) and self._choose(call.options, session) is not None

    def _hopeless(self, call: Call) -> Rejected | None:
        """A refusal of a call that has to wait and would miss its deadline, as far as can be known."""
        if call.attempts or call.options.worker is not None or self.paused:
            return None
        ahead, roster = self._waiting.ahead(call), self.roster
        handed = max(0, self._running - roster.counts["busy"] * roster.concurrency)
        left = call.deadline - self._loop.time()
        return self.gate.hopeless(call, left, ahead, handed, roster.capacity, self.waiting - 1)

    def rejected(self, kind: type[Rejected], message: str, call: Call | None = None, *, others: int = 0) -> Rejected:
        """A refusal that says how the pool stands."""
        return self.gate.rejected(kind, message, self.waiting - others, call)

    # -- hand-over ------------------------------------------------------------------------------------------------

    def _offer(self, call: Call, *, front: bool = False) -> None:
        """Give the call to a free worker, or let it wait."""
        if self._is_lost(call):
            return
        if call.options.worker is not None and call.options.worker not in self.workers:
            self._end(call, self.rejected(PoolClosed, f"worker {call.options.worker!r} has been retired", call))
            return
        worker = self._choose(call.options, call.session)
        if worker is not None:
            if not self._hand_over(call, worker):
                self._feed(worker)
            return
        refusal = None if front else self._hopeless(call)
        if refusal is not None:
            self._end(call, refusal)
            return
        call.expects = self.gate.times.expects(call.operation)
        call.line = self._line(call)
        if front:
            call.line.push_front(call)
        else:
            call.line.push(call)
            if not len(self._waiting) % LOOK_EVERY:
                self._ahead.look(self.completed, len(self._open))

    def _is_lost(self, call: Call) -> bool:
        """Whether the call insists on a process that is gone; then it has failed."""
        lost = call.session is not None and self.sessions.lost(call)
        if lost:
            text = f"the worker that session {call.options.session!r} was bound to is gone; its next call begins anew"
            self._fail(call, SessionLost(text))
        return lost

    def _choose(self, options: Options, session: SessionState[Call] | None) -> Worker | None:
        if self.paused:
            return None
        if options.worker is not None:
            return self.roster.free(options.worker)
        if session is None or session.worker is None:
            return self.roster.choose(None)
        if self.sessions.is_strict(options):
            return self.roster.free(session.worker)
        return self.roster.choose(session.worker)

    def _line(self, call: Call) -> WaitQueue[Call]:
        """Where the call waits."""
        wanted = call.options.worker
        if wanted is None and call.session is not None and self.sessions.is_strict(call.options):
            wanted = call.session.worker
        pinned = self.workers.get(wanted or "")
        return self._waiting if pinned is None else pinned.pinned

    def _hand_over(self, call: Call, worker: Worker) -> bool:
        """Send the call. False when it cannot be carried: then it ends, and the worker is as free as before."""
        transport, process = worker.transport, worker.process
        assert transport is not None
        assert process is not None
        now_ns = self._now_ns()  # before it is sent: the worker may be done before the next line runs
        try:
            transport.call(
                call.id,
                call.operation,
                call.args,
                call.kwargs,
                stream=call.items is not None,
                session=None if call.session is None else self.sessions.carried(call),
            )
        except PayloadError as error:
            # Not here and now: its end may bring on the next call of its session, which may be no better.
            self._loop.call_soon(self._end, call, error)
            return False
        process.handed += 1
        call.nth = process.handed
        call.worker = worker
        call.attempts += 1
        call.sent_ns = now_ns
        call.queue_ns = now_ns - call.started_ns
        call.running = True
        self._running += 1
        if self.config.max_wait is not None:  # until here it was noted how long it may wait
            self._deadlines.remove(call, call.tick)
            call.tick = self._deadlines.add(call, call.deadline)
        ahead = len(worker.calls)
        worker.calls[call.id] = call
        if not ahead:
            idle_ns = call.started_ns - worker.lifecycle.since_ns
            relative_ns = -idle_ns if idle_ns > 0 else call.queue_ns
            self.roster.changed(worker)  # before anybody hears of it
            self.roster.move(worker, "checkout", now_ns)
        else:
            relative_ns = call.queue_ns
            self.roster.changed(worker)
            self._ahead.watch()
        mean, relative = self.relative_s, relative_ns / 1e9
        self.relative_s = relative if mean is None else mean + _WEIGHT * (relative - mean)
        if _CHECKOUT.on:
            told.checked_out(self.pool, call, worker, self.waiting, relative_ns)
        if call.session is not None:
            self.sessions.note(call, worker)
        if process.handed >= process.due:
            if process.spent:
                self.roster.withdraw(worker)
            self._wardens.worn(worker)
        return True

    def _feed(self, worker: Worker) -> None:
        """Give a free worker the next calls that wait, if any."""
        free, pinned, waiting = self.roster.free, worker.pinned, self._waiting
        while (pinned or waiting) and not self.paused and free(worker.id) is not None:
            call = pinned.pop() if pinned else waiting.pop()
            if self._is_lost(call):  # another process fills the slot by now
                continue
            if self.gate.too_late(call, call.deadline - self._loop.time()):
                text = f"too little time is left to execute it: {SLOWLY}"
                self._end(call, self.rejected(QueueTimeout, text, call))
            else:
                self._hand_over(call, worker)

    def resume(self) -> None:
        """Hand over what waits."""
        self.paused = False
        for worker in list(self.workers.values()):
            self._feed(worker)

    # -- what workers tell ----------------------------------------------------------------------------------------

    def ready(self, worker: Worker) -> None:
        """A worker can be handed calls: it has loaded the target, or is well again."""
        worker.tells = worker.transport is not None and worker.transport.begun is not None
        if worker.process is None or not worker.process.spent:
            self.roster.offer(worker)
            self._feed(worker)

    def replied(self, worker: Worker, call_id: int, result: Any, data: dict[str, Any] | None, times: CallTimes) -> None:
        """The worker's operation returned, or its stream ended."""
        call = worker.calls.get(call_id)
        if call is None:
            return
        now_ns = self._now_ns()
        elapsed_ns = now_ns - call.started_ns
        if times.execution_ns > elapsed_ns or (times.cpu_ns or 0) > elapsed_ns:
            times = times.within(elapsed_ns)
        if not call.done:
            if call.session is not None and data is not None:
                call.session.data = data
            self._ahead.executed(times.execution_ns)
            self._end(call, None, result, times, now_ns)
        self._release(worker, call, now_ns)

    def failed(self, worker: Worker, call_id: int, failure: Failure, times: CallTimes | None) -> None:
        """The worker's operation raised, or what it gave cannot be carried."""
        call = worker.calls.get(call_id)
        if call is None:
            return
        kind = PayloadError if failure.kind == "payload" else OperationError
        error = kind(call.operation, failure.type_name, failure.message, failure.traceback)
        now_ns = self._now_ns()
        if not call.done:
            self._fail(call, error, None if times is None else times.within(now_ns - call.started_ns))
        self._release(worker, call, now_ns)

    def item(self, worker: Worker, call_id: int, value: Any, size: int) -> None:
        """The worker's generator yielded; the item took *size* bytes."""
        call = worker.calls.get(call_id)
        if call is None or call.done or call.items is None:
            return
        if call.items.put(value, size):
            self._hold(worker, call, True)
        if call.items.overrun:
            if call.items.limit is None:
                self._wardens.misbehaved(worker, f"the stream of {call.operation!r} does not stand still when told to")
            else:
                text = f"its items take more than the frame limit of {call.items.limit} bytes together"
                self.unreadable(worker, call_id, Failure("payload", "PayloadError", f"{text}; use stream()", ""))

    def unreadable(self, worker: Worker, call_id: int, failure: Failure) -> None:
        """The worker's generator yielded something its caller cannot be given: nobody needs the rest."""
        call = worker.calls.get(call_id)
        if call is not None and not call.done:
            error = PayloadError(call.operation, failure.type_name, failure.message, failure.traceback)
            self._interrupt(call, error, "payload")

    def _hold(self, worker: Worker, call: Call, held: bool) -> None:
        """Have the call's stream stand still, because nobody reads it, or go on."""
        transport, items = worker.transport, call.items
        if transport is None or items is None:
            return
        if self.roster.concurrency == 1:
            transport.flow(paused=held)
        elif held is not items.held:  # what its other calls answer has to come through
            items.held = held
            transport.hold(call.id, held=held)

    def recalled(self, worker: Worker, call_id: int) -> None:
        """The worker will not begin this call: it is free to go elsewhere."""
        call = worker.calls.get(call_id)
        if call is None:
            return
        if worker.has_begun(call):
            self._wardens.misbehaved(worker, f"call {call_id} was given back after it had begun")
            return
        del worker.calls[call_id]
        if _CHECKIN.on:
            told.checked_in(self.pool, call, worker, self._now_ns())
        self._freed(worker)
        if not call.done:
            self._take_back(call)

    def lost(self, worker: Worker, error_for: Callable[[Call], PoolError]) -> None:
        """The worker has ended; *error_for* makes what a call that it had begun is told."""
        self.roster.withdraw(worker)
        calls = list(worker.calls.values())
        worker.calls.clear()
        begun = [call for call in calls if worker.has_begun(call)]
        reading = 0 if worker.transport is None else worker.transport.reading
        worker.transport = None
        for call in reversed(calls[len(begun) :]):  # the last first, since each goes to the front
            call.outlived(reading=reading == call.nth)
            if not call.done and call.is_poison(len(self.workers)):
                self._end(call, poisoned(call, error_for(call)))
            elif not call.done:
                self._take_back(call)
        now_ns = self._now_ns()
        for call in begun:
            self.gate.times.add(call.operation, (now_ns - call.sent_ns) / 1e9)  # it held its worker all the same
            if not call.done:
                self._fail(call, error_for(call))
        for call in list(worker.pinned):  # bound to this process, not merely to this slot
            if call.options.worker is None and worker.pinned.discard(call):
                self._offer(call)

    def forget(self, worker: Worker) -> None:
        """The slot is no more: nobody may go on waiting for it."""
        for call in list(worker.pinned):
            worker.pinned.discard(call)
            self._end(call, self.rejected(PoolClosed, f"worker {worker.id!r} has been retired", call))

    def _take_back(self, call: Call) -> None:
        """A call that was handed over and never begun goes on as if it had not been."""
        self._running -= 1
        call.running = False
        call.attempts -= 1
        call.queue_ns = None
        self.sessions.take_back(call)
        self._offer(call, front=True)

    def _release(self, worker: Worker, call: Call, now_ns: int) -> None:
        """The worker has answered this call."""
        calls, process = worker.calls, worker.process
        calls.pop(call.id, None)
        self.gate.times.add(call.operation, (now_ns - call.sent_ns) / 1e9)
        if call.items is not None and worker.transport is not None and self.roster.concurrency == 1:
            worker.transport.flow(paused=False)  # its last items may have come too fast for its reader
        if _CHECKIN.on and worker.lifecycle.state is State.BUSY:
            told.checked_in(self.pool, call, worker, now_ns)
        if calls and self.roster.concurrency == 1:  # the next one has the worker from now on
            following = next(iter(calls.values()))
            following.sent_ns = now_ns
            following.queue_ns = now_ns - following.started_ns
        if process is not None:
            process.served += 1
        self._freed(worker)

    def _freed(self, worker: Worker) -> None:
        """The worker has one call less."""
        if worker.lifecycle.state is not State.BUSY:
            return  # it is being ended
        if not worker.calls:
            self.roster.move(worker, "checkin", self._now_ns())
            if not worker.open:
                self._wardens.idle(worker)
                return
        self.roster.changed(worker)
        if worker.open and (self._waiting or worker.pinned):
            self._feed(worker)

    # -- ends -----------------------------------------------------------------------------------------------------

    def _fail(self, call: Call, error: PoolError, times: CallTimes | None = None) -> None:
        """An attempt has failed: send the call again if it may be, else end it."""
        if call.options.idempotent and (call.items is None or call.items.start_over()):
            pause = self._retries.decide(error, max(1, call.attempts), call.deadline - self._loop.time())
            if pause is not None:
                self.gate.failed(call, error, self._now_ns())
                if call.running:
                    self._running -= 1
                    call.running = False
                if _RETRY.on:
                    told.retried(self.pool, call, error, pause)
                self._loop.call_later(pause, self._again, call)
                return
        self._end(call, error, None, times)

    def _again(self, call: Call) -> None:
        if not call.done:
            self._offer(call)

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
            if call.line is not None:
                call.line.discard(call)
            self._end(call, error)
            return
        self._end(call, error)
        worker = call.worker
        assert worker is not None
        assert worker.transport is not None
        worker.transport.cancel(call.id)
        if call.items is not None:
            self._hold(worker, call, False)
        self._loop.call_later(self.config.cancel_grace, self._lose_patience, worker, call, reason)

    def _lose_patience(self, worker: Worker, call: Call, reason: str) -> None:
        if worker.calls.get(call.id) is not call:
            return
        if worker.call is call or worker.has_begun(call):
            self._wardens.kill(worker, reason, call.operation)
        else:  # it stands behind another one, which has a deadline of its own
            again = max(self.config.cancel_grace, HELD_UP)
            self._loop.call_later(again, self._lose_patience, worker, call, reason)

    def _expire(self, calls: list[Call]) -> None:
        now = self._loop.time()
        for call in calls:
            worker = call.worker
            if not call.running:
                text = self.gate.nobody(self.paused, self.roster.capacity)
                self._interrupt(call, self.rejected(QueueTimeout, text, call), "timeout")
            elif call.deadline > now:  # it was to wait no longer, and has been handed over within this loop
                call.tick = self._deadlines.add(call, call.deadline)
            else:
                on = worker.id if worker is not None else "?"
                timeout = self.config.timeout if call.options.timeout is None else call.options.timeout
                text = f"{call.operation} was not done within its timeout of {timeout:g} s, on {on}"
                self._interrupt(call, OperationTimeout(text), "timeout")

    def _end(
        self,
        call: Call,
        error: BaseException | None,
        result: Any = None,
        times: CallTimes | None = None,
        now_ns: int | None = None,
    ) -> None:
        """The one end of a call. Does nothing the second time."""
        if call.done:
            return
        call.done = True
        if now_ns is None:
            now_ns = self._now_ns()
        del self._open[call.id]
        self._deadlines.remove(call, call.tick)
        self.gate.ended(call, error, now_ns)
        if call.running:
            call.running = False
            self._running -= 1
        self.completed += 1
        if not self.completed % LOOK_EVERY:
            self._ahead.look(self.completed, len(self._open))
        if error is not None and isinstance(error, PoolError):
            error.call_id = call.id
            if call.worker is not None and not isinstance(error, Rejected):
                error.worker = call.worker.id
        call.tell(error, result)
        if error is not None or _STOP.on:
            told.ended(self.pool, call, error, times, now_ns)
        if call.session is not None:
            following = self.sessions.leave(call, self._loop.time())
            if following is not None:  # soon: by then its worker is free, and what ends with this one has ended
                self._loop.call_soon(self._again, following)
        if not self._open and self._quiet is not None:
            self._quiet.set_result(None)
            self._quiet = None

    def close(self) -> None:
        """Nothing more will happen: stop the timers."""
        self._deadlines.close()
        self._ahead.close()
