"""The items of one stream that its caller has not read yet."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from typing import TYPE_CHECKING, Any

from pool_monitor.pool.transport.child.codec import LARGE
from pool_monitor.pool.transport.child.shared_memory import area_size

if TYPE_CHECKING:
    from pool_monitor.pool.item_limits import ItemLimits

STREAM_HIGH = 64  # unread items of a stream at which its worker is no longer listened to
STREAM_LOW = 16  # and at which it is again
STREAM_BYTES = 16 << 20  # the same of their bytes, a quarter of which are few enough to go on
_ON_THE_WAY = 4 << 20  # bytes: several times what sockets hold; as small items they take thirty times as much here
_LENT = area_size(sys.maxsize)  # bytes: what a worker can have lent beside that, as large items
_EACH = 50  # bytes that an item takes here beside its own, where there may be very many
_ITEMS_ON_THE_WAY = 8  # of whatever size


class StreamBuffer:
    """What a stream has yielded and its caller has not read yet: 64 items or 16 MiB, whichever comes first, and what is
    on its way when the worker is asked to pause. Bounded by back-pressure on the worker, and by `overrun` for one that
    takes no notice.

    *limit*: the caller wants all items, at the end, and they may take so many bytes together. Nobody reads before that,
    so nothing may wait for it.
    """

    __slots__ = (
        "_loop", "_more", "_more_bytes", "_more_large", "_sizes", "_waiter", "buffer", "delivered", "full", "held",
        "limit", "limits", "unread",
    )  # fmt: skip

    def __init__(self, loop: asyncio.AbstractEventLoop, *, limit: int | None = None) -> None:
        self._loop = loop
        self.limit = limit
        self.limits: ItemLimits | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.delivered = False  # the caller has been given an item
        self._begin()

    def _begin(self) -> None:
        self.buffer: deque[Any] = deque()
        self._sizes: deque[int] = deque()  # bytes that each of them took
        self.unread = 0  # of all these
        self.full = False  # too many are unread
        self._more = self._more_bytes = self._more_large = 0  # items that came while it was full, and their bytes
        self.held = False  # its worker was asked to pause

    def put(self, value: Any, size: int) -> bool:
        """Add an item that took *size* bytes. Returns whether the worker should pause."""
        self.buffer.append(value)
        if self.limits is not None:
            self.limits.came(room=not self.full)
        if self.limit is not None:
            self.unread += size + _EACH
            return False
        self._sizes.append(size)
        self.unread += size
        self.wake()
        if len(self.buffer) < STREAM_HIGH and self.unread < STREAM_BYTES:
            return False
        if self.full:
            self._more += 1
            if size < LARGE:
                self._more_bytes += size
            else:
                self._more_large += size
        self.full = True
        if self.limits is not None:
            self.limits.full()
        return True

    def take(self) -> tuple[Any, bool]:
        """The next item, and whether the worker may go on again."""
        value = self.buffer.popleft()
        self.unread -= self._sizes.popleft()
        self.delivered = True
        caught_up = self.full and len(self.buffer) <= STREAM_LOW and self.unread <= STREAM_BYTES // 4
        if caught_up:
            self.full = False
            self._more = self._more_bytes = self._more_large = 0
            if self.limits is not None:
                self.limits.read_on()
        return value, caught_up

    @property
    def overrun(self) -> bool:
        """Whether there is more than can be meant: more than the limit, or than a worker can have on the way when it
        is asked to pause.
        """
        if self.limit is not None:
            return self.unread > self.limit
        sent = self._more_bytes + max(0, self._more_large - _LENT)
        return sent > _ON_THE_WAY and self._more > _ITEMS_ON_THE_WAY

    def start_over(self) -> bool:
        """Forget them, for another try. False when the caller has seen some already."""
        if not self.delivered:
            self._begin()
            if self.limits is not None:
                self.limits.start_over()
        return not self.delivered

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def end(self) -> None:
        """The stream has ended."""
        if self.limits is not None:
            self.limits.close()
        self.wake()

    async def changed(self) -> None:
        """Return when something has been put, or `wake` was called."""
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
