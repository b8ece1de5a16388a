"""The results of many calls of one operation, in the order of the calls or as they end. `map` is built on this.

There is no task per call. A call that has ended is kept here, and counts, until its result is read.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import AsyncIterable, Callable, Iterable, Iterator
from time import monotonic
from typing import Any

from pool_monitor.pool.call import Call

_TURN = 0.001  # seconds of work before other tasks of the event loop get their turn
_AT_ONCE = 500  # calls that are cancelled in one turn of the event loop
_RECHECK_AFTER = 0.005  # seconds until the number of waiting calls is checked again


class MapResults:
    """Makes calls of items with *admit*, and returns how they ended. At most *limit* calls are under way or have ended
    and are not yet read. *cancel* ends a call.

    Call `next_ended` repeatedly until `exhausted`, and await `wait` whenever it returns None. Call `close` in any case.

    *enough* returns whether enough calls wait for workers. While it returns True, no calls beyond the first *few* are
    made: further calls would keep no worker busier, but take memory, and their deadlines would run.
    """

    def __init__(
        self,
        admit: Callable[[Any], Call],
        cancel: Callable[[Call], None],
        limit: int,
        *,
        ordered: bool,
        few: int = sys.maxsize,
        enough: Callable[[], bool] = lambda: False,
    ) -> None:
        self._admit, self._cancel, self._limit, self._ordered = admit, cancel, limit, ordered
        self._few, self._enough = few, enough
        self._loop = asyncio.get_running_loop()
        self._in_order: deque[Call] = deque()  # if ordered: the calls, in the order of the items
        self._unordered: dict[asyncio.Future[Any], Call] = {}  # else: the calls that have not ended
        self._ended: deque[asyncio.Future[Any]] = deque()  # and the calls that have
        self._count = 0  # all these calls, and the one that is being read
        self._source: Iterator[Any] | None = None
        self._feeder: asyncio.Task[None] | None = None
        self._room = asyncio.Event()  # the feeder may go on
        self._waiter: asyncio.Future[None] | None = None
        self._awaited: asyncio.Future[Any] | None = None  # the end of this call wakes the waiter
        self._closing = False
        self._turn_ends = monotonic() + _TURN
        self.failure: BaseException | None = None
        """The exception that the source of items raised."""

    def read(self, items: Iterable[Any] | AsyncIterable[Any]) -> None:
        """Make calls of *items* while there is room. An iterable is read by `next_ended`, an asynchronous iterable by a
        task.
        """
        if isinstance(items, AsyncIterable):
            self._feeder = self._loop.create_task(self._feed(items))
            self._feeder.add_done_callback(self._wake)
        else:
            self._source = iter(items)

    def next_ended(self) -> asyncio.Future[Any] | None:
        """Return the future of the next call that has ended. None: there is none yet, or other tasks are to get a turn
        first.
        """
        if monotonic() > self._turn_ends:
            return None
        if self._source is not None and self._has_room():
            self._fill()
        if self._in_order and self._in_order[0].future.done():
            return self._in_order.popleft().future
        return self._ended.popleft() if self._ended else None

    def free_place(self) -> None:
        """Note that the result that `next_ended` returned has been read."""
        self._count -= 1
        if self._feeder is not None:
            self._room.set()

    @property
    def exhausted(self) -> bool:
        """Whether there are no more items, and all results have been taken."""
        fed = self._source is None and (self._feeder is None or self._feeder.done())
        return fed and not (self._in_order or self._unordered or self._ended)

    async def wait(self) -> None:
        """Return when `next_ended` may have a result, or when there are no more."""
        if self.exhausted:
            return
        if monotonic() > self._turn_ends:
            await asyncio.sleep(0)
        else:
            self._waiter = self._loop.create_future()
            if self._in_order and self._in_order[0].future is not self._awaited:
                self._awaited = self._in_order[0].future
                self._awaited.add_done_callback(self._wake)
            timer = None if self._source is None else self._recheck_soon(self._wake)
            await self._waiter
            if timer is not None:
                timer.cancel()
        self._turn_ends = monotonic() + _TURN

    async def close(self) -> None:
        """Cancel the calls that are under way."""
        self._closing = True
        calls = [*self._in_order, *self._unordered.values()]
        try:
            if self._feeder is not None:
                self._feeder.cancel()
                await asyncio.gather(self._feeder, return_exceptions=True)
            while calls:
                self._drop(calls, _AT_ONCE)
                if calls:
                    await asyncio.sleep(0)
        finally:
            self._drop(calls, len(calls))
            for future in self._ended:
                _mark_retrieved(future)

    # -- inside ---------------------------------------------------------------------------------------------------

    def _has_room(self) -> bool:
        return self._count < self._limit and (self._count < self._few or not self._enough())

    def _recheck_soon(self, callback: Callable[[], object]) -> asyncio.TimerHandle | None:
        """Schedule *callback* if only *enough* stands in the way: no event reports that fewer calls wait."""
        return self._loop.call_later(_RECHECK_AFTER, callback) if self._count < self._limit else None

    def _fill(self) -> None:
        """Make calls while there is room, or until the turn ends."""
        while self._source is not None and self._has_room():
            try:
                item = next(self._source)
            except StopIteration:
                self._source = None
            except Exception as failure:  # noqa: BLE001 - raised after the last result
                self._source, self.failure = None, failure
            else:
                self._add(item)
                if self._count < self._limit and monotonic() > self._turn_ends:
                    return

    async def _feed(self, items: AsyncIterable[Any]) -> None:
        try:
            source, turn_ends = aiter(items), monotonic() + _TURN
            while True:
                if monotonic() > turn_ends:  # the source may never wait
                    await asyncio.sleep(0)
                    turn_ends = monotonic() + _TURN
                while not self._has_room():
                    self._room.clear()
                    timer = self._recheck_soon(self._room.set)
                    await self._room.wait()
                    if timer is not None:
                        timer.cancel()
                item = await anext(source)
                if self._closing:  # the source has suppressed the cancellation
                    return
                self._add(item)
                if len(self._in_order) == 1:
                    self._wake()
        except StopAsyncIteration:
            return
        except (Exception, asyncio.CancelledError) as failure:  # noqa: BLE001 - raised after the last result
            self.failure = failure  # a cancellation too: other code can cancel what the source awaits

    def _add(self, item: Any) -> None:
        call = self._admit(item)
        self._count += 1
        if self._ordered:
            self._in_order.append(call)
        else:
            self._unordered[call.future] = call
            call.future.add_done_callback(self._end)

    def _end(self, future: asyncio.Future[Any]) -> None:
        if self._unordered.pop(future, None) is not None:
            self._ended.append(future)
            self._wake()

    def _wake(self, _done: object = None) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _drop(self, calls: list[Call], count: int) -> None:
        """Cancel the first *count* of *calls*, and remove them from the list."""
        for call in calls[:count]:
            self._cancel(call)
            _mark_retrieved(call.future)
        del calls[:count]


def _mark_retrieved(future: asyncio.Future[Any]) -> None:
    """Mark the exception of *future* as retrieved: asyncio logs exceptions that are never retrieved."""
    if future.done() and not future.cancelled():
        future.exception()
