"""Lends the large messages to and from one worker, in memory that both sides share."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pool_monitor.pool.transport import messages
from pool_monitor.pool.transport.child.framing import FrameError, FrameReader
from pool_monitor.pool.transport.child.memory_usage import expect_large
from pool_monitor.pool.transport.shared_memory import SharedFile, split_off_value

if TYPE_CHECKING:
    from pool_monitor.pool.transport.child.codec import Buffer
    from pool_monitor.pool.transport.inbox import Inbox
    from pool_monitor.pool.transport.interface import Sink
    from pool_monitor.pool.transport.wire import Wire

_TRIM_AFTER = 1.0  # seconds without a large message, after which their memory is returned to the system
_UNREAD_LIMIT = 1000  # messages lent by the worker that are not returned, or whose ``returned`` it has not read
_AT_ONCE = 8  # large results alive at the same time, for which the allocator keeps its memory


class Lending:
    """The messages that the service and one worker lend each other. Without shared memory they go over the wire."""

    def __init__(self, inbox: Inbox, reader: FrameReader, sink: Sink, frame_limit: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._inbox, self._reader, self._sink, self._frame_limit = inbox, reader, sink, frame_limit
        self.wire: Wire | None = None  # set once the worker has been started
        self.shared: SharedFile | None = None  # until the worker has ended, or its hello declines it
        self._borrowed: deque[weakref.ref[Any] | None] = deque()  # lent by the worker, oldest first; None: not viewed
        self._unread_returns: deque[int] = deque()  # of each ``returned``: `Wire.pieces_sent` once it is sent
        self._large = False  # a large message came or went since the last `_trim`
        self._trim_timer: asyncio.TimerHandle | None = None

    # -- the memory -----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def share(self) -> Iterator[dict[str, int]]:
        """Make the shared memory. Yields its descriptor by the name of its variable; nothing if there can be none."""
        self.unshare()
        try:
            self.shared = shared = SharedFile(self._frame_limit)
            self._inbox.counters = shared.memory.counters
        except OSError:  # no memory or no descriptor left: a worker also works without
            yield {}
            return
        try:
            yield {"POOL_MONITOR_SHARED": shared.fd}
        finally:
            shared.close_fd()

    def unshare(self) -> None:
        """Stop sharing memory."""
        self._inbox.counters = None
        self._borrowed.clear()  # views that are still alive are not waited for
        if self.shared is not None:
            self.shared.close()
            self.shared = None

    def close(self) -> None:
        """Release everything: the worker has ended."""
        self.unshare()
        if self._trim_timer is not None:
            self._trim_timer.cancel()

    def held_back(self) -> bool:
        """Whether answers lie in the worker's outbox."""
        return self.shared is not None and bool(self.shared.memory.held_back())

    def empty_outbox(self) -> None:
        """Take the answers that the worker left in its outbox when it ended. Some may have been received already."""
        if self.shared is None:
            return
        reader = FrameReader(self._frame_limit)
        held = self.shared.memory.held_back()
        reader.space()[: len(held)] = held
        try:
            bodies: Sequence[memoryview] = reader.received(len(held))
        except FrameError as error:  # the worker may have overwritten its own outbox
            bodies = error.before
        self._inbox.salvage(bodies)

    def _note_large(self) -> None:
        self._large = True
        if self._trim_timer is None:
            self._trim_timer = self._loop.call_later(_TRIM_AFTER, self._trim)

    def _trim(self) -> None:
        """Return the memory for large messages to the system if none came or went for a while."""
        self._trim_timer = None
        if self._large:
            self._large = False
            self._trim_timer = self._loop.call_later(_TRIM_AFTER, self._trim)
            return
        self._reader.trim()
        if self.shared is not None:
            self.shared.memory.trim()

    # -- to the worker --------------------------------------------------------------------------------------------

    def send(self, pieces: Sequence[Buffer], size: int) -> None:
        """Send an encoded message of *size* bytes: lend it if there is room, else send it over the wire."""
        assert self.wire is not None
        self._note_large()
        lent = None if self.shared is None else self.shared.memory.lend(pieces, size)
        if lent is None:
            self.wire.send_pieces(pieces, size)
            return
        body = self._inbox.codec.encode(lent)
        if self._inbox.open:
            self.wire.send_joined(body)
        else:
            self.wire.send(body)

    def _returned(self) -> None:
        """Note that the worker has read the oldest message lent to it. Raises FrameError if there is none."""
        if self.shared is None or not self.shared.memory.lent_count:
            raise FrameError("a message was returned that had not been lent")
        self.shared.memory.mark_returned()

    # -- from the worker ------------------------------------------------------------------------------------------

    def take(self, message: list[Any]) -> None:
        """Act on a message about lending. Raises FrameError."""
        if message[0] == "lent":
            self._borrow(*message[1:])
        else:
            self._returned()

    def _borrow(self, length: Any, offset: Any = 0) -> None:
        """Decode a message that the worker lends, and return its memory unless its value is passed on as a view."""
        shared = self.shared
        if shared is None:
            raise FrameError("a message was lent without shared memory")
        if max(self._count_unread_returns(), len(self._borrowed)) > _UNREAD_LIMIT:
            text = f"more than {_UNREAD_LIMIT} messages are lent and not returned, or their return is not read"
            raise FrameError(text)
        self._note_large()
        try:
            lent = shared.memory.borrow(length, offset)
        except ValueError:
            place = f"{messages.short_repr(length)} bytes at {messages.short_repr(offset)}"
            raise FrameError(f"{place} cannot have been lent") from None
        viewed = None
        with lent:
            body, start, end = split_off_value(lent)
            message = self._inbox.decode(memoryview(body), length)
            if end and self._sink.takes_view(message[1]):
                viewed = shared.view(offset + start, offset + end, self._view_gone)
            if viewed is None:
                expect_large(length, _AT_ONCE)
            if end:
                message[2] = bytes(lent[start:end]) if viewed is None else viewed[0]
        self._borrowed.append(None if viewed is None else viewed[1])
        self._send_returned()
        if type(message) is list and message and message[0] in ("lent", "returned"):
            raise FrameError("a message about lending was itself lent")
        self._inbox.take(message)

    def _view_gone(self, _view: Any) -> None:
        """Return a lent message: its last view is gone. Called in any thread, at any moment."""
        here = threading.get_ident() == self._thread
        with contextlib.suppress(RuntimeError):  # the event loop is closed
            (self._loop.call_soon if here else self._loop.call_soon_threadsafe)(self._send_returned)

    def _send_returned(self) -> None:
        """Send ``returned`` for lent messages that are no longer in use, in the order in which they were lent."""
        borrowed = self._borrowed
        while borrowed and (borrowed[0] is None or borrowed[0]() is None):
            borrowed.popleft()
            if self.wire is not None:  # together with the next call, if there is one in this turn
                self._unread_returns.append(self.wire.pieces_sent + self.wire.waiting)
                self.wire.send_joined(self._inbox.codec.encode(["returned"]))

    def _count_unread_returns(self) -> int:
        """Count the ``returned`` messages that still wait for room in the channel."""
        wire, unread = self.wire, self._unread_returns
        if wire is None or not wire.waiting:
            unread.clear()
        else:
            while unread and unread[0] < wire.pieces_sent:
                unread.popleft()
        return len(unread)
