"""One call, from the moment it is asked for to its one end."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from pool_monitor.errors import OperationTimeout, PoisonedCall, PoolError, WorkerDied
from pool_monitor.pool.transport.child.codec import LARGE
from pool_monitor.pool.transport.child.shared_memory import area_size

if TYPE_CHECKING:
    from pool_monitor.pool.item_limits import ItemLimits
    from pool_monitor.pool.policy.queue import WaitQueue
    from pool_monitor.pool.policy.session_table import SessionState
    from pool_monitor.pool.worker import Worker

next_id: Callable[[], int] = itertools.count(1).__next__

STREAM_HIGH = 64  # items of a stream nobody has read yet at which its worker is no longer listened to
STREAM_LOW = 16  # and at which it is again
STREAM_BYTES = 16 << 20  # the same of their bytes, a quarter of which are few enough to go on
_READERS = 3  # workers that end while they read a call, after which it is poison
_HOLDERS = 20  # and for workers that do not tell what they read; many can end at one moment, through no call's fault
_ON_THE_WAY = 4 << 20  # bytes: several times what sockets hold; as small items they take thirty times as much here
_LENT = area_size(sys.maxsize)  # bytes: what a worker can have lent beside that, as large items
_EACH = 50  # bytes that an item takes here beside its own, where there may be very many
_ITEMS_ON_THE_WAY = 8  # of whatever size


class Options(Struct, frozen=True, kw_only=True):
    """How to make a call: what `Pool.options` takes, and what it means."""

    timeout: float | None = None
    first_item_timeout: float | None = None
    item_timeout: float | None = None
    session: str | None = None
    idempotent: bool = False
    priority: int = 0
    key: str = ""
    worker: str | None = None
    affinity: str | None = None
    zero_copy: bool = False


class Call(Struct, eq=False):
    """One call. It is waiting, then on a worker (perhaps more than once), then done, for good."""

    id: int
    operation: str
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    options: Options
    future: asyncio.Future[Any]
    items: StreamBuffer | None  # a stream's; None for a plain call
    deadline: float  # event loop time
    started_ns: int
    priority: int = 0  # of the options: each is looked at several times while the call waits
    key: str = ""
    tick: int = 0  # where the deadline wheel has it; 0: it is not on the wheel
    queue: WaitQueue[Call] | None = None  # where it stands, or stood last
    queue_ns: int | None = None  # how long it waited for its last worker to be free
    sent_ns: int = 0  # when that was
    expects: tuple[float, float] = (0.0, 0.0)  # mean and variance of how long it will hold its worker, while it waits
    nth: int = 0  # of the calls handed to that worker's process
    trial: bool = False  # let through by a breaker that is half open
    session: SessionState[Call] | None = None
    session_kind: str = "none"  # else what it wants of the session's worker: hint or strict
    worker: Worker | None = None  # where it is now, or was last
    attempts: int = 0
    running: bool = False  # on a worker, and not done
    readers: int = 0  # workers that ended while they read it
    holders: int = 0  # workers that ended with it in their hands, none of which had begun it
    done: bool = False
    context: contextvars.Context | None = None  # of its caller, where variables of it travel

    def in_context(self, emit: Callable[..., object]) -> Callable[..., object]:
        """*emit*, in the context of the caller if that travels."""
        return emit if self.context is None else partial(self.context.copy().run, emit)

    def resolve(self, error: BaseException | None, result: Any) -> None:
        """Wake the caller."""
        if not self.future.done():  # it is when the caller was cancelled
            if error is None:
                self.future.set_result(result)
            elif isinstance(error, asyncio.CancelledError):
                self.future.cancel()
            else:
                self.future.set_exception(error)
        if self.items is not None:
            self.items.end()

    def timed_out(self, timeout: float, late_s: float = 0.0) -> OperationTimeout:
        """What its caller gets at its deadline; *timeout*: of calls that bring none. *late_s*: the result is there, and
        was read so long after the deadline, since the event loop was held up.
        """
        on = self.worker.id if self.worker is not None else "?"
        own = self.options.timeout
        text = f"{self.operation} was not done within its timeout of {timeout if own is None else own:g} s, on {on}"
        if late_s:
            text += f"; its result was read {late_s:.3g} s later: something holds up the event loop of the service"
        return OperationTimeout(text)

    def late_error(self, now_ns: int, timeout: float) -> OperationTimeout | None:
        """What its caller gets in place of a result that a held-up loop reads past the deadline: the loop reads
        what has come before it looks at its timers.
        """
        late_s = now_ns / 1e9 - self.deadline
        return self.timed_out(timeout, late_s) if late_s > 0 else None

    def outlived_worker(self, *, reading: bool) -> None:
        """A worker has ended that held it and had not begun it; *reading*: while it read this very call."""
        self.holders += 1
        self.readers += reading

    def is_poison(self, workers: int) -> bool:
        """Whether it is most likely what ends the *workers* of the pool: no other is handed it."""
        return self.readers >= _READERS or self.holders >= max(_HOLDERS, 3 * workers)


def refused(operation: str, error: PoolError) -> Call:
    """A call that never came to be."""
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    future.set_exception(error)
    return Call(0, operation, (), {}, Options(), future, None, 0.0, 0, done=True)


def poisoned(call: Call, last: PoolError) -> PoisonedCall:
    """What a call is told that several workers did not survive; *last*: what it would be told of the last one."""
    seen = f"{call.readers} workers ended while they read it" if call.readers else f"{call.holders} workers held it"
    text = f"{call.operation}: {seen} and none began it, so no other is handed it"
    assert call.worker is not None  # it was handed to some
    exit_code = last.exit_code if isinstance(last, WorkerDied) else None
    error = PoisonedCall(f"{text}; the last end: {last}", worker=call.worker.id, exit_code=exit_code)
    error.stderr = last.stderr if isinstance(last, WorkerDied) else ""  # which the text has already
    return error


class StreamBuffer:
    """What a stream has yielded and its caller has not read yet: 64 items or 16 MiB, whichever comes first, and what is
    on its way when the worker is told to hold on. Bounded by back-pressure on the worker, and by `overrun` for one that
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
        self.held = False  # its worker was told to hold on

    def put(self, value: Any, size: int) -> bool:
        """Add an item that took *size* bytes. Returns whether the worker should hold on."""
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
        is told to hold on.
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
