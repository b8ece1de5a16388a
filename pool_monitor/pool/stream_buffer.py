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

STREAM_HIGH = 64  # unread items of a stream at which its worker is asked to pause
STREAM_LOW = 16  # unread items at which it may go on
STREAM_BYTES = 16 << 20  # unread bytes at which it is asked to pause; it may go on at a quarter
_ON_THE_WAY = 4 << 20  # bytes after a pause: several times what sockets hold; small items take 30 times that in memory
_LENT = area_size(sys.maxsize)  # bytes of large items that a worker can have lent besides
_OVERHEAD = 50  # bytes that each item takes in memory besides its own
_ITEMS_ON_THE_WAY = 8  # items of any size


class StreamBuffer:
    """The items that a stream has yielded and its caller has not read. The worker is asked to pause at 64 items or 16
    MiB, whichever comes first; items on their way still arrive then. This back-pressure bounds the buffer; a worker
    that ignores it is found by `overrun`.

    *limit*: the caller reads all items after the last one, and they may take this many bytes together. The worker is
    then never asked to pause, because no item is read before the end.
    """

    __slots__ = (
        "_late_bytes", "_late_items", "_late_large", "_loop", "_sizes", "_waiter", "buffer", "delivered", "full",
        "held", "limit", "limits", "unread",
    )  # fmt: skip

    def __init__(self, loop: asyncio.AbstractEventLoop, *, limit: int | None = None) -> None:
        self._loop = loop
        self.limit = limit
        self.limits: ItemLimits | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.delivered = False  # the caller has read an item
        self._begin()

    def _begin(self) -> None:
        self.buffer: deque[Any] = deque()
        self._sizes: deque[int] = deque()  # the bytes of each item in `buffer`
        self.unread = 0  # bytes of all items in `buffer`
        self.full = False  # so many items or bytes are unread that the worker should pause
        # Items that arrived while it was full; the bytes of the small ones, and of the large ones.
        self._late_items = self._late_bytes = self._late_large = 0
        self.held = False  # the worker was asked to pause this stream

    def put(self, value: Any, size: int) -> bool:
        """Add an item that took *size* bytes. Returns whether the worker should pause."""
        self.buffer.append(value)
        if self.limits is not None:
            self.limits.came(room=not self.full)
        if self.limit is not None:
            self.unread += size + _OVERHEAD
            return False
        self._sizes.append(size)
        self.unread += size
        self.wake()
        if len(self.buffer) < STREAM_HIGH and self.unread < STREAM_BYTES:
            return False
        if self.full:
            self._late_items += 1
            if size < LARGE:
                self._late_bytes += size
            else:
                self._late_large += size
        self.full = True
        if self.limits is not None:
            self.limits.full()
        return True

    def take(self) -> tuple[Any, bool]:
        """Return the next item, and whether a paused worker may go on now."""
        value = self.buffer.popleft()
        self.unread -= self._sizes.popleft()
        self.delivered = True
        caught_up = self.full and len(self.buffer) <= STREAM_LOW and self.unread <= STREAM_BYTES // 4
        if caught_up:
            self.full = False
            self._late_items = self._late_bytes = self._late_large = 0
            if self.limits is not None:
                self.limits.read_on()
        return value, caught_up

    @property
    def overrun(self) -> bool:
        """Whether the items take more than the limit; or, without one, whether more items arrived while it was full
        than can have been on their way.
        """
        if self.limit is not None:
            return self.unread > self.limit
        sent = self._late_bytes + max(0, self._late_large - _LENT)
        return sent > _ON_THE_WAY and self._late_items > _ITEMS_ON_THE_WAY

    def start_over(self) -> bool:
        """Drop all items, for another attempt. Returns False, and drops none, if the caller has read one already."""
        if not self.delivered:
            self._begin()
            if self.limits is not None:
                self.limits.start_over()
        return not self.delivered

    def wake(self) -> None:
        """Wake the reader that waits in `changed`."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def end(self) -> None:
        """Stop the limits and wake the reader: the stream has ended."""
        if self.limits is not None:
            self.limits.close()
        self.wake()

    async def changed(self) -> None:
        """Return when an item has been put, or `wake` was called."""
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
