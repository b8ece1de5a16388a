"""The calls of a pool that have not ended, and all the ways in which they end."""

from __future__ import annotations

import asyncio
import random
from abc import abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from pool_monitor import events
from pool_monitor.errors import OperationCancelled, PoolClosed, PoolError, QueueTimeout, Rejected
from pool_monitor.pool import call_events, stacks
from pool_monitor.pool.deadline_timer import CallDeadlines
from pool_monitor.pool.hand_ahead import ADAPT_EVERY, HELD_UP, HandAhead
from pool_monitor.pool.policy.retry import RetryBudget, RetryPolicy
from pool_monitor.pool.streams import Streams
from pool_monitor.telemetry import FAILURES

if TYPE_CHECKING:
    from pool_monitor.config import PoolConfig
    from pool_monitor.pool.admission import Admission
    from pool_monitor.pool.call import Call
    from pool_monitor.pool.roster import Roster
    from pool_monitor.pool.sessions import Sessions
    from pool_monitor.pool.transport.interface import CallTimes, Reply
    from pool_monitor.pool.worker import Worker
    from pool_monitor.telemetry import Record

_STOP = events.OPERATION_STOP.event
_RETRY = events.POOL_RETRY.event


class WorkerControl(Protocol):
    """The methods of the supervisor that the calls use."""

    def kill(self, worker: Worker, reason: str, culprit: str) -> None:
        """Kill the worker now: it does not stop running *culprit*, an operation."""

    def idle(self, worker: Worker) -> None:
        """Note that a withdrawn worker has become idle; a withdrawn worker is handed no more calls."""

    def recycle_due(self, worker: Worker) -> None:
        """Replace the worker's process, which has been handed as many calls as its limit allows, or more."""

    def misbehaved(self, worker: Worker, reason: str) -> None:
        """Kill the worker now: it has violated the protocol."""


