"""The timers of the event loop that report calls past their deadlines."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from pool_monitor.pool.policy.deadline_wheel import DeadlineWheel, end_of_tick

if TYPE_CHECKING:
    from pool_monitor.pool.call import Call

_AT_ONCE = 500  # calls reported in one turn of the event loop


class CallDeadlines:
    """Calls *expired* with the calls that are due, oldest first. Two timers serve all calls: one for a wheel, and one
    for calls whose deadlines come in the order in which they are added, which costs less. A deadline is reported up to
    a tick late, never early.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, expired: Callable[[list[Call]], None]) -> None:
        self._loop, self._expired = loop, expired
        self._wheel: DeadlineWheel[Call] = DeadlineWheel()
        self._wheel_timer: asyncio.TimerHandle | None = None
        self._wake_at = math.inf  # when the timer of the wheel is due
        self.in_order: dict[int, Call] = {}  # by id; the owner of this object may remove entries itself
        self._order_timer: asyncio.TimerHandle | None = None  # due at the first deadline in order, or earlier
        self._least = -math.inf  # earlier deadlines are not in order

    def add(self, call: Call, deadline: float) -> None:
        """Add *call*, due at *deadline* (the loop's clock)."""
        call.tick = self._wheel.add(call, deadline)
        if deadline < self._wake_at:
            self._set()

    def add_last(self, call: Call) -> None:
        """Add *call*, due at its own deadline, which must not be earlier than that of any call added by this method,
        unless `shorten` was told.
        """
        if call.deadline < self._least:
            self.add(call, call.deadline)
            return
        self.in_order[call.id] = call
        if self._order_timer is None:
            self._order_timer = self._loop.call_at(end_of_tick(call.deadline), self._ring_in_order)

    def shorten(self, latest: float) -> None:
        """Note that deadlines to come may be earlier than those so far, which are at *latest* at the latest."""
        self._least = max(self._least, latest)

    def remove(self, call: Call) -> None:
        """Remove *call*, if it is still there."""
        if call.tick:
            self._wheel.remove(call, call.tick)
        else:
            self.in_order.pop(call.id, None)

    def close(self) -> None:
        """Stop both timers: no deadline is reported any more."""
        for timer in (self._wheel_timer, self._order_timer):
            if timer is not None:
                timer.cancel()
        self._wheel_timer = self._order_timer = None

    def _set(self) -> None:
        if self._wheel_timer is not None:
            self._wheel_timer.cancel()
            self._wheel_timer = None
        next_at = self._wheel.next_at()
        self._wake_at = math.inf if next_at is None else next_at
        if next_at is not None:
            self._wheel_timer = self._loop.call_at(next_at, self._ring)

    def _ring(self) -> None:
        self._report(self._wheel.expired(self._loop.time()))
        self._set()

    def _ring_in_order(self) -> None:
        now, due, following = self._loop.time(), [], None
        for call in self.in_order.values():
            if call.deadline > now:
                following = call
                break
            due.append(call)
        for call in due:
            del self.in_order[call.id]
        at = None if following is None else end_of_tick(following.deadline)
        self._order_timer = None if at is None else self._loop.call_at(at, self._ring_in_order)
        self._report(due)

    def _report(self, due: list[Call]) -> None:
        """Report the calls that are due: at most 500 in each turn of the event loop, so as not to block it."""
        if len(due) > _AT_ONCE:
            self._loop.call_soon(self._report, due[_AT_ONCE:])
        self._expired([call for call in due[:_AT_ONCE] if not call.done])
