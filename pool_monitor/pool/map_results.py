"""The results of many calls of one operation, in the order of the calls or as they come: what `map` is made of.

No call has a task of its own. A call that has ended waits here until its result is asked for, and counts until then.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import AsyncIterable, Callable, Iterable, Iterator
from time import monotonic
from typing import Any

from pool_monitor.pool.call import Call

_TURN = 0.001  # seconds of the event loop at a stretch
_AT_ONCE = 500  # calls that are cancelled in one turn of it
_LOOK_AGAIN = 0.005  # seconds after which there may be too few calls waiting


class MapResults:
    """At most *limit* calls, which *admit* makes of items, and which are under way or have ended and were not read.
    *cancel* ends a call. Ask `next_ended`, and where it returns None await `wait`, until it is `exhausted`. `close` it
    in any case.

    Calls beyond the first *few* are made only while *enough* says that too few wait: more would keep no worker busier,
    take memory, and have their deadlines run.
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
        self._line: deque[Call] = deque()  # in the order of the items
        self._apart: dict[asyncio.Future[Any], Call] = {}  # or in no order
        self._ended: deque[asyncio.Future[Any]] = deque()  # and of those, what has ended
        self._count = 0  # all of them, and the one that is being read
        self._source: Iterator[Any] | None = None
        self._feeder: asyncio.Task[None] | None = None
        self._room = asyncio.Event()  # the feeder may go on
        self._waiter: asyncio.Future[None] | None = None
        self._awaited: asyncio.Future[Any] | None = None  # the end of this call wakes the waiter
        self._closing = False
        self._turn_ends = monotonic() + _TURN
        self.failure: BaseException | None = None
        """What the source of items raised."""

    def read(self, items: Iterable[Any] | AsyncIterable[Any]) -> None:
        """Make calls of *items* while there is room: of an iterable whenever a result is asked for, of an asynchronous
        one as it gives them.
        """
        if isinstance(items, AsyncIterable):
            self._feeder = self._loop.create_task(self._feed(items))
            self._feeder.add_done_callback(self._wake)
        else:
            self._source = iter(items)

    def next_ended(self) -> asyncio.Future[Any] | None:
        """How the next call ended; None when there is none yet, or it is the turn of others."""
        if monotonic() > self._turn_ends:
            return None
        if self._source is not None and self._has_room():
            self._fill()
        if self._line and self._line[0].future.done():
            return self._line.popleft().future
        return self._ended.popleft() if self._ended else None

    def free_place(self) -> None:
        """What `next_ended` gave has been read."""
        self._count -= 1
        if self._feeder is not None:
            self._room.set()

    @property
    def exhausted(self) -> bool:
        """Whether all results there will be were taken."""
        fed = self._source is None and (self._feeder is None or self._feeder.done())
        return fed and not (self._line or self._apart or self._ended)

    async def wait(self) -> None:
        """Return when `next_ended` is worth another try, or it is over."""
        if self.exhausted:
            return
        if monotonic() > self._turn_ends:
            await asyncio.sleep(0)
        else:
            self._waiter = self._loop.create_future()
            if self._line and self._line[0].future is not self._awaited:
                self._awaited = self._line[0].future
                self._awaited.add_done_callback(self._wake)
            again = None if self._source is None else self._look_again(self._wake)
            await self._waiter
            if again is not None:
                again.cancel()
        self._turn_ends = monotonic() + _TURN

    async def close(self) -> None:
        """Cancel what is under way."""
        self._closing = True
        calls = [*self._line, *self._apart.values()]
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
                _see(future)

    # -- inside ---------------------------------------------------------------------------------------------------

    def _has_room(self) -> bool:
        return self._count < self._limit and (self._count < self._few or not self._enough())

    def _look_again(self, call: Callable[[], object]) -> asyncio.TimerHandle | None:
        """Have *call* called soon if there is room as soon as fewer calls wait, which no event reports."""
        return self._loop.call_later(_LOOK_AGAIN, call) if self._count < self._limit else None

    def _fill(self) -> None:
        """Make as many calls as may be, or as can be in this turn."""
        while self._source is not None and self._has_room():
            try:
                item = next(self._source)
            except StopIteration:
                self._source = None
            except Exception as failure:  # noqa: BLE001 - it is raised after the last result
                self._source, self.failure = None, failure
            else:
                self._add(item)
                if self._count < self._limit and monotonic() > self._turn_ends:
                    return

    async def _feed(self, items: AsyncIterable[Any]) -> None:
        try:
            source, turn_ends = aiter(items), monotonic() + _TURN
            while True:
                if monotonic() > turn_ends:  # the source need not wait for anything
                    await asyncio.sleep(0)
                    turn_ends = monotonic() + _TURN
                while not self._has_room():
                    self._room.clear()
                    again = self._look_again(self._room.set)
                    await self._room.wait()
                    if again is not None:
                        again.cancel()
                item = await anext(source)
                if self._closing:  # the source has kept the cancellation to itself
                    return
                self._add(item)
                if len(self._line) == 1:
                    self._wake()
        except StopAsyncIteration:
            return
        except (Exception, asyncio.CancelledError) as failure:  # noqa: BLE001 - it is raised after the last result
            self.failure = failure  # a cancellation too: what the source waits for can be cancelled by others

    def _add(self, item: Any) -> None:
        call = self._admit(item)
        self._count += 1
        if self._ordered:
            self._line.append(call)
        else:
            self._apart[call.future] = call
            call.future.add_done_callback(self._end)

    def _end(self, future: asyncio.Future[Any]) -> None:
        if self._apart.pop(future, None) is not None:
            self._ended.append(future)
            self._wake()

    def _wake(self, _done: object = None) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _drop(self, calls: list[Call], count: int) -> None:
        """Cancel so many of them."""
        for call in calls[:count]:
            self._cancel(call)
            _see(call.future)
        del calls[:count]


def _see(future: asyncio.Future[Any]) -> None:
    """Mark the error of *future* as seen: asyncio complains of errors that are never read."""
    if future.done() and not future.cancelled():
        future.exception()
