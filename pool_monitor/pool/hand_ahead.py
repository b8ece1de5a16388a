"""How many calls sequential workers are handed ahead, and how these calls are taken back from a worker held up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pool_monitor.pool.policy import prefetch
from pool_monitor.pool.roster import AWAKE, Roster

if TYPE_CHECKING:
    from pool_monitor.pool.call import Call
    from pool_monitor.pool.policy.service_times import ServiceTimes
    from pool_monitor.pool.transport.interface import Reply
    from pool_monitor.pool.worker import Worker

HELD_UP = 0.005  # seconds on one call after which a worker has the calls that it was handed ahead taken back
ADAPT_EVERY = 32  # calls that ended, or have to wait, between two changes of how many calls are handed ahead
_WEIGHT = 0.05  # of the latest call in the mean


class HandAhead:
    """Sets ``roster.depth``, and takes calls back from workers that are held up. *most*: the highest depth."""

    def __init__(self, roster: Roster, most: int, loop: asyncio.AbstractEventLoop, now_ns: Callable[[], int]) -> None:
        self._roster, self._most, self._loop, self._now_ns = roster, most, loop, now_ns
        self._execution_ns = 0.0  # mean of the latest calls
        self._peak = 0  # the highest number of open calls since `set_depth`
        self._recall_timer: asyncio.TimerHandle | None = None

    def allow(self, most: int) -> None:
        """Set the highest depth."""
        self._most, roster = most, self._roster
        if roster.concurrency == 1:
            roster.depth, roster.awake_depth = min(roster.depth, most), min(roster.awake_depth, most)

    def choose(self, call: Call, times: ServiceTimes) -> Worker | None:
        """Return a worker for a call that can run on any, or None. A worker that is awake is preferred to an idle one
        only if both the call and the call it would wait for are brief: some code cannot be interrupted to give calls
        back.
        """
        worker = self._roster.awake() if self._roster.awake_depth > 1 else None
        first = None if worker is None else worker.call
        if first is not None and times.is_brief(first.operation) and times.is_brief(call.operation):
            return worker
        return self._roster.choose(None)

    def turns(self, calls: Sequence[Call], replies: Sequence[Reply], now_ns: int) -> list[int]:
        """Return how long each of these calls held its worker (ns), as far as can be known. Their replies came together
        now. A call handed ahead began when the call before it ended; this is written to the call.
        """
        if self._roster.concurrency > 1:
            return [now_ns - call.sent_ns for call in calls]
        free_ns = calls[0].sent_ns
        if len(calls) == 1:
            total_ns = now_ns - free_ns
            self.executed(min(replies[0].times.execution_ns, total_ns), 1)
            return [total_ns]
        executed_ns = [reply.times.execution_ns for reply in replies]
        turns_ns = prefetch.held_times(executed_ns, now_ns - free_ns)
        self.executed(min(sum(executed_ns), now_ns - free_ns), len(calls))
        for call, turn_ns in zip(calls, turns_ns, strict=True):
            if call.sent_ns < free_ns:
                call.sent_ns, call.queue_ns = free_ns, free_ns - call.started_ns
            free_ns += turn_ns
        return turns_ns

    def executed(self, execution_ns: int, count: int) -> None:
        """Add *count* calls that took *execution_ns* together to the mean."""
        mean = execution_ns / count
        self._execution_ns = mean + (1 - _WEIGHT) ** count * (self._execution_ns - mean)

    def note_open(self, open_calls: int) -> None:
        """Note that *open_calls* calls are open."""
        if open_calls > self._peak:
            self._peak = open_calls

    def set_depth(self, completed: int, open_calls: int) -> None:
        """Decide how many calls a worker may hold, by the highest number of open calls since the last decision: the
        present number may be too low, in the middle of a batch of answers.
        """
        roster, peak = self._roster, max(self._peak, open_calls)
        self._peak = open_calls
        if roster.concurrency == 1 and self._most > 1:
            workers = max(1, roster.counts["busy"] + roster.counts["idle"])
            mean = self._execution_ns / 1e9 if completed >= ADAPT_EVERY else None
            roster.awake_depth = prefetch.awake_depth(mean, self._most) if workers > AWAKE else 1
            roster.depth = max(roster.awake_depth, prefetch.depth(mean, self._most, peak, workers))

    def watch(self) -> None:
        """Start the timer for taking calls back: a worker holds a call that it has not begun."""
        if self._recall_timer is None and self._roster.concurrency == 1:
            self._recall_timer = self._loop.call_later(HELD_UP, self._recall_held_up)

    def close(self) -> None:
        """Stop the timer."""
        if self._recall_timer is not None:
            self._recall_timer.cancel()
            self._recall_timer = None

    def _recall_held_up(self) -> None:
        """Take back the calls that a held up worker has not begun, so that other workers can run them."""
        self._recall_timer = None
        held_up_since = self._now_ns() - round(HELD_UP / 2 * 1e9)
        any_ahead = False
        for worker in self._roster.workers.values():
            first = worker.call
            if first is None or len(worker.calls) < 2 or worker.transport is None:
                continue
            any_ahead = True
            if first.sent_ns < held_up_since:
                self._execution_ns = max(self._execution_ns, HELD_UP * 1e9)  # hand no calls ahead for a while
                self._roster.depth = 1
                if first.items is not None:  # else unread items would block the messages that give calls back
                    worker.transport.flow(paused=False)
                worker.recalling = True
                self._roster.changed(worker)
                # The last call first: each goes to the front of the queue.
                worker.transport.recall([c.id for c in reversed(worker.calls.values()) if not worker.has_begun(c)])
        if any_ahead:
            self.watch()
