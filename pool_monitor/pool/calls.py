"""One call, from the moment it is asked for to its one end."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct

if TYPE_CHECKING:
    from pool_monitor.pool.queue import WaitQueue
    from pool_monitor.pool.session import SessionState
    from pool_monitor.pool.worker import Worker

_ids = itertools.count(1)

STREAM_HIGH = 64  # items of a stream nobody has read yet at which its worker is no longer listened to
STREAM_LOW = 16  # and at which it is again


class Options(Struct, frozen=True, kw_only=True):
    """How to make a call: what `Pool.options` takes, and what it means."""

    timeout: float | None = None
    session: str | None = None
    idempotent: bool = False
    priority: int = 0
    key: str = ""
    worker: str | None = None
    affinity: str | None = None


class Call:
    """One call. It is waiting, then on a worker (perhaps more than once), then done, for good."""

    __slots__ = (
        "args",
        "attempts",
        "deadline",
        "done",
        "expects",
        "future",
        "id",
        "items",
        "kwargs",
        "line",
        "nth",
        "operation",
        "options",
        "queue_ns",
        "running",
        "sent_ns",
        "session",
        "session_kind",
        "started_ns",
        "tick",
        "trial",
        "worker",
    )

    def __init__(
        self,
        operation: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: Options,
        *,
        future: asyncio.Future[Any],
        items: Items | None,
        deadline: float,
        now_ns: int,
    ) -> None:
        self.id = next(_ids)
        self.operation, self.args, self.kwargs, self.options = operation, args, kwargs, options
        self.future = future
        self.items = items  # a stream's; None for a plain call
        self.deadline = deadline  # event loop time
        self.tick = 0  # where the deadline wheel has it
        self.line: WaitQueue[Call] | None = None  # where it stands, or stood last
        self.started_ns = now_ns
        self.queue_ns: int | None = None  # how long it waited for its last worker to be free
        self.sent_ns = 0  # when that was
        self.expects = (0.0, 0.0)  # mean and variance of how long it will hold its worker, while it waits
        self.nth = 0  # of the calls handed to that worker's process
        self.trial = False  # let through by a breaker that is half open
        self.session: SessionState[Call] | None = None
        self.session_kind = "none"  # else what it wants of the session's worker: hint or strict
        self.worker: Worker | None = None  # where it is now, or was last
        self.attempts = 0
        self.running = False  # on a worker, and not done
        self.done = False

    def tell(self, error: BaseException | None, result: Any) -> None:
        """Wake the caller."""
        if not self.future.done():  # it is when the caller was cancelled
            if error is None:
                self.future.set_result(result)
            elif isinstance(error, asyncio.CancelledError):
                self.future.cancel()
            else:
                self.future.set_exception(error)
        if self.items is not None:
            self.items.wake()

    @property
    def priority(self) -> int:
        return self.options.priority

    @property
    def key(self) -> str:
        return self.options.key


class Items:
    """What a stream has yielded and its caller has not read yet. Bounded by back-pressure on the worker."""

    __slots__ = ("_loop", "_waiter", "buffer", "delivered", "held", "keep")

    def __init__(self, loop: asyncio.AbstractEventLoop, *, keep: bool) -> None:
        self._loop = loop
        self.keep = keep  # the caller wants them all, at the end: nobody reads before that, so nothing may wait for it
        self._waiter: asyncio.Future[None] | None = None
        self.buffer: deque[Any] = deque()
        self.delivered = False  # the caller has been given an item
        self.held = False  # its worker was told to hold on

    def put(self, value: Any) -> bool:
        """Add an item. Returns whether the worker should hold on."""
        self.buffer.append(value)
        self.wake()
        return len(self.buffer) >= STREAM_HIGH and not self.keep

    def start_over(self) -> bool:
        """Forget them, for another try. False when the caller has seen some already."""
        if not self.delivered:
            self.buffer.clear()
            self.held = False
        return not self.delivered

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def changed(self) -> None:
        """Return when something has been put, or `wake` was called."""
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
