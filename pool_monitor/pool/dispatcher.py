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
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pool_monitor import events
from pool_monitor.errors import (
    OperationCancelled,
    OperationError,
    PayloadError,
    PoolClosed,
    PoolError,
    PoolSaturated,
    QueueTimeout,
    Rejected,
)
from pool_monitor.pool import call_events
from pool_monitor.pool.admission import SLOWLY, Gate
from pool_monitor.pool.call import Call, Options, next_id, poisoned
from pool_monitor.pool.call_context import Travelling
from pool_monitor.pool.deadline_timer import CallDeadlines
from pool_monitor.pool.hand_ahead import HELD_UP, LOOK_EVERY, HandAhead
from pool_monitor.pool.policy.lifecycle import State
from pool_monitor.pool.policy.queue import WaitQueue
from pool_monitor.pool.policy.retry import RetryBudget, RetryPolicy
from pool_monitor.pool.roster import Roster
from pool_monitor.pool.sessions import Sessions
from pool_monitor.pool.streams import Streams
from pool_monitor.pool.transport.base import Failure
from pool_monitor.pool.worker import Wardens, Worker
from pool_monitor.telemetry import FAILURES

if TYPE_CHECKING:
    from pool_monitor.config import PoolConfig
    from pool_monitor.pool.transport.base import CallTimes, Reply
    from pool_monitor.telemetry import Record

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
        self._deadlines = CallDeadlines(self._loop, self._expire)
        self._ahead = HandAhead(self.roster, config.prefetch, self._loop, now_ns)
        self._look_at = LOOK_EVERY  # when so many calls have ended
        self._quiet: asyncio.Future[None] | None = None  # set while somebody waits for the last call to end
        self.streams = Streams(self.roster, wardens, config, self._interrupt, self._overdue)
        self._travelling = Travelling(config.context)
        self.budget = RetryBudget(config.retry_budget)
        jitter = random.Random()  # noqa: S311 - no secret
        self._retries = RetryPolicy(config.retries, frozenset(config.retry_errors), self.budget, jitter)

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
        config, now_ns = self.config, self._now_ns()
        now = now_ns / 1e9  # the event loop's clock too
        deadline = now + (config.timeout if options.timeout is None else options.timeout)
        items = self.streams.items(collect=collect) if stream else None
        future = self._loop.create_future()
        call = self._travelling.new_call(next_id(), operation, args, kwargs, options, future, items, deadline, now_ns)
        if options.session is not None:
            call.session_kind = options.affinity or config.affinity
        if options.priority or options.key:
            call.priority, call.key = options.priority, options.key
        if _START.on:
            call_events.started(self.pool, call, self.waiting, time.time_ns())
        self._open[call.id] = call
        if not self.accepting or self.gate.shut or len(self._open) - self._running > config.queue_limit:
            refusal = self._refusal(call, now)
            if refusal is not None:
                self._end(call, refusal)
                return call
        self.budget.earn()
        if items is not None:
            self.streams.watch(call)
        if config.max_wait is not None:
            self._deadlines.add(call, min(call.deadline, now + config.max_wait))
        elif options.timeout is not None:
            self._deadlines.add(call, call.deadline)
        else:
            self._deadlines.add_last(call)
        if options.session is None or self.sessions.enter(call, options.session, now):
            self._offer(call, now_ns)
        return call

    def cancel(self, call: Call) -> None:
        """The caller gave up. Does nothing when the call has ended."""
        self._interrupt(call, asyncio.CancelledError(), "cancel")

    # -- refusals -------------------------------------------------------------------------------------------------

    def _refusal(self, call: Call, now: float) -> Rejected | None:
        if not self.accepting:
            text = "the pool is not open: it is draining, closed or not yet entered"
            return self.rejected(PoolClosed, text, others=1)
        # The call itself is counted among the waiting already.
        if self.waiting > self.config.queue_limit and (self.paused or not self.sessions.can_start(call.options)):
            text = "the queue is full: call more slowly, add workers, or raise queue_limit"
            return self.rejected(PoolSaturated, text, others=1)
        return self.gate.closed(call, now, self.waiting - 1)

    def _hopeless(self, call: Call) -> Rejected | None:
        """A refusal of a call that has to wait and would miss its deadline, as far as can be known."""
        if call.attempts or call.options.worker is not None or self.paused:
            return None
        ahead, roster = self._waiting.ahead(call), self.roster
        handed = max(0, self._running - roster.counts["busy"] * roster.concurrency)
        left = call.deadline - self._now_ns() / 1e9
        return self.gate.hopeless(call, left, ahead, handed, roster.capacity, self.waiting - 1)

    def rejected(self, kind: type[Rejected], message: str, call: Call | None = None, *, others: int = 0) -> Rejected:
        """A refusal that says how the pool stands."""
        return self.gate.rejected(kind, message, self.waiting - others, call)

    # -- hand-over ------------------------------------------------------------------------------------------------

    def _offer(self, call: Call, now_ns: int, *, front: bool = False) -> None:
        """Give the call to a free worker, or let it wait."""
        options, line = call.options, self._waiting
        if call.session is None and options.worker is None:
            worker = None if self.paused else self._ahead.choose(call, self.gate.times)
        else:
            if self._is_lost(call):
                return
            if options.worker is not None and options.worker not in self.workers:
                self._end(call, self.rejected(PoolClosed, f"worker {options.worker!r} has been retired", call))
                return
            worker = None if self.paused else self.sessions.choose(options, call.session)
            line = self.sessions.line(call, line)
        if worker is not None:
            if self._hand_over(call, worker, now_ns):
                self.roster.changed(worker)
            else:
                self._feed(worker)
            return
        if (len(self._open) + 2) * self.gate.times.longest >= call.deadline - now_ns / 1e9 and not front:
            refusal = self._hopeless(call)  # even one after the other all might not be done in time
            if refusal is not None:
                self._end(call, refusal)
                return
        call.expects = self.gate.times.expects(call.operation)
        call.line = line
        if front:
            line.push_front(call)
        else:
            line.push(call)
            if not self._waiting.size % LOOK_EVERY:
                self._look()

    def _is_lost(self, call: Call) -> bool:
        """Whether the call insists on a process that is gone; then it has failed."""
        error = self.sessions.lost(call)
        if error is not None:
            self._fail(call, error)
        return error is not None

    def _feed(self, worker: Worker) -> None:
        """Give a free worker the next calls that wait, if any."""
        pinned, waiting, held = worker.pinned, self._waiting, worker.calls
        now_ns = self._now_ns()
        far = now_ns / 1e9 + self.gate.times.longest
        limit = self.roster.limit(worker)
        while (pinned.size or waiting.size) and worker.open and len(held) < limit and not self.paused:
            call = pinned.pop() if pinned.size else waiting.pop()
            if call.session is not None and self._is_lost(call):  # another process fills the slot by now
                continue
            if call.deadline < far and self.gate.too_late(call, call.deadline - now_ns / 1e9):
                text = f"too little time is left to execute it: {SLOWLY}"
                self._end(call, self.rejected(QueueTimeout, text, call))
            else:
                self._hand_over(call, worker, now_ns)
        self.roster.changed(worker)
        if len(held) >= limit and worker.transport is not None:
            worker.transport.flush()  # no more can join them

    def _hand_over(self, call: Call, worker: Worker, now_ns: int) -> bool:
        """Send the call, before its caller tells the roster that the worker has changed. False when it cannot be
        carried: then it ends. *now_ns* is from before: the worker may be done before the next line runs.
        """
        transport, process, session, held = worker.transport, worker.process, call.session, worker.calls
        assert transport is not None
        assert process is not None
        try:
            carried = None if session is None else self.sessions.carried(call)
            if call.context is None:
                transport.call(call.id, call.operation, call.args, call.kwargs, call.items is not None, carried)
            else:
                self._travelling.hand_over(transport, call, carried)
        except PayloadError as error:
            # Not here and now: its end may bring on the next call of its session, which may be no better.
            self._loop.call_soon(self._end, call, error)
            return False
        process.handed = call.nth = process.handed + 1
        call.worker = worker
        call.attempts += 1
        call.sent_ns = now_ns
        call.queue_ns = relative_ns = now_ns - call.started_ns
        call.running = True
        self._running += 1
        if self.config.max_wait is not None:  # until here it was noted how long it may wait
            self._deadlines.remove(call)
            self._deadlines.add(call, call.deadline)
        held[call.id] = call
        if worker.lifecycle.state is State.BUSY:  # perhaps with no call left, and not yet caught up
            self._ahead.watch()
        else:
            idle_ns = call.started_ns - worker.lifecycle.since_ns
            if idle_ns > 0:
                relative_ns = -idle_ns
            self.roster.changed(worker)  # before anybody hears of it
            self.roster.move(worker, "checkout", now_ns)
        mean, relative = self.relative_s, relative_ns / 1e9
        self.relative_s = relative if mean is None else mean + _WEIGHT * (relative - mean)
        if _CHECKOUT.on:
            call_events.checked_out(self.pool, call, worker, self.waiting, relative_ns)
        if session is not None:
            self.sessions.note(call, worker)
        if process.handed >= process.due:
            if process.spent:
                self.roster.withdraw(worker)
            self._wardens.worn(worker)
        return True

    def resume(self) -> None:
        """Hand over what waits."""
        self.paused = False
        for worker in list(self.workers.values()):
            self._feed(worker)

    # -- what workers tell ----------------------------------------------------------------------------------------

    def ready(self, worker: Worker) -> None:
        """A worker can be handed calls: it has loaded the target, or is well again."""
        worker.relieved = False
        worker.tells = worker.transport is not None and worker.transport.begun is not None
        if worker.process is None or not worker.process.spent:
            self.roster.offer(worker)
            self._feed(worker)

    def returned(self, worker: Worker, replies: Sequence[Reply]) -> None:
        """Plain operations of the worker returned, and the replies came together."""
        now_ns, held, well = self._now_ns(), worker.calls, 0
        calls = [held[reply.call_id] for reply in replies]
        turns_ns = self._ahead.turns(calls, replies, now_ns)
        records = call_events.records_of(worker)
        self._ahead.saw(len(self._open))
        for call, reply in zip(calls, replies, strict=True):
            well += self._end_well(call, reply, now_ns, records)
            if _CHECKIN.on and worker.lifecycle.state is State.BUSY:
                call_events.checked_in(self.pool, call, worker, now_ns)
            del held[call.id]
        self.gate.times.add_all([call.operation for call in calls], turns_ns)
        self.gate.returned(well, now_ns)
        self._count(well)
        self._served(worker, len(calls), now_ns)

    def _end_well(self, call: Call, reply: Reply, now_ns: int, records: Mapping[str, Record] | None) -> bool:
        """`_end`, for a call that returned. Whether `_count` and the gate are to be told, with others."""
        times, elapsed_ns = reply.times, now_ns - call.started_ns
        if times.execution_ns > elapsed_ns or (times.cpu_ns or 0) > elapsed_ns:
            times = times.within(elapsed_ns)
        if call.done or call.trial or call.session is not None or call.deadline * 1e9 < now_ns:
            self._end(call, call.late(now_ns, self.config.timeout), reply.result, times, now_ns)
            return False
        call.done = True
        call.running = False
        self._running -= 1
        del self._open[call.id]
        if call.tick:
            self._deadlines.remove(call)
        else:
            self._deadlines.in_order.pop(call.id, None)
        if not call.future.done():
            call.future.set_result(reply.result)
        if _STOP.on:
            worker, series = call.worker, _STOP.series
            record = None if records is None else records.get(call.operation)
            if record is None or series is None or worker is None or worker.records_of is not series:
                call_events.ended(self.pool, call, None, times, now_ns)
            else:
                try:
                    record(elapsed_ns, call.queue_ns, times.execution_ns)
                except FAILURES as failure:
                    series.failed(failure)
        return True

    def caught_up(self, worker: Worker) -> None:
        """All that the worker has sent by now has been told: it may be handed the next calls."""
        if worker.lifecycle.state is not State.BUSY:
            return  # it is being ended
        worker.relieved = worker.relieved and bool(worker.calls)
        self._feed(worker)  # it goes on being busy if something waits
        if not worker.calls:
            self.roster.move(worker, "checkin", self._now_ns())
            if not worker.open:
                self._wardens.idle(worker)

    def replied(self, worker: Worker, call_id: int, result: Any, data: dict[str, Any] | None, times: CallTimes) -> None:
        """The worker's operation returned, or its stream ended."""
        call = worker.calls.get(call_id)
        if call is None:
            return
        now_ns = self._now_ns()
        if not call.done:
            late = call.late(now_ns, self.config.timeout)
            if call.session is not None and data is not None and late is None:
                call.session.data = data
            times = times.within(now_ns - call.started_ns)
            self._ahead.executed(times.execution_ns, 1)
            self._end(call, late, result, times, now_ns)
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
            call_events.checked_in(self.pool, call, worker, self._now_ns())
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
                self._offer(call, now_ns)

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
        self._offer(call, self._now_ns(), front=True)

    def _release(self, worker: Worker, call: Call, now_ns: int) -> None:
        """The worker has answered this call."""
        worker.calls.pop(call.id, None)
        self.gate.times.add(call.operation, (now_ns - call.sent_ns) / 1e9)
        if call.items is not None and worker.transport is not None and self.roster.concurrency == 1:
            worker.transport.flow(paused=False)  # its last items may have come too fast for its reader
        if _CHECKIN.on and worker.lifecycle.state is State.BUSY:
            call_events.checked_in(self.pool, call, worker, now_ns)
        self._served(worker, 1, now_ns)

    def _served(self, worker: Worker, count: int, now_ns: int) -> None:
        """The worker has answered so many calls."""
        if worker.process is not None:
            worker.process.served += count
        following = worker.call if self.roster.concurrency == 1 else None
        if following is not None:  # it has the worker from now on
            following.sent_ns = now_ns
            following.queue_ns = now_ns - following.started_ns

    # -- ends -----------------------------------------------------------------------------------------------------

    def _fail(self, call: Call, error: PoolError, times: CallTimes | None = None) -> None:
        """An attempt has failed: send the call again if it may be, else end it."""
        if call.options.idempotent and (call.items is None or call.items.start_over()):
            pause = self._retries.decide(error, max(1, call.attempts), call.deadline - self._loop.time())
            if pause is not None:
                self.gate.failed(call, error, self._now_ns())
                self._running -= call.running
                call.running, call.queue_ns = False, None  # it waits again
                if _RETRY.on:
                    call_events.retried(self.pool, call, error, pause)
                self._loop.call_later(pause, self._again, call)
                return
        self._end(call, error, None, times)

    def _again(self, call: Call) -> None:
        if not call.done:
            self._offer(call, self._now_ns())

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
        running, worker = call.running, call.worker
        if not running and call.line is not None:
            call.line.discard(call)
        self._end(call, error)
        if not running or worker is None or worker.transport is None:
            return
        worker.transport.cancel(call.id)
        if call.items is not None:
            self.streams.hold(worker, call, False)
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
            if call.running and call.deadline > now:  # it was to wait no longer, and was handed over within this loop
                self._deadlines.add(call, call.deadline)
            else:
                self._overdue(call, call.timed_out(self.config.timeout))

    def _overdue(self, call: Call, error: PoolError) -> None:
        """The call's time is up; *error*: what it is told where a worker has it."""
        if not call.running:
            error = self.rejected(QueueTimeout, self.gate.nobody(self.paused, self.roster.capacity), call)
        self._interrupt(call, error, "timeout")

    def _end(
        self, call: Call, error: BaseException | None, result: Any = None, times: CallTimes | None = None,
        now_ns: int | None = None,
    ) -> None:  # fmt: skip
        """The one end of a call. Does nothing the second time."""
        if call.done:
            return
        call.done = True
        if now_ns is None:
            now_ns = self._now_ns()
        self._ahead.saw(len(self._open))
        del self._open[call.id]
        self._deadlines.remove(call)
        self.gate.ended(call, error, now_ns)
        if call.running:
            call.running = False
            self._running -= 1
        if isinstance(error, PoolError):
            error.call_id = call.id
            if call.worker is not None and not isinstance(error, Rejected):
                error.worker = call.worker.id
        call.tell(error, result)
        if error is not None or _STOP.on:
            call_events.ended(self.pool, call, error, times, now_ns)
        if call.session is not None:
            following = self.sessions.leave(call, self._loop.time())
            if following is not None:  # soon: by then its worker is free, and what ends with this one has ended
                self._loop.call_soon(self._again, following)
        self._count(1)

    def _count(self, ended: int) -> None:
        """So many calls have ended."""
        self.completed += ended
        if self.completed >= self._look_at:
            self._look()
        if not self._open and self._quiet is not None:
            self._quiet.set_result(None)
            self._quiet = None

    def _look(self) -> None:
        """See anew what calls are like."""
        self._look_at = self.completed + LOOK_EVERY
        self.gate.times.update_longest()
        self._ahead.look(self.completed, len(self._open))

    def close(self) -> None:
        """Nothing more will happen: stop the timers."""
        self._deadlines.close()
        self._ahead.close()
