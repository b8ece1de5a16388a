"""The way of calls to workers: admission, the queue, the hand-over, and the workers' answers.

All of this is synchronous and runs on the event loop, so no other task ever sees a call that is half handed over.
`supervisor.Supervisor` starts and ends workers, and reports here when a worker is free or gone. The dispatcher asks the
supervisor (`WorkerControl`) to kill a worker, and reports a worker that is idle and withdrawn. `open_calls` has the
ways in which calls end.

A call that has ended for its caller (timed out, cancelled) may still occupy its worker. It stays in ``worker.calls``
until the worker answers or ends, so that its late answer reaches no other call.

While operations are short, a sequential worker is handed several calls ahead of time (`prefetch`). It begins them in
order and reports its progress, so the calls that it has not begun are taken back when it dies or is held up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pool_monitor import events
from pool_monitor.errors import (
    OperationError,
    PayloadError,
    PoolClosed,
    PoolError,
    PoolSaturated,
    QueueTimeout,
    Rejected,
)
from pool_monitor.pool import call_events
from pool_monitor.pool.admission import SLOWLY
from pool_monitor.pool.call import Call, Options, next_id, poisoned
from pool_monitor.pool.call_context import ContextPropagator
from pool_monitor.pool.hand_ahead import ADAPT_EVERY
from pool_monitor.pool.open_calls import OpenCalls
from pool_monitor.pool.policy.lifecycle import State
from pool_monitor.pool.policy.queue import WaitQueue
from pool_monitor.pool.worker import Worker

if TYPE_CHECKING:
    from pool_monitor.config import PoolConfig
    from pool_monitor.pool.admission import Admission
    from pool_monitor.pool.roster import Roster
    from pool_monitor.pool.sessions import Sessions
    from pool_monitor.pool.transport.interface import CallTimes, Failure, Reply

_START = events.OPERATION_START.event
_CHECKOUT = events.WORKER_CHECKOUT.event
_CHECKIN = events.WORKER_CHECKIN.event

_WEIGHT = 0.05  # of the latest hand-over in the mean


class Dispatcher(OpenCalls):
    """The calls of one pool. Holds at most ``queue_limit`` waiting calls. Must be made on a running event loop.

    *roster*, *sessions* and *admission* are those of the pool, and are shared with its other parts.
    """

    def __init__(
        self,
        roster: Roster,
        sessions: Sessions,
        admission: Admission,
        config: PoolConfig,
        *,
        now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        super().__init__(roster, sessions, admission, config, now_ns)
        self.accepting = False
        self.operations: Mapping[str, str] = {}
        self.relative_s: float | None = None  # mean of the latest hand-overs; > 0: calls waited, < 0: workers waited
        self._waiting: WaitQueue[Call] = WaitQueue()
        self._propagator = ContextPropagator(config.context)

    # -- requests of callers --------------------------------------------------------------------------------------

    @property
    def workers(self) -> dict[str, Worker]:
        """All slots, by id."""
        return self.roster.workers

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
        """Make a call, and hand it to a worker, queue it or refuse it. Its future holds the result or the error of the
        call, which may be a refusal. *stream*: the operation is a generator. *collect*: the caller reads the items only
        after the last one. Raises UnknownOperation if no worker can run the call.
        """
        plain = not stream and options.worker is None and self.operations.get(operation) == "function"
        if not plain and self.accepting and self.operations:  # else it is refused anyway, or no worker was ready yet
            self.admission.check_operation(operation, options, self.operations, self.workers, stream)
        config, now_ns = self.config, self._now_ns()
        now = now_ns / 1e9  # the event loop's clock too
        deadline = now + (config.timeout if options.timeout is None else options.timeout)
        items = self._streams.items(collect=collect) if stream else None
        future = self._loop.create_future()
        call = self._propagator.new_call(next_id(), operation, args, kwargs, options, future, items, deadline, now_ns)
        if options.session is not None:
            call.session_kind = options.affinity or config.affinity
        if options.priority or options.key:
            call.priority, call.key = options.priority, options.key
        if _START.on:
            call_events.started(self.identity, call, self.waiting, time.time_ns())
        self._open[call.id] = call
        if not self.accepting or self.admission.breaker_tripped or len(self._open) - self._running > config.queue_limit:
            refusal = self._refusal(call, now)
            if refusal is not None:
                self._end(call, refusal)
                return call
        self.budget.earn()
        if items is not None:
            self._streams.watch(call)
        if config.max_wait is not None:
            self._deadlines.add(call, min(call.deadline, now + config.max_wait))
        elif options.timeout is not None:
            self._deadlines.add(call, call.deadline)
        else:
            self._deadlines.add_last(call)
        if options.session is None or self.sessions.enter(call, options.session, now):
            self._offer(call, now_ns)
        return call

    # -- refusals -------------------------------------------------------------------------------------------------

    def _refusal(self, call: Call, now: float) -> Rejected | None:
        if not self.accepting:
            text = "the pool is not open: it is draining, closed or not yet entered"
            return self.rejected(PoolClosed, text, others=1)
        # The waiting calls include this one already.
        if self.waiting > self.config.queue_limit and (self.paused or not self.sessions.can_start(call.options)):
            text = "the queue is full: call more slowly, add workers, or raise queue_limit"
            return self.rejected(PoolSaturated, text, others=1)
        return self.admission.breaker_refusal(call, now, self.waiting - 1)

    def _deadline_refusal(self, call: Call) -> Rejected | None:
        """Return a refusal if the call has to wait and is predicted to miss its deadline, else None."""
        if call.attempts or call.options.worker is not None or self.paused:
            return None
        ahead, roster = self._waiting.ahead(call), self.roster
        handed = max(0, self._running - roster.counts["busy"] * roster.concurrency)
        left = call.deadline - self._now_ns() / 1e9
        return self.admission.deadline_refusal(call, left, ahead, handed, roster.capacity, self.waiting - 1)

    # -- hand-over ------------------------------------------------------------------------------------------------

    def _offer(self, call: Call, now_ns: int, *, front: bool = False) -> None:
        """Hand the call to a free worker, or let it wait."""
        options, line = call.options, self._waiting
        if call.session is None and options.worker is None:
            worker = None if self.paused else self._ahead.choose(call, self.admission.times)
        else:
            if self._is_lost(call):
                return
            if options.worker is not None and options.worker not in self.workers:
                self._end(call, self.rejected(PoolClosed, f"worker {options.worker!r} has been retired", call))
                return
            worker = None if self.paused else self.sessions.choose(options, call.session)
            line = self.sessions.queue_for(call, line)
        if worker is not None:
            if self._hand_over(call, worker, now_ns):
                self.roster.changed(worker)
            else:
                self._feed(worker)
            return
        if (len(self._open) + 2) * self.admission.times.longest >= call.deadline - now_ns / 1e9 and not front:
            refusal = self._deadline_refusal(call)  # else even all open calls, one after the other, are in time
            if refusal is not None:
                self._end(call, refusal)
                return
        call.expects = self.admission.times.expects(call.operation)
        call.queue = line
        if front:
            line.push_front(call)
        else:
            line.push(call)
            if not self._waiting.size % ADAPT_EVERY:
                self._adapt()

    def _is_lost(self, call: Call) -> bool:
        """Whether the call is bound to a process that is gone. If so, it has been failed."""
        error = self.sessions.lost_error(call)
        if error is not None:
            self._fail(call, error)
        return error is not None

    def _feed(self, worker: Worker) -> None:
        """Hand a free worker the next waiting calls, if any."""
        pinned, waiting, held = worker.pinned, self._waiting, worker.calls
        now_ns = self._now_ns()
        safe_from = now_ns / 1e9 + self.admission.times.longest  # later deadlines need no check
        limit = self.roster.limit(worker)
        while (pinned.size or waiting.size) and worker.accepting and len(held) < limit and not self.paused:
            call = pinned.pop() if pinned.size else waiting.pop()
            if call.session is not None and self._is_lost(call):  # another process fills the slot by now
                continue
            if call.deadline < safe_from and self.admission.would_miss_deadline(call, call.deadline - now_ns / 1e9):
                text = f"too little time is left to execute it: {SLOWLY}"
                self._end(call, self.rejected(QueueTimeout, text, call))
            else:
                self._hand_over(call, worker, now_ns)
        self.roster.changed(worker)
        if len(held) >= limit and worker.transport is not None:
            worker.transport.flush()  # no further call can join this batch

    def _hand_over(self, call: Call, worker: Worker, now_ns: int) -> bool:
        """Send the call to the worker. Returns False if the call cannot be carried, and ends. The caller must call
        `Roster.changed` next. *now_ns* is read before the call is sent, because the worker may answer at once.
        """
        transport, process, session, held = worker.transport, worker.process, call.session, worker.calls
        assert transport is not None
        assert process is not None
        try:
            carried = None if session is None else self.sessions.payload(call)
            if call.context is None:
                transport.call(call.id, call.operation, call.args, call.kwargs, call.items is not None, carried)
            else:
                self._propagator.hand_over(transport, call, carried)
        except PayloadError as error:
            # Not at once: its end starts the next call of its session, which may fail in the same way, and so on.
            self._loop.call_soon(self._end, call, error)
            return False
        process.handed = call.nth = process.handed + 1
        call.worker = worker
        call.attempts += 1
        call.sent_ns = now_ns
        call.queue_ns = relative_ns = now_ns - call.started_ns
        call.running = True
        self._running += 1
        if self.config.max_wait is not None:  # until now, the limit of its wait took the place of its deadline
            self._deadlines.remove(call)
            self._deadlines.add(call, call.deadline)
        held[call.id] = call
        if worker.lifecycle.state is State.BUSY:  # it may have no calls left, until `caught_up` is called
            self._ahead.watch()
        else:
            idle_ns = call.started_ns - worker.lifecycle.since_ns
            if idle_ns > 0:
                relative_ns = -idle_ns
            self.roster.changed(worker)  # before any event is emitted
            self.roster.move(worker, "checkout", now_ns)
        mean, relative = self.relative_s, relative_ns / 1e9
        self.relative_s = relative if mean is None else mean + _WEIGHT * (relative - mean)
        if _CHECKOUT.on:
            call_events.checked_out(self.identity, call, worker, self.waiting, relative_ns)
        if session is not None:
            self.sessions.bind(call, worker)
        if process.handed >= process.due:
            if process.used_up:
                self.roster.withdraw(worker)
            self.control.recycle_due(worker)
        return True

    def resume(self) -> None:
        """Hand the waiting calls to free workers again."""
        self.paused = False
        for worker in list(self.workers.values()):
            self._feed(worker)

    # -- reports of workers ---------------------------------------------------------------------------------------

    def ready(self, worker: Worker) -> None:
        """Offer calls to a worker that has loaded the target, or has recovered."""
        worker.recalling = False
        if worker.process is not None:
            worker.most_calls = min(worker.process.concurrency, self.roster.concurrency)
        one = self.roster.concurrency == 1  # else it is handed no calls ahead
        worker.reports_progress = one and worker.transport is not None and worker.transport.begun is not None
        if worker.process is None or not worker.process.used_up:
            self.roster.offer(worker)
            self._feed(worker)

    def returned(self, worker: Worker, replies: Sequence[Reply]) -> None:
        """Handle replies of plain operations that arrived together."""
        now_ns, held, ended_well = self._now_ns(), worker.calls, 0
        calls = [held[reply.call_id] for reply in replies]
        turns_ns = self._ahead.turns(calls, replies, now_ns)
        records = call_events.records_of(worker)
        self._ahead.note_open(len(self._open))
        for call, reply in zip(calls, replies, strict=True):
            ended_well += self._end_well(call, reply, now_ns, records)
            if _CHECKIN.on and worker.lifecycle.state is State.BUSY:
                call_events.checked_in(self.identity, call, worker, now_ns)
            del held[call.id]
        self.admission.times.add_all([call.operation for call in calls], turns_ns)
        self.admission.succeeded(ended_well, now_ns)
        self._count(ended_well)
        self._served(worker, len(calls), now_ns)

    def caught_up(self, worker: Worker) -> None:
        """Hand the worker its next calls: everything that it has sent so far has been handled."""
        if worker.lifecycle.state is not State.BUSY:
            return  # the worker is being ended
        worker.recalling = worker.recalling and bool(worker.calls)
        self._feed(worker)  # it stays busy if a call waits
        if not worker.calls:
            self.roster.move(worker, "checkin", self._now_ns())
            if not worker.accepting:
                self.control.idle(worker)

    def replied(self, worker: Worker, call_id: int, result: Any, data: dict[str, Any] | None, times: CallTimes) -> None:
        """Handle the result of an operation, or the end of a stream."""
        call = worker.calls.get(call_id)
        if call is None:
            return
        now_ns = self._now_ns()
        if not call.done:
            late = call.late_error(now_ns, self.config.timeout)
            if call.session is not None and data is not None and late is None:
                call.session.data = data
            times = times.within(now_ns - call.started_ns)
            self._ahead.executed(times.execution_ns, 1)
            self._end(call, late, result, times, now_ns)
        self._release(worker, call, now_ns)

    def failed(self, worker: Worker, call_id: int, failure: Failure, times: CallTimes | None) -> None:
        """Handle an operation that raised, or whose result cannot be carried."""
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
        """Take back a call that the worker has not begun and will not begin."""
        call = worker.calls.get(call_id)
        if call is None:
            return
        if worker.has_begun(call):
            self.control.misbehaved(worker, f"call {call_id} was given back after it had begun")
            return
        del worker.calls[call_id]
        if _CHECKIN.on:
            call_events.checked_in(self.identity, call, worker, self._now_ns())
        if not call.done:
            self._take_back(call)

    def lost(self, worker: Worker, error_for: Callable[[Call], PoolError]) -> None:
        """Handle the end of a worker. *error_for* makes the error of a call that the worker had begun."""
        self.roster.withdraw(worker)
        calls = list(worker.calls.values())
        worker.calls.clear()
        begun = [call for call in calls if worker.has_begun(call)]
        reading = 0 if worker.transport is None else worker.transport.reading
        worker.transport = None
        for call in reversed(calls[len(begun) :]):  # the last call first: each goes to the front of the queue
            call.outlived_worker(reading=reading == call.nth)
            if not call.done and call.is_poison(len(self.workers)):
                self._end(call, poisoned(call, error_for(call)))
            elif not call.done:
                self._take_back(call)
        now_ns = self._now_ns()
        for call in begun:
            self.admission.times.add(call.operation, (now_ns - call.sent_ns) / 1e9)  # it did hold its worker
            if not call.done:
                self._fail(call, error_for(call))
        for call in list(worker.pinned):  # calls that are bound to this process, not to the slot
            if call.options.worker is None and worker.pinned.discard(call):
                self._offer(call, now_ns)

    def forget(self, worker: Worker) -> None:
        """Refuse the calls that wait for a slot that is gone."""
        for call in list(worker.pinned):
            worker.pinned.discard(call)
            self._end(call, self.rejected(PoolClosed, f"worker {worker.id!r} has been retired", call))

    def _take_back(self, call: Call) -> None:
        """Put a call that was handed over and never begun back in the queue, as if it had not been handed over."""
        self._running -= 1
        call.running = False
        call.attempts -= 1
        call.queue_ns = None
        self.sessions.unbind(call)
        self._offer(call, self._now_ns(), front=True)

    def _release(self, worker: Worker, call: Call, now_ns: int) -> None:
        """Release the worker from a call that it has answered."""
        worker.calls.pop(call.id, None)
        self.admission.times.add(call.operation, (now_ns - call.sent_ns) / 1e9)
        if call.items is not None and worker.transport is not None and self.roster.concurrency == 1:
            worker.transport.flow(paused=False)  # its last items may have paused the worker
        if _CHECKIN.on and worker.lifecycle.state is State.BUSY:
            call_events.checked_in(self.identity, call, worker, now_ns)
        self._served(worker, 1, now_ns)

    def _served(self, worker: Worker, count: int, now_ns: int) -> None:
        """Count *count* calls that the worker has answered. The next call it holds begins now."""
        if worker.process is not None:
            worker.process.served += count
        following = worker.call if self.roster.concurrency == 1 else None
        if following is not None:
            following.sent_ns = now_ns
            following.queue_ns = now_ns - following.started_ns