class OpenCalls:
    """Keeps each call until it ends: it returns, fails, is cancelled, passes its deadline, or the pool closes. Sends a
    failed call again if that is allowed. `Dispatcher` adds the way to a worker.

    This is a base class of the dispatcher and not a separate object, which would cost every call another step.
    """

    control: WorkerControl
    """Must be set before the first worker is ready."""

    def __init__(
        self,
        roster: Roster,
        sessions: Sessions,
        admission: Admission,
        config: PoolConfig,
        now_ns: Callable[[], int],
    ) -> None:
        self.identity = roster.identity
        self.config = config
        self.roster, self.sessions, self.admission = roster, sessions, admission
        self.paused = False
        self.completed = 0
        self._loop = asyncio.get_running_loop()
        self._now_ns = now_ns
        self._open: dict[int, Call] = {}  # calls that have not ended
        self._running = 0  # the number of open calls that are on a worker
        self._deadlines = CallDeadlines(self._loop, self._expire)
        self._ahead = HandAhead(roster, config.prefetch, self._loop, now_ns)
        self._adapt_at = ADAPT_EVERY  # the value of `completed` at which `_adapt` is called next
        self._all_ended: asyncio.Future[None] | None = None  # set while `all_ended` waits for the last call to end
        self._streams = Streams(roster, config, self._interrupt, self._overdue, self._misbehaved)
        self.item, self.undecodable_item, self.read_on = (
            self._streams.item,
            self._streams.undecodable_item,
            self._streams.read_on,
        )
        self.budget = RetryBudget(config.retry_budget)
        jitter = random.Random()  # noqa: S311 - not used for secrets
        self._retries = RetryPolicy(
            config.retries, frozenset(config.retry_errors), self.budget, jitter, config.retry_delay
        )

    def configure(self, config: PoolConfig) -> None:
        """Use *config* from now on: its limits for calls that are made from now on."""
        before, self.config = self.config, config
        if config.timeout < before.timeout:
            self._deadlines.shorten(self._now_ns() / 1e9 + before.timeout)
        self._streams.configure(config)
        self._ahead.allow(config.prefetch)
        self.budget.change(config.retry_budget)
        self._retries.delay = config.retry_delay
        self.roster.set_concurrency(config.concurrency)

    @property
    def waiting(self) -> int:
        """The number of calls that wait for a worker, in all queues."""
        return len(self._open) - self._running

    @property
    def open_calls(self) -> int:
        """The number of calls that have not ended."""
        return len(self._open)

    async def all_ended(self) -> None:
        """Wait until every call has ended."""
        while self._open:
            if self._all_ended is None:
                self._all_ended = self._loop.create_future()
            await asyncio.shield(self._all_ended)

    def rejected(self, kind: type[Rejected], message: str, call: Call | None = None, *, others: int = 0) -> Rejected:
        """Return a refusal with the pool's numbers. *others* is the number of waiting calls not to count."""
        return self.admission.rejected(kind, message, self.waiting - others, call)

    def close(self) -> None:
        """Stop the timers: no call begins or ends after this."""
        self._deadlines.close()
        self._ahead.close()

    @abstractmethod
    def _offer(self, call: Call, now_ns: int, *, front: bool = False) -> None:
        """Hand the call to a free worker, or let it wait."""

    # -- interruptions ------------------------------------------------------------------------------------------------

    def cancel(self, call: Call) -> None:
        """End a call that its caller has cancelled. Does nothing if the call has ended."""
        self._interrupt(call, asyncio.CancelledError(), "cancel")

    def interrupt_all(self) -> int:
        """End every open call because the pool closes. Returns how many there were."""
        calls = list(self._open.values())
        for call in calls:
            if call.running:
                self._interrupt(
                    call, OperationCancelled(f"{call.operation}: the pool was closed while it ran"), "close"
                )
            else:
                self._interrupt(call, self.rejected(PoolClosed, "the pool was closed", call), "close")
        return len(calls)

    def _interrupt(self, call: Call, error: BaseException, reason: str) -> None:
        """End a call for its caller now, and have its worker interrupt it. A worker that still runs it after
        ``cancel_grace`` is killed.
        """
        if call.done:
            return
        worker = self.roster.workers.get(call.worker.id) if call.running and call.worker is not None else None
        if not call.running and call.queue is not None:
            call.queue.discard(call)
        self._end(call, error)
        if worker is None or worker.transport is None:
            return
        worker.transport.cancel(call.id)
        if call.items is not None:
            self._streams.hold(worker, call, False)
        self._loop.call_later(self.config.cancel_grace, self._kill_if_stuck, worker, call, reason)

    def _kill_if_stuck(self, worker: Worker, call: Call, reason: str) -> None:
        """Kill the worker if it still runs an interrupted call after ``cancel_grace``."""
        if worker.calls.get(call.id) is not call:
            return
        if worker.call is call or worker.has_begun(call):
            self.control.kill(worker, reason, call.operation)
        else:  # the worker has not begun it: it still runs a call before it, whose deadline bounds the wait
            pause = max(self.config.cancel_grace, HELD_UP)
            self._loop.call_later(pause, self._kill_if_stuck, worker, call, reason)

    def _expire(self, calls: list[Call]) -> None:
        now = self._loop.time()
        for call in calls:
            if call.running and call.deadline > now:  # handed over in this turn of the loop
                self._deadlines.add(call, call.deadline)
            else:
                self._overdue(call, call.timed_out(self.config.timeout))

    def _overdue(self, call: Call, error: PoolError) -> None:
        """End a call whose time is up: with *error* if a worker has it, else with a refusal. The stack of a worker that
        has begun it is taken first.
        """
        if not call.running:
            error = self.rejected(QueueTimeout, self.admission.why_no_worker(self.paused, self.roster.capacity), call)
        worker = self.roster.workers.get(call.worker.id) if call.running and call.worker is not None else None
        if worker is None or not worker.has_begun(call):
            self._interrupt(call, error, "timeout")
        else:
            stacks.before_end(worker.transport, partial(self._interrupt_with, call, error), often=True)

    def _interrupt_with(self, call: Call, error: PoolError, stack: str | None) -> None:
        stacks.with_stack(error, stack)
        self._interrupt(call, error, "timeout")

    def _misbehaved(self, worker: Worker, reason: str) -> None:
        self.control.misbehaved(worker, reason)

    # -- failures -----------------------------------------------------------------------------------------------------

    def _fail(self, call: Call, error: PoolError, times: CallTimes | None = None) -> None:
        """Handle a failed attempt: send the call again if that is allowed, else end it."""
        if call.options.idempotent and (call.items is None or call.items.start_over()):
            pause = self._retries.decide(error, max(1, call.attempts), call.deadline - self._loop.time())
            if pause is not None:
                self.admission.failed(call, error, self._now_ns())
                self._running -= call.running
                call.running, call.queue_ns = False, None  # it waits again
                if _RETRY.on:
                    call_events.retried(self.identity, call, error, pause)
                self._loop.call_later(pause, self._offer_again, call)
                return
        self._end(call, error, None, times)

    def _offer_again(self, call: Call) -> None:
        if not call.done:
            self._offer(call, self._now_ns())

    # -- ends ---------------------------------------------------------------------------------------------------------

    def _end(
        self, call: Call, error: BaseException | None, result: Any = None, times: CallTimes | None = None,
        now_ns: int | None = None,
    ) -> None:  # fmt: skip
        """End a call. Does nothing if it has ended already: a call ends exactly once."""
        if call.done:
            return
        call.done = True
        if now_ns is None:
            now_ns = self._now_ns()
        self._ahead.note_open(len(self._open))
        del self._open[call.id]
        self._deadlines.remove(call)
        self.admission.ended(call, error, now_ns)
        if call.running:
            call.running = False
            self._running -= 1
        if isinstance(error, PoolError):
            error.call_id = call.id
            if call.worker is not None and not isinstance(error, Rejected):
                error.worker = call.worker.id
        call.resolve(error, result)
        if error is not None or _STOP.on:
            call_events.ended(self.identity, call, error, times, now_ns)
        if call.session is not None:
            following = self.sessions.leave(call, self._loop.time())
            if following is not None:  # not now: first its worker becomes free, and other calls that end now have ended
                self._loop.call_soon(self._offer_again, following)
        self._count(1)

    def _end_well(self, call: Call, reply: Reply, now_ns: int, records: Mapping[str, Record] | None) -> bool:
        """End a call that returned, as `_end` does. Returns whether `_count` and the admission must still count it."""
        times, elapsed_ns = reply.times, now_ns - call.started_ns
        if times.execution_ns > elapsed_ns or (times.cpu_ns or 0) > elapsed_ns:
            times = times.within(elapsed_ns)
        if call.done or call.trial or call.session is not None or call.deadline * 1e9 < now_ns:
            self._end(call, call.late_error(now_ns, self.config.timeout), reply.result, times, now_ns)
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
                call_events.ended(self.identity, call, None, times, now_ns)
            else:
                try:
                    record(elapsed_ns, call.queue_ns, times.execution_ns)
                except FAILURES as failure:
                    series.failed(failure)
        return True

    def _count(self, ended: int) -> None:
        """Count *ended* calls that have ended. Adapt if it is time to; wake `all_ended` after the last open call."""
        self.completed += ended
        if self.completed >= self._adapt_at:
            self._adapt()
        if not self._open and self._all_ended is not None:
            self._all_ended.set_result(None)
            self._all_ended = None

    def _adapt(self) -> None:
        """Adapt predictions and the depth of handing ahead to the durations of the latest calls."""
        self._adapt_at = self.completed + ADAPT_EVERY
        self.admission.times.update_longest()
        self._ahead.set_depth(self.completed, len(self._open))
