"""Large messages of one worker, each lent to the other side in memory that both share."""

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
    from pool_monitor.pool.transport.base import Sink
    from pool_monitor.pool.transport.child.codec import Buffer
    from pool_monitor.pool.transport.inbox import Inbox
    from pool_monitor.pool.transport.wire import Wire

_TRIM_AFTER = 1.0  # seconds without a large message, after which the memory for them is given back
_UNREAD_LIMIT = 1000  # messages that a worker lent and we have not returned, or whose return it has not read
_AT_ONCE = 8  # large results at once for which memory is not asked of the system each time


class Lending:
    """What the service and one worker lend each other. Without shared memory, large messages go over the wire."""

    def __init__(self, inbox: Inbox, reader: FrameReader, sink: Sink, frame_limit: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._inbox, self._reader, self._sink, self._frame_limit = inbox, reader, sink, frame_limit
        self.wire: Wire | None = None  # once the worker has been started
        self.shared: SharedFile | None = None  # until the worker has ended, or says that it makes no use of it
        self._borrowed: deque[weakref.ref[Any] | None] = deque()  # what it lent, oldest first: None, or what views it
        self._unread_returns: deque[int] = deque()  # for each return: `Wire.pieces_sent` once it has left
        self._large = False  # a large message came or went since it was last looked at
        self._trim_timer: asyncio.TimerHandle | None = None

    # -- the memory -----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def share(self) -> Iterator[dict[str, int]]:
        """The descriptor of the memory that a worker is to share, by the name of its variable, if there can be one."""
        self.unshare()
        try:
            self.shared = shared = SharedFile(self._frame_limit)
            self._inbox.counters = shared.memory.counters
        except OSError:  # no room, no descriptor left: it also works without
            yield {}
            return
        try:
            yield {"POOL_MONITOR_SHARED": shared.fd}
        finally:
            shared.close_fd()

    def unshare(self) -> None:
        """Share no memory any more."""
        self._inbox.counters = None
        self._borrowed.clear()  # of views that are left, no word is wanted any more
        if self.shared is not None:
            self.shared.close()
            self.shared = None

    def close(self) -> None:
        """The worker is gone."""
        self.unshare()
        if self._trim_timer is not None:
            self._trim_timer.cancel()

    def held_back(self) -> bool:
        """Whether answers lie in the worker's outbox."""
        return self.shared is not None and bool(self.shared.memory.held_back())

    def empty_outbox(self) -> None:
        """Take the answers that the worker held back and came to send no more. Some may have come twice."""
        if self.shared is None:
            return
        reader = FrameReader(self._frame_limit)
        held = self.shared.memory.held_back()
        reader.space()[: len(held)] = held
        try:
            bodies: Sequence[memoryview] = reader.received(len(held))
        except FrameError as error:  # it may have ended because it writes where it should not
            bodies = error.before
        self._inbox.salvage(bodies)

    def _note_large(self) -> None:
        self._large = True
        if self._trim_timer is None:
            self._trim_timer = self._loop.call_later(_TRIM_AFTER, self._trim)

    def _trim(self) -> None:
        """Give back the memory for large messages, when there were none for a while."""
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
        """Send an encoded message of *size* bytes: lend it where there is room."""
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
        """The worker has read what was lent."""
        if self.shared is None or not self.shared.memory.lent_count:
            raise FrameError("something was returned that had not been lent")
        self.shared.memory.mark_returned()

    # -- from the worker ------------------------------------------------------------------------------------------

    def take(self, message: list[Any]) -> None:
        """Act on a message about lending. Raises FrameError."""
        if message[0] == "lent":
            self._borrow(*message[1:])
        else:
            self._returned()

    def _borrow(self, length: Any, offset: Any = 0) -> None:
        """Read the message that the worker lends, and give it back, if its value is not to be read where it lies."""
        shared = self.shared
        if shared is None:
            raise FrameError("a message was lent without shared memory")
        if max(self._count_unread_returns(), len(self._borrowed)) > _UNREAD_LIMIT:
            raise FrameError("it goes on lending and does not read what is returned")
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
            raise FrameError("a message about lending, lent")
        self._inbox.take(message)

    def _view_gone(self, _view: Any) -> None:
        """Something that was lent is viewed no more. Called in any thread, at any moment."""
        here = threading.get_ident() == self._thread
        with contextlib.suppress(RuntimeError):  # the event loop is closed
            (self._loop.call_soon if here else self._loop.call_soon_threadsafe)(self._send_returned)

    def _send_returned(self) -> None:
        """Return what was lent and is read, in the order it was lent."""
        borrowed = self._borrowed
        while borrowed and (borrowed[0] is None or borrowed[0]() is None):
            borrowed.popleft()
            if self.wire is not None:  # with the next call, if one comes this turn
                self._unread_returns.append(self.wire.pieces_sent + self.wire.waiting)
                self.wire.send_joined(self._inbox.codec.encode(["returned"]))

    def _count_unread_returns(self) -> int:
        """Messages that were returned, and of which the worker is not told while there is no room in the channel."""
        wire, unread = self.wire, self._unread_returns
        if wire is None or not wire.waiting:
            unread.clear()
        else:
            while unread and unread[0] < wire.pieces_sent:
                unread.popleft()
        return len(unread)
